"""The commands `data shard` and `data check` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Data, Json, SkipBroken

app = typer.Typer()


@app.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    """Write labelled images as TFRecord shards, and verify the shards."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def shard(
    data: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.", show_default=False)],
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="Files per split. Default: enough for about 128 MiB per file."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, validation, test or all. Default: every split of the data.", show_default=False),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed for the order, and for dividing a folder of class folders into splits.")
    ] = 0,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Write labelled images as a few large TFRecord files. `train` and `evaluate` accept the folder as DATA."""
    from keras_deepnets.cli import shards as command

    command.shard(data, out, shards, split, seed=seed, skip_broken=skip_broken, as_json=as_json)


@app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of TFRecord shards from `data shard`.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Read all TFRecord shards and compare them with the digests recorded when they were written."""
    from keras_deepnets.cli import shards as command

    command.check(folder, as_json=as_json)
