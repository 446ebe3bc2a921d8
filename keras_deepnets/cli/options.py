"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ARTIFACT = "A run folder, a .keras file, a SavedModel folder, or a .tflite, .onnx or (OpenVINO) .xml file."
DATA = (
    'The images: "digits" (embedded), a folder with one sub-folder per class (FOLDER/<class>/*.jpg), '
    'a folder of TFRecord shards, or the name of a TFDS data set, e.g. "cifar10".'
)
BEGIN, WORK, LOOK = "Get started", "Train, evaluate, export", "Look at runs"

Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA, show_default=False)]
Artifact = Annotated[Path, typer.Argument(metavar="MODEL", help=ARTIFACT, show_default=False)]
SkipBroken = Annotated[
    bool,
    typer.Option("--skip-broken", help="Skip and count images that cannot be decoded, instead of stopping."),
]
Options = Annotated[
    list[str],
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Set an option of the network, e.g. shortcut=B, or of a builder, e.g. blocks=3,4,6,3. `info` lists the options.",
        show_default=False,
    ),
]
WeightsOptions = Annotated[
    list[str],
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Set an option of the network that the weights belong to, e.g. antialias=blur. `info` lists the options.",
        show_default=False,
    ),
]
