"""The commands `export` and `serving-config` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Json

_DEVICE, _SERVER, _CHECK = "Of a .tflite file", "Of a SavedModel", "Comparison and output"


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or a .keras file.", show_default=False)],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="The folder of versions (savedmodel), or the .tflite, .onnx or .keras file.",
            show_default=False,
        ),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="savedmodel (TF Serving), tflite (devices), onnx (other runtimes) or "
            "keras (folded for inference; Python loads it after `import keras_deepnets`).",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names of the classes, a line each, in the order of the outputs; by default the model's own.",
            show_default=False,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(help="float16, dynamic, int8 or int16x8.", show_default=False, rich_help_panel=_DEVICE),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Typical images, which int8 and int16x8 need.",
            show_default=False,
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many of them are read; by default 200.", show_default=False, rich_help_panel=_DEVICE
        ),
    ] = None,
    integer_io: Annotated[
        bool,
        typer.Option(
            "--integer-io/--float-io",
            help="Whether a file of integers takes and gives integers too.",
            rich_help_panel=_DEVICE,
        ),
    ] = True,
    any_batch: Annotated[
        bool,
        typer.Option("--any-batch", help="For any number of images at once, not for one.", rich_help_panel=_DEVICE),
    ] = False,
    version: Annotated[
        int | None,
        typer.Option("--model-version", min=0, help="By default the next free number.", rich_help_panel=_SERVER),
    ] = None,
    fold: Annotated[
        bool,
        typer.Option(
            "--fold/--no-fold",
            help="Whether batch normalisation is folded into convolutions: same outputs, faster.",
            rich_help_panel=_SERVER,
        ),
    ] = True,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the weights as they are stored: float32 (the default), bfloat16 (computes in it too) or float16.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, help="Give the so many most probable classes too.", show_default=False, rich_help_panel=_SERVER
        ),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Give what the last layer takes too.", rich_help_panel=_SERVER)
    ] = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE|HxW",
            help="Pixels of the images that serving_images takes, e.g. 224 or 224x160; by default any.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images a request; by default any.", show_default=False, rich_help_panel=_SERVER),
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(
            help="What a broken image does to its request: fail (the default), or skip (it alone gets no class).",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Height times width that an image file may have; by default 50 million.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            help="Images of the warm-up requests; by default 1,8,32, or --batch-size.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images: compare the accuracy on their test split, and write it on a SavedModel's card.",
            show_default=False,
            rich_help_panel=_CHECK,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.", rich_help_panel=_CHECK)
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a trained model as a SavedModel, a TFLite, ONNX or Keras file; compare size, latency and outputs."""
    from keras_deepnets.cli import export as command

    options = {
        "precision": precision,
        "top_k": top_k,
        "features": features or None,
        "image_size": command.height_and_width(image_size),
        "batch_size": batch_size,
        "on_error": on_error,
        "max_pixels": max_pixels,
        "batch_sizes": command.counts(batch_sizes),
    }
    request = command.Export(
        out,
        form,
        quantize=quantize,
        calibration=calibration,
        calibration_images=calibration_images,
        integer_io=integer_io,
        any_batch=any_batch,
        version=version,
        fold=fold,
        options={name: value for name, value in options.items() if value is not None},
        labels=labels,
        data=data,
        overwrite=overwrite,
    )
    command.export_model(model, request, as_json=as_json)


def serving_config(
    directory: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="The folder of versions that `export` wrote: OUT.", show_default=False),
    ],
    model_name: Annotated[
        str | None,
        typer.Option("--name", help="What clients call the model; by default the folder's name.", show_default=False),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            help="Images of a batch, in rising order; by default those of the export. The last is the most that a request may have.",
            show_default=False,
        ),
    ] = None,
    timeout_micros: Annotated[
        int | None,
        typer.Option(min=0, help="How long a request waits for others at most; by default 2000.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Batches at the same time; by default the server's cores.", show_default=False),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(
            min=1, help="Full batches that may wait before requests are refused; by default 100.", show_default=False
        ),
    ] = None,
    base_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="The folder as the server sees it; by default /models/NAME.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        list[str],
        typer.Option(
            "--label",
            metavar="NAME=VERSION",
            help="Serve this version under this name too, e.g. stable=3, and only such; by default the newest.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer makes a new list
    as_json: Json = False,
) -> None:
    """Write TF Serving's configuration beside a model's versions: which are served, batching, metrics."""
    from keras_deepnets.cli import export as command

    values = {
        "model_name": model_name,
        "batch_sizes": command.counts(batch_sizes),
        "timeout_micros": timeout_micros,
        "threads": threads,
        "queue": queue,
        "base_path": base_path,
    }
    command.serving_config(directory, labels, values, as_json=as_json)
