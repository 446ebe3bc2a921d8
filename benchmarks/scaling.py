"""Predict the throughput of training on many GPUs, and measure the exchange between workers on one machine.

    python -m benchmarks.scaling predict --picture scaling.png
    python -m benchmarks.scaling measure --workers 1 2 3 --network resnet20

The prediction is a model, not a measurement. A step takes the time of the computation plus the part of the exchange that the backward
pass does not hide. A ring sends 2 (n - 1) / n of the gradients' bytes over each link, in 2 (n - 1) messages per bucket:

    exchange = 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency * buckets
    step     = computation + max(exchange - overlap * 2 / 3 * computation, exchange of the last bucket)

Two thirds of a step are the backward pass. The last bucket cannot be hidden, because its gradients come last.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.distribution.workers import BUCKET, Group

NETWORKS = {"ResNet50": 2500.0, "DenseNet121": 1900.0, "ResNeXt101_32x4d": 1100.0}
"""Assumed training throughput of one GPU, in images of 224 × 224 pixels per second, with mixed precision."""


@dataclass(frozen=True)
class Link:
    """The slowest link of the ring.

    Attributes:
        bandwidth: Bytes per second.
        latency: Seconds per message.
        overlap: Share of the backward pass that can hide the exchange.
    """

    bandwidth: float
    latency: float
    overlap: float


def step_seconds(workers: int, computation: float, size: int, link: Link) -> float:
    """Predicted seconds per step.

    Args:
        workers: Number of workers in the ring.
        computation: Seconds of a step of one worker.
        size: Bytes of the gradients.
        link: The network.
    """
    if workers == 1:
        return computation
    buckets = max(1, -(-size // BUCKET))
    rounds = 2 * (workers - 1)
    exchange = rounds / workers * size / link.bandwidth + rounds * link.latency * buckets
    last = rounds / workers * min(size, BUCKET) / link.bandwidth + rounds * link.latency
    return computation + max(exchange - link.overlap * 2 / 3 * computation, last)


def predict(batch: int, link: Link, counts: Sequence[int], picture: Path | None) -> None:
    """Print a table of predicted throughputs, and draw it."""
    import keras_deepnets as kd

    print(
        f"{batch} images per GPU and step, {link.bandwidth / 1e9:g} GB/s, {link.latency * 1e6:g} µs per message, overlap {link.overlap:g}"
    )
    print(f"{'network':20}{'MB/step':>9}" + "".join(f"{f'{count} GPUs':>18}" for count in counts))
    curves = {}
    for name, speed in NETWORKS.items():
        size = 4 * kd.model_info(name).parameters
        computation = batch / speed
        steps = [step_seconds(count, computation, size, link) for count in counts]
        curves[name] = [computation / step for step in steps]
        cells = [
            f"{count * batch / step:,.0f} ({computation / step:.0%})" for count, step in zip(counts, steps, strict=True)
        ]
        print(f"{name:20}{size / 1e6:>9.0f}" + "".join(f"{cell:>18}" for cell in cells))
    if picture is not None:
        _draw(counts, curves, link, picture)


def _draw(counts: Sequence[int], curves: dict[str, list[float]], link: Link, picture: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for name, efficiency in curves.items():
        axes.plot(counts, [100 * value for value in efficiency], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(counts), [str(count) for count in counts])
    axes.set(xlabel="GPUs", ylabel="predicted efficiency (%)", ylim=(0, 105))
    axes.set_title(f"Ring all-reduce, {link.bandwidth / 1e9:g} GB/s, overlap {link.overlap:g}", fontsize=10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def measure(network: str, batch: int, counts: Sequence[int], steps: int, delay: float) -> None:
    """Print seconds per step for several numbers of workers on this machine. Each worker has `batch` images and one thread."""
    print(f"{network}, {batch} images per worker, {delay * 1e3:g} ms delay per exchange, one thread per worker")
    print(f"{'workers':>8}{'s/step':>10}{'exchange s':>12}{'MB/step':>9}")
    for count in counts:
        sockets = [socket.socket() for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
        for each in sockets:
            each.close()
        processes = []
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment = os.environ | {"TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, "-m", "benchmarks.scaling", "work", network, str(batch), str(steps), str(delay)]
            processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        found = json.loads(processes[0].communicate()[0].splitlines()[-1])
        for process in processes[1:]:
            process.communicate()
        print(f"{count:>8}{found['step']:>10.3f}{found['exchange']:>12.3f}{found['bytes'] / 1e6:>9.1f}", flush=True)


def work(network: str, batch: int, steps: int, delay: float) -> None:
    """One worker of `measure`: train on random images, and print the median seconds per step as JSON."""
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    from keras_deepnets import create_model, distribution
    from keras_deepnets.distribution.cluster import from_environment
    from keras_deepnets.training.sharing import Waiting, share_gradients

    group = distribution.start() if from_environment() else distribution.ALONE
    model = create_model(network, classes=10)
    images = tf.random.normal((batch, *model.input_shape[1:]))
    labels = tf.zeros(batch, tf.int32)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", jit_compile=False)
    waiting = Waiting()
    if group.size > 1:
        share_gradients(model.optimizer, _Delayed(group, delay) if delay else group, waiting)
    data = tf.data.Dataset.from_tensors((images, labels)).repeat()
    times: list[float] = []
    spent: list[float] = []

    class Clock(keras.callbacks.Callback):
        """Times of the steps."""

        def on_train_batch_begin(self, batch, logs=None):
            self.begin = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            times.append(time.perf_counter() - self.begin)
            spent.append(waiting.taken())

    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[Clock()])
    size = sum(4 * int(tf.size(weight.value)) for weight in model.trainable_variables)
    print(
        json.dumps(
            {
                "step": statistics.median(times[2:]),
                "exchange": statistics.median(spent[2:]),
                "bytes": size if group.size > 1 else 0,
            }
        )
    )


class _Delayed:
    """A group whose sums in a graph begin `delay` seconds later, as on a slow network."""

    is_chief = True

    def __init__(self, group: Group, delay: float):
        self.index, self.size = group.index, group.size
        self.gather, self.from_chief, self.name_of = group.gather, group.from_chief, group.name_of
        self._group, self._delay = group, delay

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        import tensorflow as tf

        first, *others = tensors
        late = tf.ensure_shape(tf.numpy_function(self._late, [first], first.dtype), first.shape)
        return self._group.sum([late, *others])

    def _late(self, value: Any) -> Any:
        time.sleep(self._delay)
        return value


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_predict = commands.add_parser("predict")
    of_predict.add_argument("--batch", type=int, default=256)
    of_predict.add_argument("--bandwidth", type=float, default=25.0, help="GB per second of the slowest link")
    of_predict.add_argument("--latency", type=float, default=10.0, help="microseconds per message")
    of_predict.add_argument("--overlap", type=float, default=0.5)
    of_predict.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    of_predict.add_argument("--picture", type=Path)
    of_measure = commands.add_parser("measure")
    of_measure.add_argument("--network", default="resnet20")
    of_measure.add_argument("--batch", type=int, default=16)
    of_measure.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    of_measure.add_argument("--steps", type=int, default=20)
    of_measure.add_argument("--delay", type=float, default=0.0, help="milliseconds added to each exchange")
    of_work = commands.add_parser("work")
    for name, kind in (("network", str), ("batch", int), ("steps", int), ("delay", float)):
        of_work.add_argument(name, type=kind)
    given = parser.parse_args()
    if given.command == "predict":
        link = Link(given.bandwidth * 1e9, given.latency * 1e-6, given.overlap)
        predict(given.batch, link, given.gpus, given.picture)
    elif given.command == "measure":
        measure(given.network, given.batch, given.workers, given.steps, given.delay / 1e3)
    else:
        work(given.network, given.batch, given.steps, given.delay)


if __name__ == "__main__":
    main()
