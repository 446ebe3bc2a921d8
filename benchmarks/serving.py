"""Compare exported networks: this library's through `export.saved_model`, and keras.applications' through `model.export`.

python -m benchmarks.serving resnet50 --batch 1,32 --pairs 10 --out serving

Both SavedModels are written, loaded, and called alternately in one process. Both take images of the network's size. This library's model
takes uint8 and scales it, and the other takes float32. Prints a table and writes ``serving.csv``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.benchmark import checks
from keras_deepnets.benchmark.keras_side import settle
from keras_deepnets.benchmark.load import Bystander
from keras_deepnets.benchmark.peers import APPLICATIONS
from keras_deepnets.benchmark.results import write_csv
from keras_deepnets.errors import InputError

_PROGRAM = "python -m benchmarks.serving"
CSV = "serving.csv"
WARMUP = 2


@dataclass(frozen=True)
class Artifact:
    """A SavedModel that was written and loaded.

    Attributes:
        export_seconds: Seconds to write it.
        load_seconds: Seconds to load it.
        size: Bytes on disk.
        call: Function that runs it on pixels 0–255, uint8 ``[n, h, w, 3]``. It returns when the probabilities are available.
    """

    export_seconds: float
    load_seconds: float
    size: int
    call: Callable[[Any], Any]


@dataclass(frozen=True)
class Row:
    """Comparison of both networks at one batch size. "ours" is this library, and "theirs" is keras.applications.

    Attributes:
        model: This library's name of the network.
        batch: Images per call.
        pairs: Number of alternating calls of each side.
        ours_ms: Median milliseconds per call.
        theirs_ms: The same for keras.applications.
        ratio: Speed of this library relative to keras.applications: the median of the ratios of each pair of calls.
        ratio_of_best: The same ratio for the fastest calls, which other processes disturb the least.
        ours_first_seconds: Seconds of the first call, in which TensorFlow optimises the graph.
        theirs_first_seconds: The same for keras.applications.
        ours_export_seconds: Seconds to write the SavedModel.
        theirs_export_seconds: The same for keras.applications.
        ours_load_seconds: Seconds to load the SavedModel.
        theirs_load_seconds: The same for keras.applications.
        ours_bytes: Size of the SavedModel on disk.
        theirs_bytes: The same for keras.applications.
        others_busy: Number of processors busy with other processes meanwhile. 0 on an idle machine.
    """

    model: str
    batch: int
    pairs: int
    ours_ms: float
    theirs_ms: float
    ratio: float
    ratio_of_best: float
    ours_first_seconds: float
    theirs_first_seconds: float
    ours_export_seconds: float
    theirs_export_seconds: float
    ours_load_seconds: float
    theirs_load_seconds: float
    ours_bytes: int
    theirs_bytes: int
    others_busy: float | None


def measure(name: str, batches: Sequence[int], pairs: int, folder: Path, precision: str = "float32") -> Iterator[Row]:
    """Export both networks into `folder`, and time alternating calls.

    Args:
        name: Name of a network in the registry that keras.applications also has.
        batches: Batch sizes.
        pairs: Number of timed calls of each side.
        folder: An empty folder.
        precision: Precision of this library's export.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_deepnets import create_model, export

    # Untrained weights are exported like trained ones, except for statistics of 0 and 1, which vanish in a folded graph.
    networks = [create_model(name), getattr(keras.applications, APPLICATIONS[name])(weights=None)]
    for network in networks:
        settle(network)
    ours = _artifact(
        lambda: export.saved_model(networks[0], folder / "ours", precision=precision), "serving_images", "uint8"
    )
    path = folder / "theirs"
    theirs = _artifact(lambda: networks[1].export(path, verbose=False) or path, "serving_default", "float32")
    height, width, channels = networks[0].input_shape[1:]
    for batch in batches:
        images = tf.constant(np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), "uint8"))
        firsts = [_timed(side.call, images) for side in (ours, theirs)]
        bystander = Bystander()
        times = [[_timed(side.call, images) for side in (ours, theirs)] for _ in range(WARMUP + pairs)][WARMUP:]
        mine, others = zip(*times, strict=True)
        yield Row(
            name,
            batch,
            pairs,
            1e3 * statistics.median(mine),
            1e3 * statistics.median(others),
            statistics.median(other / own for own, other in times),
            min(others) / min(mine),
            *firsts,
            ours.export_seconds,
            theirs.export_seconds,
            ours.load_seconds,
            theirs.load_seconds,
            ours.size,
            theirs.size,
            bystander.others(),
        )


def _artifact(write: Callable[[], Path], name: str, dtype: str) -> Artifact:
    import tensorflow as tf

    start = time.perf_counter()
    path = write()
    written = time.perf_counter()
    loaded = tf.saved_model.load(str(path))
    end = time.perf_counter()
    signature = loaded.signatures[name]
    (argument,) = signature.structured_input_signature[1]

    def call(images: Any, _keep: Any = loaded) -> None:  # the signature alone does not keep the weights alive
        for value in signature(**{argument: tf.cast(images, dtype)}).values():
            value.numpy()

    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Artifact(written - start, end - written, size, call)


def _timed(call: Callable[[Any], Any], images: Any) -> float:
    start = time.perf_counter()
    call(images)
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", choices=sorted(APPLICATIONS), help="a network that keras.applications also has")
    parser.add_argument("--batch", default="1,32", help="images per call, comma-separated (default: %(default)s)")
    parser.add_argument("--pairs", default="10", help="timed calls of each side (default: %(default)s)")
    parser.add_argument("--precision", default="float32", help="precision of our weights (default: %(default)s)")
    parser.add_argument("--out", type=Path, help=f"output folder for {CSV}")
    options = parser.parse_args(arguments)
    try:
        batches = checks.counts(options.batch, "--batch")
        (pairs,) = checks.counts(options.pairs, "--pairs")[:1]
        checks.words(options.precision, ("float32", "bfloat16", "float16"), "--precision")
        if options.out is not None:
            checks.folder(options.out, "--out")
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(options.model, batches, pairs, Path(folder), options.precision):
                rows.append(row)
                print(_line(row), flush=True)
                if options.out is not None:
                    write_csv(options.out / CSV, rows, [_PROGRAM, *(arguments or sys.argv[1:])])
    except InputError as error:
        print(f"{_PROGRAM}: {error}", file=sys.stderr)
        return 2
    print(
        f"exported in {rows[0].ours_export_seconds:.1f} s against {rows[0].theirs_export_seconds:.1f}, "
        f"{rows[0].ours_bytes / 1e6:.0f} MB against {rows[0].theirs_bytes / 1e6:.0f}, "
        f"loaded in {rows[0].ours_load_seconds:.1f} s against {rows[0].theirs_load_seconds:.1f}"
    )
    return 0


def _line(row: Row) -> str:
    busy = "" if row.others_busy is None else f"; {row.others_busy:.1f} processors busy with other work"
    return (
        f"{row.model}, batch {row.batch}: {row.ours_ms:.1f} ms against {row.theirs_ms:.1f}, {row.ratio:.2f} times as fast "
        f"({row.ratio_of_best:.2f} by the fastest calls of {row.pairs} pairs); first call "
        f"{row.ours_first_seconds:.1f} s against {row.theirs_first_seconds:.1f}{busy}"
    )


if __name__ == "__main__":
    sys.exit(main())
