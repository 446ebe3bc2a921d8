"""The commands `export` and `serving-config` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Json

_DEVICE, _SERVER, _CHECK = "Options for .tflite and OpenVINO files", "Options for SavedModels", "Comparison and output"


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run folder or a .keras file.", show_default=False)],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Output: the model's folder of versions (savedmodel), or the .tflite, .onnx, .xml (openvino) or .keras file.",
            show_default=False,
        ),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="savedmodel (TF Serving), tflite (devices), onnx (other runtimes), openvino (x86 processors) or "
            "keras (folded for inference, to load in Python after `import keras_deepnets`).",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file with one class name per line, in the order of the outputs. Default: the model's own labels.",
            show_default=False,
        ),
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            help="Quantise: float16, dynamic, int8 or int16x8; for onnx and openvino int8.",
            show_default=False,
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Representative images. int8 and int16x8 need them.",
            show_default=False,
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    calibration_images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of calibration images to read. Default: 200.",
            show_default=False,
            rich_help_panel=_DEVICE,
        ),
    ] = None,
    integer_io: Annotated[
        bool,
        typer.Option(
            "--integer-io/--float-io",
            help="Use integer (or float) inputs and outputs in an integer-quantised file.",
            rich_help_panel=_DEVICE,
        ),
    ] = True,
    any_batch: Annotated[
        bool,
        typer.Option("--any-batch", help="Accept any batch size instead of one image.", rich_help_panel=_DEVICE),
    ] = False,
    version: Annotated[
        int | None,
        typer.Option(
            "--model-version", min=0, help="Version number. Default: the next free number.", rich_help_panel=_SERVER
        ),
    ] = None,
    fold: Annotated[
        bool,
        typer.Option(
            "--fold/--no-fold",
            help="Fold batch normalisation into the convolutions: same outputs, faster.",
            rich_help_panel=_SERVER,
        ),
    ] = True,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Type of the stored weights: float32 (default), bfloat16 (also used for computation) or float16. "
            "For openvino: the type of computation.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, help="Also return this many most probable classes.", show_default=False, rich_help_panel=_SERVER
        ),
    ] = None,
    features: Annotated[
        bool,
        typer.Option(
            "--features", help="Also return the features, i.e. the inputs of the last layer.", rich_help_panel=_SERVER
        ),
    ] = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE|HxW",
            help="Image size in pixels that serving_images accepts, e.g. 224 or 224x160. Default: any.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images per request. Default: any. Also for openvino.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(
            help="Effect of a broken image on its request: fail (default), or skip (only this image gets no class).",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Largest image file, as height times width in pixels. Default: 50 million.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            help="Batch sizes of the warm-up requests. Default: 1,8,32, or --batch-size.",
            show_default=False,
            rich_help_panel=_SERVER,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images. Compares the accuracy on their test split, and records it on a SavedModel's card.",
            show_default=False,
            rich_help_panel=_CHECK,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.", rich_help_panel=_CHECK)
    ] = False,
    as_json: Json = False,
) -> None:
    """Export a trained model as a SavedModel, TFLite, ONNX, OpenVINO or Keras file. Compares size, latency and outputs."""
    from keras_deepnets.cli import detect
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
    if detect.holds_detector(model):
        detect.export(model, request, as_json=as_json)
        return
    command.export_model(model, request, as_json=as_json)


def serving_config(
    directory: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder of versions: the OUT of `export`.", show_default=False),
    ],
    model_name: Annotated[
        str | None,
        typer.Option("--name", help="Model name for clients. Default: the folder's name.", show_default=False),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,…",
            help="Allowed batch sizes, in rising order. The last one limits the images per request. Default: those of the export.",
            show_default=False,
        ),
    ] = None,
    timeout_micros: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Longest time in microseconds that a request waits for others. Default: 2000.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Batches processed in parallel. Default: the server's cores.", show_default=False),
    ] = None,
    queue: Annotated[
        int | None,
        typer.Option(
            min=1, help="Full batches that may wait before requests are refused. Default: 100.", show_default=False
        ),
    ] = None,
    base_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Path of the folder on the server. Default: /models/NAME.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        list[str],
        typer.Option(
            "--label",
            metavar="NAME=VERSION",
            help="Also serve this version under this name, e.g. stable=3. Only labelled versions are served then. Default: the newest.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer makes a new list
    as_json: Json = False,
) -> None:
    """Write TF Serving's configuration into a model's folder of versions: versions to serve, batching, metrics."""
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
