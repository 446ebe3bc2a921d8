"""The command `study` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Json
from keras_deepnets.errors import InputError


def study(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="A built-in study, or a .yaml file of your own.", show_default=False),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="List the built-in studies.")] = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="Use the sizes and the recipe of the paper. This needs GPUs.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Output folder. Default: studies/NAME.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Other images: digits, a folder of class folders, or a TFDS name.", show_default=False
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of seeds.", show_default=False)] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Train on at most N images.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Override a recipe field of all runs, e.g. epochs=2.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer makes a new list
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Runs to train at once, each on its own processors. Default: by processors and memory; 1 on a GPU.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs, their parameters and the estimated time. Train nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Repeat an experiment of a paper: train its networks, draw its figure, and check its claim.

    Rerun the same command to resume an interrupted study.
    """
    from keras_deepnets.cli import study as command

    if show_list or name is None:
        command.list_studies(as_json)
        return
    from keras_deepnets import studies
    from keras_deepnets.cli.train import pairs

    fields = pairs(settings, "--set")
    if "seed" in fields:
        raise InputError("--set seed is not a recipe field; give --seeds N.")
    found = studies.load(name, paper=paper, data=data, seeds=seeds, limit=limit, set=fields)
    if dry_run:
        command.show_plan(found, as_json, jobs)
        return
    command.run(found, out or Path("studies") / f"{found.name}{'-paper' * paper}", as_json, jobs)
