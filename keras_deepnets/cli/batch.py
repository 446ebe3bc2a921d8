"""The command `predict` with ``--out``: prediction through Apache Beam."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from keras_deepnets.batch import JobStopped, predict_many
from keras_deepnets.batch.predicting import BATCH_SIZE, DIRECT, check_installed
from keras_deepnets.cli import artifacts, show
from keras_deepnets.cli.problems import DEBUG, CheckFailed
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.cli.shards import bar


def predict(
    model: Path,
    images: Sequence[str],
    out: str,
    top: int,
    *,
    form: str,
    features: bool,
    shards: int | None,
    batch_size: int | None,
    runner: str | None,
    runner_options: Sequence[str],
    as_json: bool,
) -> None:
    """Predict with Beam and print the counts. See `keras_deepnets.batch.predict_many` for the arguments.

    Raises:
        CheckFailed: Some images were broken, or the runner failed. Finished shards stay.
    """
    artifact = artifacts.find(model)
    check_installed()
    load_tensorflow()
    if not os.environ.get(DEBUG):
        logging.disable(logging.ERROR)  # Beam logs to the root, and errors end the command with one line
    try:
        with bar("loading", "predicting", hidden=as_json) as report, native_output_held_back():
            found = predict_many(
                artifact.path,
                images,
                out,
                format=form,
                top=top,
                features=features,
                shards=shards,
                batch_size=batch_size or BATCH_SIZE,
                runner=runner or DIRECT,
                options=runner_options,
                report=report,
            )
    except JobStopped as error:
        raise CheckFailed(str(error).replace("the same call", "the same command")) from error
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        show.print_json(dataclasses.asdict(found))
    else:
        kept = f" {found.kept:,} finished before," if found.kept else ""
        failed = f", {found.failed:,} failed (errors-*.jsonl)" if found.failed else ""
        print(
            f"{found.out}: {found.done:,} of {found.images:,} images done{failed}, {found.shards:,} shards,{kept} "
            f"{found.images_per_second:,.1f} img/s"
        )
    if found.failed:
        sys.stdout.flush()
        raise CheckFailed(f"{found.failed:,} of {found.images:,} images cannot be read.")
