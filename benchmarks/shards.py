"""Resident memory over an epoch of a data set of many TFRecord shards, read as for training.

python -m benchmarks.shards --shards 1024 --images 4096 --out shards

The images are noise, so that they take much space. The shards are written with the library's own format to a temporary folder. Prints a
table, and writes ``shards.csv`` and ``shards.png``.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

CSV, PICTURE = "shards.csv", "shards.png"
_CLASSES = 8
_FILES = 64  # different images; the others are links to them
_ROWS = 10


@dataclass(frozen=True)
class Point:
    """The state of the process after some batches.

    Attributes:
        images: Images read so far.
        epoch: Epochs read so far.
        seconds: Seconds since the first batch.
        resident_bytes: Resident memory of the process.
    """

    images: int
    epoch: float
    seconds: float
    resident_bytes: int


def write(folder: Path, images: int, shards: int, side: int) -> Path:
    """Write a data set of noise as shards, and return their folder."""
    from PIL import Image

    from keras_deepnets import data

    rng = np.random.default_rng(0)
    (folder / "files").mkdir()
    for number in range(_FILES):
        pixels = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "files" / f"{number}.jpg", quality=90)
    for number in range(images):
        place = folder / "photos" / "train" / f"class{number % _CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").hardlink_to(folder / "files" / f"{number % _FILES}.jpg")
    data.write_shards(folder / "photos", folder / "shards", shards)
    return folder / "shards"


def measure(folder: Path, batch_size: int, epochs: int, image_size: int) -> list[Point]:
    """Read the epochs as `train` does, and measure the memory after each batch."""
    from keras_deepnets import data

    images = data.load(str(folder), "train")
    steps = images.size // batch_size
    batches = images.batches(
        batch_size,
        training=True,
        augment="random_resized_crop_flip",
        drop_remainder=True,
        repeat=True,
        image_size=(image_size, image_size),
    )
    found: list[Point] = []
    begin = time.perf_counter()
    for number, _ in enumerate(batches.take(steps * epochs), start=1):
        seconds = time.perf_counter() - begin
        found.append(Point(number * batch_size, number / steps, seconds, resident_bytes()))
    return found


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def growth(points: Sequence[Point]) -> float:
    """Largest resident memory of the last epoch over that of the first, minus 1."""
    last = max(point.epoch for point in points) - 1
    first_peak = max(point.resident_bytes for point in points if point.epoch <= 1)
    return max(point.resident_bytes for point in points if point.epoch > last) / first_peak - 1


def draw(points: Sequence[Point], path: Path) -> None:
    """Draw the memory over the epochs."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    axes.plot([point.epoch for point in points], [point.resident_bytes / 1e9 for point in points], color="#0072b2")
    axes.set(xlabel="epochs", ylabel="resident memory (GB)", ylim=(0, None))
    axes.set_title("Memory while an epoch of shards is read", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark. Return 1 if the memory grows by more than a tenth between the epochs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shards", type=int, default=1024)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--side", type=int, default=768, help="side of the stored images in pixels")
    parser.add_argument("--image-size", type=int, default=64, help="side of the images in a batch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder), options.images, options.shards, options.side)
        files = list(written.glob("*.tfrecord"))
        total = sum(path.stat().st_size for path in files)
        print(f"{len(files):,} shards, {options.images:,} images, {total / 1e9:.2f} GB", flush=True)
        points = measure(written, options.batch, options.epochs, options.image_size)
    with (options.out / CSV).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(points[0])))
        writer.writeheader()
        writer.writerows(map(asdict, points))
    draw(points, options.out / PICTURE)
    print("epochs  seconds  resident memory")
    for point in points[:: max(len(points) // (_ROWS * options.epochs), 1)]:
        print(f"{point.epoch:6.2f} {point.seconds:8.1f} {point.resident_bytes / 1e6:10,.0f} MB")
    grown = growth(points)
    print(f"The peak of the last epoch differs from that of the first by {grown:+.1%}.")
    return int(grown > 0.1)


if __name__ == "__main__":
    sys.exit(main())
