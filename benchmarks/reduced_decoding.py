"""How much a photograph changes that is decoded at a reduced size for training, and how much time that saves.

    python -m benchmarks.reduced_decoding FOLDER [--image-size 64] [--windows 4]

FOLDER holds JPEG files at any depth. From each, random windows are cut as by `random_resized_crop_flip`, and resized. Windows that are
decoded at a reduced size are compared with the same windows decoded at full size, with their edges rounded as there. Differences are
absolute, in levels of 0 to 255.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np


def compare(paths: list[Path], side: int, windows: int) -> str:
    """Measure all files and return one line."""
    import tensorflow as tf

    from keras_deepnets.data import augmentation, decoding, transforms

    policy = augmentation.get("random_resized_crop_flip")
    assert policy.window is not None
    choose = policy.window

    def view(size: tuple[int, int] | None) -> Any:
        def cut(contents: tf.Tensor, draws: tf.Tensor, ratio: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def window(height: tf.Tensor, width: tf.Tensor) -> Any:
                top, left, rows, columns = choose(height, width, draws)
                first, last = tf.stack([top, left]), tf.stack([top + rows, left + columns])
                first, last = first // ratio * ratio, last // ratio * ratio
                return tf.unstack(tf.concat([first, last - first], 0))

            part = decoding.decode(contents, 3, window, size=size)
            return tf.shape(part)[0], transforms.stretched(part[tf.newaxis], side, side, "bilinear")[0]

        signature = [
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([policy.draws], tf.float32),
            tf.TensorSpec([], tf.int32),
        ]
        return tf.function(cut, input_signature=signature, autograph=False)

    reduced, full = view((side, side)), view(None)
    draws = np.random.default_rng(0).random((len(paths), windows, policy.draws), np.float32)
    differences, seconds = [], []
    for path, some in zip(paths, draws, strict=True):
        contents = tf.io.read_file(str(path))
        for each in some:
            times, found = [], []
            for function in (reduced, full):
                function(contents, each, 1)  # the first call of a branch prepares it
                begin = time.perf_counter()
                found.append(function(contents, each, 1))
                times.append(time.perf_counter() - begin)
            (rows, image), (all_rows, _) = found
            if rows < all_rows:
                expected = full(contents, each, round(int(all_rows) / int(rows)))[1]
                difference = np.abs(image.numpy().astype(int) - expected.numpy())
                differences.append(difference.mean())
                seconds.append(times)
    if not differences:
        raise SystemExit(
            f"No window of these files has {2 * decoding.FINENESS} × {side} pixels; give a smaller --image-size."
        )
    before, after = (1000 * statistics.mean(column) for column in zip(*[pair[::-1] for pair in seconds], strict=True))
    return (
        f"{len(differences)} of {draws.shape[0] * windows} windows reduced; difference: mean {np.mean(differences):.2f}, "
        f"largest mean of a window {max(differences):.2f}; time: {before:.1f} → {after:.1f} ms"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--windows", type=int, default=4, help="random windows of each file")
    options = parser.parse_args()
    paths = sorted(options.folder.rglob("*.jp*g"))
    if not paths:
        parser.error(f"{options.folder} holds no JPEG files")
    if options.image_size < 1 or options.windows < 1:
        parser.error("--image-size and --windows must be positive")
    print(compare(paths, options.image_size, options.windows))


if __name__ == "__main__":
    main()
