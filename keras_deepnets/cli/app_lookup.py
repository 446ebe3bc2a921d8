"""The commands `list`, `info`, `recipes` and `download` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Json, Options


def list_command(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Shell pattern for the names, e.g. 'resnet*'.")
    ] = "*",
    family: Annotated[str | None, typer.Option(help="Only this family, e.g. ResNet.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only networks designed for this data set, e.g. cifar10.")] = None,
    task: Annotated[
        str, typer.Option(metavar="classification|detection", help="The networks of this task.")
    ] = "classification",
    weights: Annotated[
        bool,
        typer.Option(
            "--weights", help="List published weights instead. PATTERN matches network names and weight names."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the networks: name, family, data set, depth, parameters, multiply-adds, published error. Or list published weights."""
    from keras_deepnets.cli import catalog

    if weights:
        catalog.list_weights(pattern, family, dataset, as_json)
        return
    catalog.list_networks(pattern, family, dataset, as_json, task)


def info(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Network name from `list`, or a builder's name.", show_default=False),
    ],
    options: Options = [],  # noqa: B006 - typer makes a new list
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the network to a .png, .svg or .pdf file.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a network's facts and options, and draw it. With --option: show the network that the options make."""
    from keras_deepnets.cli import catalog
    from keras_deepnets.cli.train import pairs

    given = pairs(options, "--option")
    if plot is not None:
        catalog.draw_network(name, plot, given)
    catalog.show_network(name, given, as_json)


def recipes_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Recipe name or .yaml file.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the training recipes and when to use them. With NAME: list that recipe's fields, values and allowed values."""
    from keras_deepnets.cli import recipes

    if name is None:
        recipes.list_recipes(as_json)
    else:
        recipes.show_recipe(name, as_json)


def download(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME…",
            help="A network (its ImageNet weights), a name from `list --weights`, or both: NETWORK:NAME.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", "--list", help="Print what would be downloaded, with source and target, and download nothing."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Download published weights into the cache folder. You can copy this folder to a machine without network access."""
    from keras_deepnets.cli import downloads

    downloads.download_weights(names, dry_run=dry_run, as_json=as_json)
