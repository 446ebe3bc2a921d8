"""The commands `plot`, `report`, `compare` and `tables` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import DATA, Json

_KINDS = "curves, confusion, calibration, grad-cam, filters, reuse, gates, responses, surface, stages or network"
_Split = Annotated[
    str | None, typer.Option(help="Split of the images. Default: the run's held-out images.", show_default=False)
]


def plot(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_MODEL…",
            help="A run folder or a .keras file; several for curves and responses. For stages and network also the name of a network.",
            show_default=False,
        ),
    ],
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{_KINDS}.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Picture, .png, .svg or .pdf. Default: NAME-KIND.png in this folder.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help=f"{DATA} Default: the images that the run held out.", show_default=False)
    ] = None,
    split: _Split = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of images. Default: 12 for grad-cam; 256 for gates, responses and surface; otherwise all.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of images, and of the directions of surface.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw a picture of a run or a network: curves, Grad-CAM, filters, gates, feature reuse, loss surface and others."""
    from keras_deepnets.cli import reports

    reports.plot(targets, kind, out, data=data, split=split, images=images, seed=seed, as_json=as_json)


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a finished run or study.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="HTML file. Default: report.html in the run folder.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images to evaluate a classifier on. Default: those that the run held out.", show_default=False
        ),
    ] = None,
    split: _Split = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum number of images to evaluate on. Default: all.", show_default=False),
    ] = None,
    exports: Annotated[
        list[Path],
        typer.Option(metavar="PATH", help="Also list the exported models in this folder or file.", show_default=False),
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Write one HTML file about a run that opens offline: results, pictures, calibration, speed, exports, command, versions."""
    from keras_deepnets.cli import reports

    reports.report(run, out, data=data, split=split, limit=limit, exports=exports, as_json=as_json)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders.", show_default=False)],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Picture of the overlaid curves, .png, .svg or .pdf.")
    ] = Path("comparison.png"),
    as_json: Json = False,
) -> None:
    """Compare runs: one table, and their curves in one picture."""
    from keras_deepnets.cli import reports

    reports.compare(runs, out, as_json=as_json)


def tables(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE…]",
            help="imagenet-resnet, imagenet-ensembles, cifar-resnet, residual-units, resnext, densenet-imagenet, densenet, highway, "
            "detection. Default: all.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of run folders, for the measured errors.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the Markdown to this file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the papers' tables in Markdown with our counts and, from your runs, the measured errors."""
    from keras_deepnets.cli import reports

    reports.tables(names or [], runs, out, as_json=as_json)
