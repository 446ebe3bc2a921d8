"""The command `benchmark` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Json
from keras_deepnets.errors import InputError


def benchmark(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL…",
            help="Network names from `list`. With --data: [SOURCE].",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Measure only the input pipeline, on SOURCE (same as DATA of `train`) or on synthetic images like CIFAR's and ImageNet's.",
        ),
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(help="With --data SOURCE: augmentation policy, or none. Default: depends on the image size."),
    ] = None,
    mode: Annotated[str, typer.Option(help="train, inference, export, or a comma-separated list.")] = "train",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or a comma-separated list.")] = "float32",
    batch: Annotated[
        str | None,
        typer.Option(help="Batch size, or a comma-separated list. Default: 16 for ImageNet networks, otherwise 128."),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            help="Peers to compare with: keras (keras.applications, otherwise the same network built from stock Keras layers), "
            "keras-twin, torchvision, timm, pytorchcv, torch.compile (of torchvision), openvino and onnxruntime (our network there; "
            "inference), ours (with default options), none, or a comma-separated list."
        ),
    ] = "keras",
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Image size (side in pixels). Default: the size the network was designed for."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each side. Default: chosen by the frameworks.")
    ] = None,
    fold: Annotated[
        bool,
        typer.Option(
            "--fold", help="Inference: fold our batch normalisation, on TensorFlow with export.inference_function."
        ),
    ] = False,
    options: Annotated[
        list[str],
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Set an option of our network. `info` lists the options.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    warmup: Annotated[int, typer.Option(min=2, help="Warm-up steps of each side, which are not timed.")] = 3,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Timed steps of each side. Default: as many as fit in --seconds, from 5 to 30."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to measure each pair (or each pipeline), without warm-up.")
    ] = 30.0,
    ceiling: Annotated[
        bool, typer.Option(help="Also time a large matrix product, and report each network's speed as a share of it.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Output folder for benchmark.csv and benchmark.png.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure speed and memory next to other libraries, in alternating steps and fresh processes. Or measure the input pipeline."""
    given = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    if data:
        from keras_deepnets.cli import pipeline

        pipeline.check_options(given)
        pipeline.benchmark(models or [], augment, image_size, batch, seconds, out, as_json=as_json)
        return
    if not models:
        raise InputError("Missing argument 'MODEL…': name one or more networks, or pass --data.")
    if augment is not None:
        raise InputError("--augment is for --data SOURCE; leave it out.")
    from keras_deepnets.benchmark.pairs import Plan
    from keras_deepnets.cli import benchmark as command
    from keras_deepnets.cli.train import pairs as pairs_of

    request = command.Request(
        models=models,
        modes=mode,
        dtypes=dtype,
        batches=batch,
        against=against,
        image_size=image_size,
        threads=threads,
        folded=fold,
        options=pairs_of(options, "--option"),
        plan=Plan(warmup, pairs, seconds),
        with_ceiling=ceiling,
        out=out,
    )
    command.benchmark(request, as_json=as_json)
