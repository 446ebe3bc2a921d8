"""The commands `evaluate`, `convert` and `predict` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import ARTIFACT, DATA, Artifact, Json, SkipBroken, WeightsOptions
from keras_deepnets.errors import InputError
from keras_deepnets.training.measured import RULE


def evaluate(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL]", help=f"{ARTIFACT} With --weights: the name of a network.", show_default=False
        ),
    ] = None,
    data: Annotated[str | None, typer.Argument(metavar="[DATA]", help=DATA, show_default=False)] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Evaluate these weights instead of a trained model: a file from any supported library, or a name from "
            "`list --weights`. MODEL can then name the network.",
            show_default=False,
        ),
    ] = None,
    options: WeightsOptions = [],  # noqa: B006
    data_option: Annotated[str | None, typer.Option("--data", help="Same as DATA.", show_default=False)] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help=f"Data set split: test, validation, train, or all (everything). Default: {RULE}.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed that divides a folder into splits. Default: the seed of the run.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Batch size. Default: 256; 1 for a detector.", show_default=False)
    ] = None,
    crops: Annotated[
        int,
        typer.Option(help="1: the centre crop. 10: average over the corner and centre crops and their mirror images."),
    ] = 1,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE,…",
            help="Average over whole images resized to these shorter sides in pixels, e.g. 224,256,384,480,640.",
            show_default=False,
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the confusion matrix to a .png, .svg or .pdf file.",
            show_default=False,
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of a detector: draw the precision-recall curves to a .png, .svg or .pdf file.",
            show_default=False,
        ),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the worst errors to a .png file: the images with their true and predicted classes. Of a detector: the best and "
            "the worst images with their boxes.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of errors to draw with --errors and to list with --json. Default: 25. Of a detector: number of best and of "
            "worst images, at most 12. Default: 4.",
            show_default=False,
        ),
    ] = None,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Evaluate a trained model on labelled images.

    A classifier: top-1, top-5 and per-class accuracy, confused classes, worst errors. A detector: average precision of each class.
    """
    from keras_deepnets.cli import detect, use
    from keras_deepnets.cli.train import pairs as pairs_of

    if weights is None and detect.holds_detector(model):
        detect.evaluate(
            model,  # type: ignore[arg-type]
            data_option or data,
            split,
            batch_size=batch_size,
            curves=curves,
            errors=errors,
            worst=4 if worst is None else worst,
            unused={
                "--option": options,
                "--crops": crops != 1,
                "--scales": scales,
                "--confusion": confusion,
                "--skip-broken": skip_broken,
            },
            as_json=as_json,
        )
        return
    if curves is not None:
        raise InputError("--curves is for detectors; for a classifier, give --confusion.")
    use.evaluate(
        model,
        data_option or data,
        split,
        weights=weights,
        options=pairs_of(options, "--option"),
        seed=seed,
        batch_size=batch_size or 256,
        crops=crops,
        scales=use.sides(scales),
        confusion=confusion,
        errors=errors,
        worst=worst or 25,
        skip_broken=skip_broken,
        as_json=as_json,
    )


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="Weight file from keras.applications, torchvision, timm, pytorchcv or KerasHub "
            "(.h5 .weights.h5 .keras .safetensors .pth .pth.tar .pt .th .bin), or a name from `list --weights`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="DST", help="Output file: .safetensors, .weights.h5 or .keras.", show_default=False),
    ],
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="Network name: from `list`, or the publisher's (timm/resnet50d). Default: recognised from the weights.",
            show_default=False,
        ),
    ] = None,
    options: WeightsOptions = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Convert weights from any supported library to a file of this library."""
    from keras_deepnets.cli import use
    from keras_deepnets.cli.train import pairs as pairs_of

    use.convert(source, out, network, pairs_of(options, "--option"), as_json=as_json)


def predict(
    model: Artifact,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE…",
            help="Image files or folders of images. With --out: also patterns and TFRecord files.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes per image.")] = 5,
    table: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the predictions to this CSV file.", show_default=False),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first broken image instead of reporting it in its row.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Of a classifier: predict with Apache Beam, and write shards to this folder; the same command continues an interrupted "
            "job. Of a detector: write the images with boxes and detections.json to this folder.",
            show_default=False,
        ),
    ] = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Of a detector: the smallest score of an object that counts.")
    ] = 0.5,
    form: Annotated[
        str | None,
        typer.Option("--format", help="With --out: jsonl or parquet. Default: jsonl.", show_default=False),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="With --out: write features of the images instead of classes.")
    ] = False,
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="With --out: number of shards. Default: one for 500 images.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --out: largest batch. Default: 64.", show_default=False)
    ] = None,
    runner: Annotated[
        str | None,
        typer.Option(
            help="With --out: Beam runner, e.g. DataflowRunner, FlinkRunner or SparkRunner. Default: DirectRunner, this machine.",
            show_default=False,
        ),
    ] = None,
    runner_options: Annotated[
        list[str],
        typer.Option(
            "--runner-option",
            metavar="NAME=VALUE",
            help="With --out: an option of the runner, e.g. direct_num_workers=4.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Classify images, or find objects in them: one line per image. The exit status is 1 if any image is broken."""
    from keras_deepnets.cli import detect, use

    of_beam: dict[str, object] = {
        "--format": form,
        "--features": features,
        "--shards": shards,
        "--batch-size": batch_size,
        "--runner": runner,
        "--runner-option": runner_options,
    }
    if detect.holds_detector(model):
        detect.predict(
            model,
            [Path(image) for image in images],
            out=None if out is None else Path(out),
            score=score,
            strict=strict,
            unused={"--csv": table, **of_beam},
            as_json=as_json,
        )
        return
    if out is None:
        for name, value in of_beam.items():
            if value:
                raise InputError(
                    f"{name} needs --out FOLDER, which predicts with Apache Beam; give it, or leave {name} out."
                )
        use.predict(model, [Path(image) for image in images], top, strict=strict, table=table, as_json=as_json)
        return
    for name, given in {"--csv": table is not None, "--strict": strict}.items():
        if given:
            raise InputError(
                f"{name} does not go with --out; the folder has the predictions and the errors of all images."
            )
    from keras_deepnets.cli import batch

    batch.predict(
        model,
        images,
        out,
        top,
        form=form or "jsonl",
        features=features,
        shards=shards,
        batch_size=batch_size,
        runner=runner,
        runner_options=runner_options,
        as_json=as_json,
    )
