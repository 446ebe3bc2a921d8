"""Images per second of ImageNet's training input: this library, a plain tf.data pipeline, torchvision, Grain and DALI on the CPU.

    python -m benchmarks.pipelines [FOLDER] [--photographs 500x375] [--jitter 0.4] [--rounds 3] [--seconds 8]
        [--sides ours,tf.data,tf.data-plain,torchvision,grain,dali]

All sides read the same JPEG files and crop at random (8 to 100 % of the area). They resize the crop to 224 × 224, mirror half of the
images, and return batches of 64 uint8 images. With `--jitter` each also changes brightness, contrast and saturation by up to this share.
Each side runs in its own process, with as many threads or worker processes as there are
processors. The sides run one after the other. FOLDER holds a folder of JPEG files for each class. Without it, the files are synthetic
photographs of 500 × 375 pixels, or of the size that `--photographs` gives. Sides whose package is not installed are left out. Packages:
torch and torchvision, grain, nvidia-dali-cuda120 (needs no GPU).

All sides but ``tf.data-plain`` shrink with antialiasing, as torchvision does by default.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.benchmark.results import threads

BATCH, SIZE = 64, 224
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def ours(folder: Path, jitter: float) -> Iterator[int]:
    """The pipeline of `train` for images that do not fit in memory."""
    from keras_deepnets.data import ImageData
    from keras_deepnets.data.stores import FilePixels, IndexedStore

    files = _files(folder)
    rows = np.tile(np.arange(len(files)), -(-8192 // len(files)))  # epochs of a usual length
    store = IndexedStore(FilePixels(np.asarray(files, object)), rows, rows % 2)
    policy = "random_resized_crop_flip" + (f"+color_jitter({jitter})" if jitter else "")
    batches = ImageData("files", "train", ("even", "odd"), store).batches(
        batch_size=BATCH, image_size=SIZE, training=True, augment=policy, repeat=True
    )
    return (len(each) for each, _ in batches)


def usual(folder: Path, jitter: float, antialias: bool = True) -> Iterator[int]:
    """The usual tf.data pipeline: TensorFlow's own random box, only that part decoded."""
    import tensorflow as tf

    def view(path: tf.Tensor) -> tf.Tensor:
        contents = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(contents),
            tf.zeros([1, 0, 4]),
            aspect_ratio_range=RATIO,
            area_range=AREA,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.io.decode_and_crop_jpeg(contents, window, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, [SIZE, SIZE], antialias=antialias))
        if jitter:
            image = image / 255.0 * tf.random.uniform([], 1 - jitter, 1 + jitter)
            image = tf.image.random_contrast(image, 1 - jitter, 1 + jitter)
            image = 255.0 * tf.clip_by_value(tf.image.random_saturation(image, 1 - jitter, 1 + jitter), 0.0, 1.0)
        return tf.cast(image, tf.uint8)

    files = tf.data.Dataset.from_tensor_slices(_files(folder)).repeat().shuffle(1024)
    batches = files.map(view, tf.data.AUTOTUNE, deterministic=False).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return (len(each) for each in batches)


def torchvision(folder: Path, jitter: float) -> Iterator[int]:
    """`ImageFolder` and `DataLoader` with Pillow images, as in torchvision's training script."""
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=AREA, ratio=RATIO, antialias=True),
            v2.RandomHorizontalFlip(),
            *([v2.ColorJitter(jitter, jitter, jitter)] if jitter else []),
            v2.PILToTensor(),
        ]
    )
    images = datasets.ImageFolder(str(folder), transform)
    loader = torch.utils.data.DataLoader(
        images, BATCH, shuffle=True, num_workers=threads(), persistent_workers=True, drop_last=False
    )
    while True:
        yield from (len(each) for each, _ in loader)


def grain(folder: Path, jitter: float) -> Iterator[int]:
    """Grain's worker processes with Pillow, which resizes only the crop."""
    import grain as grains
    from absl import flags
    from PIL import Image, ImageEnhance

    flags.FLAGS.mark_as_parsed()  # Grain reads its flags, which only absl's own `main` parses

    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)

    class View(grains.transforms.RandomMap):
        def random_map(self, path: str, rng: np.random.Generator) -> np.ndarray:
            with Image.open(path) as file:
                image = file.convert("RGB")
            left, top, width, height = _box(*image.size, rng)
            image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for kind in rng.permutation(3) if jitter else ():
                image = enhancers[kind](image).enhance(rng.uniform(1 - jitter, 1 + jitter))
            return np.asarray(image)

    files = grains.MapDataset.source(_files(folder)).seed(0).shuffle().repeat()
    batches = files.random_map(View()).batch(BATCH).to_iter_dataset()
    options = grains.multiprocessing.MultiprocessingOptions(num_workers=threads())
    return (len(each) for each in batches.mp_prefetch(options))


def dali(folder: Path, jitter: float) -> Iterator[int]:
    """NVIDIA's pipeline on the CPU: random crop while decoding, resize, mirror."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=threads(), device_id=None)
    def pipeline() -> Any:
        files, _ = fn.readers.file(file_root=str(folder), random_shuffle=True)
        images = fn.decoders.image_random_crop(
            files, device="cpu", output_type=types.RGB, random_area=list(AREA), random_aspect_ratio=list(RATIO)
        )
        images = fn.resize(images, resize_x=SIZE, resize_y=SIZE, interp_type=types.INTERP_LINEAR, antialias=True)
        images = fn.flip(images, horizontal=fn.random.coin_flip(probability=0.5))
        if jitter:
            factors = [fn.random.uniform(range=(1 - jitter, 1 + jitter)) for _ in range(3)]
            images = fn.color_twist(images, brightness=factors[0], contrast=factors[1], saturation=factors[2])
        return images

    made = pipeline()
    made.build()
    while True:
        (images,) = made.run()
        yield len(images)


SIDES: dict[str, tuple[Callable[[Path, float], Iterator[int]], str]] = {
    "ours": (ours, "keras_deepnets"),
    "tf.data": (usual, "tensorflow"),
    "tf.data-plain": (functools.partial(usual, antialias=False), "tensorflow"),
    "torchvision": (torchvision, "torchvision"),
    "grain": (grain, "grain"),
    "dali": (dali, "nvidia.dali"),
}
"""The pipelines, and the package that each needs."""


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*/*.jp*g"))


def _box(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A random box as torchvision draws it: ten attempts, then the largest central box of an allowed ratio."""
    for _ in range(10):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(*map(math.log, RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, width - w + 1), rng.integers(0, height - h + 1), w, h
    w, h = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    return (width - w) / 2, (height - h) / 2, w, h


def measured(side: str, folder: Path, jitter: float, seconds: float) -> float:
    """Images per second of a side, after a warm-up of half the time."""
    batches = SIDES[side][0](folder, jitter)
    _rate(batches, seconds / 2)
    return _rate(batches, seconds)


def _rate(batches: Iterator[int], seconds: float) -> float:
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        count += next(batches)
    return count / elapsed


def _there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _in_a_process(side: str, folder: Path, jitter: float, seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.pipelines", str(folder), "--alone", side]
    command += ["--seconds", str(seconds), "--jitter", str(jitter)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}  # as in `train`
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def _photographs(folder: Path, width: int = 500, height: int = 375) -> None:
    from keras_deepnets.benchmark.pipeline import photograph

    for number in range(256 if width * height < 1e6 else 32):
        path = folder / ("even", "odd")[number % 2] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(number, (height, width)))


def table(rates: dict[str, list[float]]) -> str:
    """Return the medians of all sides as Markdown, with the ratios of our side in the same round."""
    lines = ["| pipeline | img/s | slowest, fastest round | ours relative to it |", "|---|---|---|---|"]
    for side, found in rates.items():
        ratios = [mine / other for mine, other in zip(rates.get("ours", []), found, strict=False)]
        ratio = f"{statistics.median(ratios):.2f}" if ratios and side != "ours" else ""
        lines.append(f"| {side} | {statistics.median(found):,.0f} | {min(found):,.0f}, {max(found):,.0f} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument(
        "--photographs", default="500x375", help="width x height of the synthetic photographs, in pixels"
    )
    parser.add_argument("--jitter", type=float, default=0.0, help="largest change of the colours, 0 to 1; default 0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--alone", choices=SIDES, help="measure one side in this process, and print the number")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(measured(options.alone, options.folder, options.jitter, options.seconds)))
        os._exit(0)  # worker processes and threads of the peers may hang at exit
    if not 0 <= options.jitter < 1:
        parser.error(f"--jitter {options.jitter} is not at least 0 and below 1")
    sizes = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", options.photographs)
    if sizes is None:
        parser.error(f"--photographs {options.photographs!r} is not a width and a height, such as 500x375")
    unknown = [side for side in options.sides.split(",") if side not in SIDES]
    if unknown:
        parser.error(f"--sides {unknown[0]!r} is not one of {', '.join(SIDES)}")
    sides = [side for side in options.sides.split(",") if _there(SIDES[side][1])]
    with tempfile.TemporaryDirectory() as made:
        folder = options.folder or Path(made)
        if options.folder is None:
            _photographs(folder, *map(int, sizes.groups()))
        elif not _files(folder):
            parser.error(f"{folder} holds no folder with JPEG files; give a folder of class folders, or none")
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                rates[side].append(_in_a_process(side, folder, options.jitter, options.seconds))
                print(f"round {number + 1}, {side}: {rates[side][-1]:,.0f} img/s", file=sys.stderr, flush=True)
    print(table(rates))


if __name__ == "__main__":
    main()
