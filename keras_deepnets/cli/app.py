"""The commands and their options. What they do stands in modules of their own, which are imported when a command runs."""

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
    help="Very deep image networks for Keras: look them up, train them on your images, use and export them.",
    epilog=f"Start with `{PROGRAM} demo`. Every command has its own --help.",
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer()
app.add_typer(data_app, name="data", rich_help_panel=WORK)


def run(argv: Sequence[str] | None = None) -> int | None:
    """Runs the command that `argv` asks for; what goes wrong is raised, typer's and click's usage errors too."""
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
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
) -> None:
    """Train ResNet20 on the embedded digits, export it, compare, predict: everything once, in about two minutes."""
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
            help="A network's name, as `list` prints it, a builder (ResNet, DenseNet, … with --option), or a .keras file.",
            show_default=False,
        ),
    ],
    data: Data,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/MODEL-DATA-RECIPE.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help='What to start from: "imagenet", a name of `list --weights`, a weight file, or the folder of a finished run.',
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"How it is trained: a name that `{PROGRAM} recipes` lists, or a .yaml file. "
            "By default fine_tune with --weights, else fast.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Length of the run (with --weights, of its second part), in place of the recipe's. More than a finished run has: it "
            "continues.",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER", help="Keep the network frozen up to this layer, e.g. conv4_block6_out.", show_default=False
        ),
    ] = None,
    head_only: Annotated[
        bool, typer.Option("--head-only", help="With --weights: train the classifier alone, which takes seconds.")
    ] = False,
    keep: Annotated[
        str | None,
        typer.Option(
            help="Which weights to keep: of the last epoch, or of the one with the best validation accuracy.",
            metavar="last|best",
            show_default=False,
        ),
    ] = None,
    early_stopping: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="EPOCHS",
            help="Stop after so many epochs without a better validation accuracy.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help=f"Another field of the recipe, e.g. batch_size=64; `{PROGRAM} recipes NAME` shows them all.",
            show_default=False,
        ),
    ] = [],  # noqa: B006 - typer makes a new list
    options: Annotated[
        list[str],
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="An option of the network, as `info` prints them, e.g. shortcut=B.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, mixed_bfloat16, mixed_float16 or auto; by default the recipe's.", show_default=False
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the images in pixels; by default what the network was designed for."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initialisation, order and augmentation.")] = 0,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What to measure on after each epoch: how many or which share (0.1) of the training images to cut out, another "
            "DATA, or none; by default the data's validation split, else its test split, else a tenth of the training images.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Train on at most N images, each class in proportion.", show_default=False),
    ] = None,
    class_weight: Annotated[
        str | None,
        typer.Option(
            metavar="WEIGHTS",
            help="How much the images of a class count in the training loss: balanced, or LABEL=WEIGHT,… (others have 1).",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST:LAST",
            help="Record these steps, e.g. 10:15, for the profile plugin of TensorBoard.",
            show_default=False,
        ),
    ] = None,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Train a network on images, from scratch or from weights. The same command resumes a run that was interrupted."""
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
            help="Weights in place of a trained model: anybody's file, or a name of `list --weights`. MODEL, if given, says "
            "of which network.",
            show_default=False,
        ),
    ] = None,
    options: WeightsOptions = [],  # noqa: B006
    data_option: Annotated[str | None, typer.Option("--data", help="The same as DATA.", show_default=False)] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help=f"Part of the data: test, validation, train, or all (everything). By default {RULE}.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of what belongs to which split of a folder; by default that of the run.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 256,
    crops: Annotated[
        int,
        typer.Option(help="1: the centre of each image; 10: corners and centre, and their mirror images, averaged."),
    ] = 1,
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE,…",
            help="Average over whole images at these shorter sides in pixels, e.g. 224,256,384,480,640.",
            show_default=False,
        ),
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw which class is taken for which into a .png, .svg or .pdf file.",
            show_default=False,
        ),
    ] = None,
    errors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the worst errors into a .png file: the images with their true and predicted classes.",
            show_default=False,
        ),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, help="Number of errors that --errors draws and --json names.")] = 25,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Measure a trained model on labelled images: top-1, top-5, each class, confused classes, worst errors."""
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
            help="Weights of keras.applications, torchvision, timm, pytorchcv or KerasHub: "
            ".h5 .weights.h5 .keras .safetensors .pth .pth.tar .pt .th .bin; or a name of `list --weights`.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(metavar="DST", help="What to write: .safetensors, .weights.h5 or .keras.", show_default=False),
    ],
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            help="Name of the network, ours or its publisher's (timm/resnet50d); by default recognised.",
            show_default=False,
        ),
    ] = None,
    options: WeightsOptions = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Convert anybody's weights to a file of this library."""
    from keras_deepnets.cli import use
    from keras_deepnets.cli.train import pairs as pairs_of

    use.convert(source, out, network, pairs_of(options, "--option"), as_json=as_json)


@app.command(rich_help_panel=WORK)
def predict(
    model: Artifact,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes are named.")] = 5,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the predictions as CSV too.", show_default=False)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first broken image, instead of reporting it at its place.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name what is on images: a line for each, the most probable classes first. Exit status 1 if images are broken."""
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
            help="Names of networks, as `list` prints them. With --data: [SOURCE].",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Measure the input pipeline alone: of SOURCE (as DATA of `train`), or of made-up images like CIFAR's and ImageNet's.",
        ),
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(help="With --data SOURCE: augmentation policy, or none; by default what suits the images' size."),
    ] = None,
    mode: Annotated[str, typer.Option(help="train, inference, export; several with commas.")] = "train",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16; several with commas.")] = "float32",
    batch: Annotated[
        str | None,
        typer.Option(help="Images a step; several with commas. By default 16 at ImageNet's size, else 128."),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            help="Peers that take turns with ours: keras (keras.applications, or else the same network of stock layers), "
            "keras-twin, torchvision, timm, pytorchcv, ours (with default options), none; several with commas."
        ),
    ] = "keras",
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the images in pixels; by default what the network was designed for."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each side on the CPU; by default what the frameworks choose.")
    ] = None,
    fold: Annotated[
        bool,
        typer.Option(
            "--fold", help="Our batch normalisation folded, on TensorFlow by export.inference_function (inference)."
        ),
    ] = False,
    options: Annotated[
        list[str],
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="An option of our network, as `info` prints them.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    warmup: Annotated[int, typer.Option(min=2, help="Steps of each side that do not count.")] = 3,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each side that count; by default as many as fit into --seconds, 5 to 30."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="How long a pair (a pipeline) is measured, warm-up apart.")
    ] = 30.0,
    ceiling: Annotated[
        bool, typer.Option(help="Measure a large matrix product too, and the share of it that is reached.")
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="Folder for benchmark.csv and benchmark.png.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure speed and memory side by side with peers, step by step in turn, each in a fresh process. Or the input pipeline."""
    given = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
    if data:
        from keras_deepnets.cli import pipeline

        pipeline.check_options(given)
        pipeline.benchmark(models or [], augment, image_size, batch, seconds, out, as_json=as_json)
        return
    if not models:
        raise InputError("Missing argument 'MODEL…': name one network or more, or give --data.")
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
    """Write labelled images as TFRecord shards, and check those."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data_app.command()
def shard(
    data: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.", show_default=False)],
    shards: Annotated[
        int | None,
        typer.Option(min=1, help="Files for each split; by default as many as make them about 128 MiB."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, validation, test or all; by default every split that the data has.", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Of the order, and of what belongs to which split of a folder of class folders.")
    ] = 0,
    skip_broken: SkipBroken = False,
    as_json: Json = False,
) -> None:
    """Write labelled images as a few large TFRecord files, which `train` and `evaluate` take as DATA."""
    from keras_deepnets.cli import shards as command

    command.shard(data, out, shards, split, seed=seed, skip_broken=skip_broken, as_json=as_json)


@data_app.command()
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="TFRecord shards of `data shard`.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Read TFRecord shards whole and compare them with the digests of the day they were written."""
    from keras_deepnets.cli import shards as command

    command.check(folder, as_json=as_json)
