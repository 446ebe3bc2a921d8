"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ARTIFACT = "A run folder, a .keras file, a SavedModel folder, a .tflite or an .onnx file."
DATA = (
    'Where the images come from: "digits" (embedded), a folder of class folders (FOLDER/<class>/*.jpg), '
    'a folder of TFRecord shards, or the TFDS name of a data set, e.g. "cifar10".'
)
BEGIN, WORK = "Begin", "Work"

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA, show_default=False)]
Artifact = Annotated[Path, typer.Argument(metavar="MODEL", help=ARTIFACT, show_default=False)]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Leave out images that cannot be decoded, and count them, instead of stopping."),
]
Options = Annotated[
    list[str],
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the network, as `info` prints them, e.g. shortcut=B; a builder's, e.g. blocks=3,4,6,3.",
        show_default=False,
    ),
]
WeightsOptions = Annotated[
    list[str],
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the network that the weights are of, as `info` prints them, e.g. antialias=blur.",
        show_default=False,
    ),
]
