"""The commands that look things up or fetch them, and their options: list, info, recipes, download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Json, Options


def list_command(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Shell pattern of the names, e.g. 'resnet*'.")
    ] = "*",
    family: Annotated[str | None, typer.Option(help="Only this family, e.g. ResNet.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only networks designed for this data, e.g. cifar10.")] = None,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="List published weights instead; PATTERN is of a network's or of their names."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List the networks: name, family, data, depth, parameters, multiply-adds, published error. Or published weights."""
    from keras_deepnets.cli import catalog

    if weights:
        catalog.list_weights(pattern, family, dataset, as_json)
        return
    catalog.list_networks(pattern, family, dataset, as_json)


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A network's name, as `list` prints it, or a builder's.", show_default=False
        ),
    ],
    options: Options = [],  # noqa: B006 - typer makes a new list
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the network into a .png, .svg or .pdf file.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is known of a network, and its options; draw it. With --option: of the network that they make."""
    from keras_deepnets.cli import catalog
    from keras_deepnets.cli.train import pairs

    given = pairs(options, "--option")
    if plot is not None:
        catalog.draw_network(name, plot, given)
    catalog.show_network(name, given, as_json)


def recipes_command(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A recipe's name, or a .yaml file of one.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the training recipes and when to use which; with NAME the fields of one, their values and what they may be."""
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
            help="A network (its ImageNet weights), a name of `list --weights`, or both: NETWORK:NAME.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "--list", help="Say what would be fetched from where to where, and fetch nothing."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Fetch published weights into the cache folder, which may then be copied to a machine without network."""
    from keras_deepnets.cli import downloads

    downloads.download_weights(names, dry_run=dry_run, as_json=as_json)
