"""The commands and their options. Each command imports its implementation when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli.app_export import export, serving_config
from keras_deepnets.cli.app_lookup import download, info, list_command, recipes_command
from keras_deepnets.cli.options import ARTIFACT, BEGIN, DATA, WORK, Artifact, Data, Json, SkipBroken, WeightsOptions
from keras_deepnets.cli.problems import PROGRAM
from keras_deepnets.errors import InputError
from keras_deepnets.training.measured import RULE

app = typer.Typer(
    name=PROGRAM,
    help="Very deep image networks for Keras: look them up, train them on your images, evaluate and export them.",
    epilog=f"Start with `{PROGRAM} demo`. Every command has its own --help.",
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer()
app.add_typer(data_app, name="data", rich_help_panel=WORK)


def run(argv: Sequence[str] | None = None) -> int | None:
    """Run the command in `argv`. All errors are raised, including the usage errors of typer and click."""
    command = typer.main.get_command(app)
    words = None if argv is None else list(argv)
    return command.main(args=words, prog_name=PROGRAM, standalone_mode=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        from keras_deepnets.cli import catalog

        catalog.print_version()
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(rich_help_panel=BEGIN)
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("demo"),
) -> None:
    """Run the whole workflow on the embedded digits: train ResNet20, export it, compare, predict. Takes about two minutes."""
    import time

    from keras_deepnets.cli.quiet import load_tensorflow

    begin = time.perf_counter()
    load_tensorflow()
    from keras_deepnets.cli import demo as main_job

    main_job.run(out, begin)


app.command("list", rich_help_panel=BEGIN)(list_command)
app.command(rich_help_panel=BEGIN)(info)
app.command("recipes", rich_help_panel=BEGIN)(recipes_command)
app.command(rich_help_panel=WORK)(download)


@app.command(rich_help_panel=WORK)
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
            help="Weights to keep: those of the last epoch, or of the epoch with the best validation accuracy.",
            metavar="last|best",
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
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Train a network on images, from scratch or from weights. Rerun the same command to resume an interrupted run."""
    from keras_deepnets.cli import train as command

    fields = command.pairs(settings, "--set")
    given = {
        "epochs": epochs,
        "image_size": image_size,
        "freeze": freeze,
        "head_only": head_only or None,
        "keep": keep,
        "early_stopping": early_stopping,
    }
    fields |= {name: value for name, value in given.items() if value is not None}
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
        as_json=as_json,
    )


@app.command(rich_help_panel=WORK)
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
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size.")] = 256,
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
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the worst errors to a .png file: the images with their true and predicted classes.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[
        int, typer.Option(min=1, help="Number of errors to draw with --errors and to list with --json.")
    ] = 25,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Evaluate a trained model on labelled images: top-1, top-5 and per-class accuracy, confused classes, worst errors."""
    from keras_deepnets.cli import use
    from keras_deepnets.cli.train import pairs as pairs_of

    use.evaluate(
        model,
        data_option or data,
        split,
        weights=weights,
        options=pairs_of(options, "--option"),
        seed=seed,
        batch_size=batch_size,
        crops=crops,
        scales=use.sides(scales),
        confusion=confusion,
        errors=errors,
        worst=worst,
        skip_broken=skip_broken,
        as_json=as_json,
    )


@app.command(rich_help_panel=WORK)
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


@app.command(rich_help_panel=WORK)
def predict(
    model: Artifact,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE…", help="Image files or folders of images.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print per image.")] = 5,
    table: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Also write the predictions to this CSV file.", show_default=False),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first broken image instead of reporting it in its row.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Classify images: one line per image, most probable classes first. The exit status is 1 if any image is broken."""
    from keras_deepnets.cli import use

    use.predict(model, images, top, strict=strict, table=table, as_json=as_json)


app.command(rich_help_panel=WORK)(export)
app.command(rich_help_panel=WORK)(serving_config)


@app.command(rich_help_panel=WORK)
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
            "keras-twin, torchvision, timm, pytorchcv, ours (with default options), none, or a comma-separated list."
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


@data_app.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    """Write labelled images as TFRecord shards, and verify the shards."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data_app.command()
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


@data_app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of TFRecord shards from `data shard`.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Read all TFRecord shards and compare them with the digests recorded when they were written."""
    from keras_deepnets.cli import shards as command

    command.check(folder, as_json=as_json)
