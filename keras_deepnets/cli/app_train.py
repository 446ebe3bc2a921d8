"""The command `train` and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.options import Data, Json, SkipBroken
from keras_deepnets.cli.problems import PROGRAM
from keras_deepnets.errors import InputError


def train(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Network name from `list`, a builder (ResNet, DenseNet, … with --option), or a .keras file.",
            show_default=False,
        ),
    ],
    data: Data,
    run_dir: Annotated[
        Path | None, typer.Option(help="Run folder. Default: runs/MODEL-DATA-RECIPE.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help='Initial weights: "imagenet", a name from `list --weights`, a weight file, or the folder of a finished run.',
            show_default=False,
        ),
    ] = None,
    backbone_weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Of a detector: initial weights of the backbone, those of the classifier or the folder of its run.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"Training recipe: a name from `{PROGRAM} recipes`, or a .yaml file. "
            "Default: fine_tune with --weights, otherwise fast.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Number of epochs, instead of the recipe's. With --weights, the epochs of the second phase. A finished run continues "
            "if you raise the number.",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER", help="Freeze the layers up to this one, e.g. conv4_block6_out.", show_default=False
        ),
    ] = None,
    head_only: Annotated[
        bool, typer.Option("--head-only", help="With --weights: train only the classifier. This takes seconds.")
    ] = False,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Weights to keep: those of the last epoch, or of the epoch with the best validation accuracy. auto: the last, unless "
            "the best is better by more than chance.",
            metavar="last|best|auto",
            show_default=False,
        ),
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="EPOCHS",
            help="Stop after this many epochs without a better validation accuracy.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help=f"Override a recipe field, e.g. batch_size=64. `{PROGRAM} recipes NAME` lists the fields.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer makes a new list
    options: Annotated[
        list[str],
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Set a network option, e.g. shortcut=B. `info` lists the options.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, mixed_bfloat16, mixed_float16 or auto. Default: the recipe's precision.", show_default=False
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Image size (side in pixels). Default: the size the network was designed for."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed for initialisation, image order and augmentation.")] = 0,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Validation images: a number or a fraction (0.1) of the training images to hold out, another DATA, or none. "
            "Default: the data's validation split, else its test split, else a tenth of the training images.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Train on at most N images. Class proportions are kept.", show_default=False),
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Class weights in the training loss: balanced, or LABEL=WEIGHT,… (other classes have weight 1).",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST",
            help="Profile these steps, e.g. 10:15, for TensorBoard's profile plugin.",
            show_default=False,
        ),
    ] = None,
    distribute: Annotated[
        str,
        typer.Option(
            metavar="none|mirrored|multiworker|auto",
            help="none: one device. mirrored: all GPUs of this process. multiworker: one process per device, which TF_CONFIG or Slurm "
            "describe; start the same command in each. auto: what the environment describes.",
        ),
    ] = "none",
    connect_within: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="With multiworker: how long to wait for the other workers, e.g. '2 minutes'."
        ),
    ] = "10 minutes",
    checkpoint_every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="Interval between checkpoints inside an epoch, e.g. '500 steps'. Default: 10 minutes. There is always one after each "
            "epoch.",
            show_default=False,
        ),
    ] = None,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Train a network on images, from scratch or from weights. Rerun the same command to resume an interrupted run.

    A detector (`list --task detection`) trains on images with boxes: a Pascal VOC folder, a COCO JSON file, a YOLO folder or TFDS data.
    """
    from keras_deepnets.cli import detect
    from keras_deepnets.cli import train as command

    fields = command.pairs(settings, "--set")
    within = command.seconds_of(connect_within, "--connect-within")
    given = {
        "epochs": epochs,
        "image_size": image_size,
        "freeze": freeze,
        "head_only": head_only or None,
        "keep": keep,
        "early_stopping": early_stopping,
    }
    fields |= {name: value for name, value in given.items() if value is not None}
    if detect.names_detector(model):
        detect.train(
            model,
            data,
            run_dir,
            recipe,
            {name: value for name, value in fields.items() if name != "head_only"},
            command.pairs(options, "--option"),
            weights=weights,
            weights_backbone=backbone_weights,
            validation=command.validation_of(validation),
            limit=limit,
            precision=precision,
            seed=seed,
            unused={
                "--head-only": head_only,
                "--class-weight": class_weight,
                "--profile": profile,
                "--skip-broken": skip_broken,
            },
            distribute=distribute,
            connect_within=within,
            checkpoint_every=checkpoint_every,
            as_json=as_json,
        )
        return
    if backbone_weights is not None:
        raise InputError(f"--backbone-weights is for detectors; give --weights to train {model}.")
    command.train(
        model,
        data,
        run_dir,
        recipe,
        fields,
        command.pairs(options, "--option"),
        weights=weights,
        validation=command.validation_of(validation),
        limit=limit,
        class_weight=command.class_weight_of(class_weight),
        precision=precision,
        seed=seed,
        profile=command.steps(profile, "--profile"),
        skip_broken=skip_broken,
        distribute=distribute,
        connect_within=within,
        checkpoint_every=checkpoint_every,
        as_json=as_json,
    )
