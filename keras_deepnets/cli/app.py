"""The program and its commands. The modules `app_…` declare the options; each command imports its implementation when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keras_deepnets.cli import app_data
from keras_deepnets.cli.app_benchmark import benchmark
from keras_deepnets.cli.app_export import export, serving_config
from keras_deepnets.cli.app_lookup import download, info, list_command, recipes_command
from keras_deepnets.cli.app_reports import compare, plot, report, tables
from keras_deepnets.cli.app_study import study
from keras_deepnets.cli.app_train import train
from keras_deepnets.cli.app_use import convert, evaluate, predict
from keras_deepnets.cli.options import BEGIN, LOOK, WORK
from keras_deepnets.cli.problems import PROGRAM

app = typer.Typer(
    name=PROGRAM,
    help="Very deep image networks for Keras: look them up, train them on your images, evaluate and export them.",
    epilog=f"Start with `{PROGRAM} demo`. Every command has its own --help.",
    add_completion=True,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(app_data.app, name="data", rich_help_panel=WORK)


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
for _command in (download, train, evaluate, convert, predict, export, serving_config, benchmark, study):
    app.command(rich_help_panel=WORK)(_command)
for _look in (plot, report, compare, tables):
    app.command(rich_help_panel=LOOK)(_look)
