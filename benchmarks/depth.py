"""Time to build, train, save and load very deep networks, at Python's default recursion limit and stack size.

    python -m benchmarks.depth resnet1202 stochasticdepthresnet1202 preactresnet1001

Each network is measured in a fresh process. The table shows the seconds of building it, of the first training step (tracing and
optimising the graph) and of a later step (median). It also shows the seconds of saving the compiled model to a ``.keras`` file and
loading it. Training uses SGD with momentum through `train_on_batch`.

    python -m benchmarks.depth --skipping stochasticdepthresnet110 --batch 128 --pairs 30

measures the time that stochastic depth saves. Steps of the network alternate with steps of the same network in which all blocks survive.
A block that is dropped for a batch is not computed. The paper reports savings of a quarter of the time (G. Huang et al. 2016,
section 4).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import show
from keras_deepnets.cli.problems import status_of
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras

_PROGRAM = "python -m benchmarks.depth"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return status_of(lambda: _run(argv))


def measure(name: str, batch: int, steps: int) -> dict[str, Any]:
    """Build, train, save and load one network in this process.

    Args:
        name: Name of the network in the registry.
        batch: Batch size.
        steps: Number of steps after the first one, for the median.

    Returns:
        ``name``, ``parameters``, and the seconds ``build``, ``first_step``, ``step``, ``save`` and ``load``.
    """
    import keras

    from keras_deepnets import models, registry

    keras.utils.set_random_seed(0)
    model, build = timed(lambda: registry.create_model(name))
    step = training_step(model, batch)
    _, first = timed(step)
    rest = [timed(step)[1] for _ in range(steps)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        _, save = timed(lambda: model.save(path))
        again, load = timed(lambda: keras.saving.load_model(path))
    assert again.count_params() == model.count_params()
    return {
        "name": name,
        "parameters": models.trainable_parameters(model),
        "build": build,
        "first_step": first,
        "step": statistics.median(rest),
        "save": save,
        "load": load,
    }


def skipping(name: str, batch: int, pairs: int) -> dict[str, Any]:
    """Compare the mean seconds of a step with stochastic depth and with all blocks surviving, in alternating steps.

    The number of dropped blocks per step is random, so means are compared instead of medians.

    Returns:
        ``name``, ``survival`` (the mean over the blocks), ``dropping`` and ``surviving`` (seconds) and ``ratio``.
    """
    import keras

    from keras_deepnets import registry
    from keras_deepnets.layers import Block

    keras.utils.set_random_seed(0)
    networks = [registry.create_model(name), registry.create_model(name, final_survival=1.0)]
    steps = [training_step(network, batch) for network in networks]
    for step in steps * 2:
        step()
    times = [[timed(step)[1] for step in steps] for _ in range(pairs)]
    dropping, surviving = (statistics.mean(column) for column in zip(*times, strict=True))
    blocks = [layer.survival for layer in networks[0].layers if isinstance(layer, Block)]
    return {
        "name": name,
        "survival": statistics.mean(blocks),
        "dropping": dropping,
        "surviving": surviving,
        "ratio": dropping / surviving,
    }


def training_step(model: keras.Model, batch: int) -> Callable[[], Any]:
    """A step of `train_on_batch` on synthetic images."""
    import keras
    import numpy as np

    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), "sparse_categorical_crossentropy", jit_compile=False)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, *model.input_shape[1:])).astype("float32")
    labels = rng.integers(0, model.output_shape[-1], batch)
    return lambda: model.train_on_batch(images, labels)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Run `call`, and return its result and its seconds."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def _run(argv: Sequence[str] | None) -> int:
    from keras_deepnets import registry

    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="NETWORK", help="names from `keras-deepnets list`")
    parser.add_argument("--batch", type=int, default=8, help="batch size (default: 8)")
    parser.add_argument("--steps", type=int, default=3, help="steps after the first (default: 3)")
    parser.add_argument("--skipping", action="store_true", help="measure the time that stochastic depth saves")
    parser.add_argument("--pairs", type=int, default=30, help="steps of each network with --skipping (default: 30)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of the table")
    asked = parser.parse_args(argv)
    for option in ("batch", "steps", "pairs"):
        if getattr(asked, option) < 1:
            raise InputError(f"--{option} {getattr(asked, option)} must be at least 1.")
    for name in asked.models:
        registry.constructor_of(name)
        if asked.skipping and "final_survival" not in registry.constructor_of(name).facts.options:
            raise InputError(
                f"--skipping measures stochastic depth, which {name} does not have; name a stochasticdepth network."
            )
    if len(asked.models) > 1:
        rows = [_in_a_fresh_process(name, asked) for name in asked.models]
    else:
        load_tensorflow()
        with native_output_held_back():
            (name,) = asked.models
            rows = [
                skipping(name, asked.batch, asked.pairs) if asked.skipping else measure(name, asked.batch, asked.steps)
            ]
    if asked.as_json:
        show.print_json({"rows": rows})
    else:
        _print(rows)
    return 0


def _in_a_fresh_process(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    if not asked.as_json:
        print(f"{name} …", file=sys.stderr, flush=True)
    options = [f"--{option}={getattr(asked, option)}" for option in ("batch", "steps", "pairs")]
    options += ["--skipping"] if asked.skipping else []
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.depth", name, "--json", *options],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InputError(f"{name} could not be measured; see the error above.")
    (row,) = json.loads(done.stdout)["rows"]
    return row


def _print(rows: list[dict[str, Any]]) -> None:
    columns = [*rows[0]]
    cells = [
        tuple(
            value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
            for value in row.values()
        )
        for row in rows
    ]
    show.print_table(columns, cells, right=columns[1:])


if __name__ == "__main__":
    sys.exit(main())
