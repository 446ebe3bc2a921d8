"""Images a second of a training step, ours and the stock Keras twin's alternating in one process.

python -m keras_deepnets.benchmark.train_step resnet20 --batch 128 --dtype float32 mixed_bfloat16
"""

from __future__ import annotations

import argparse
import statistics
import time

import keras
import numpy as np

from keras_deepnets import registry
from keras_deepnets.benchmark.twins import stock_twin


def _prepare(model: keras.Model, batch: int):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", jit_compile=False)
    generator = np.random.default_rng(0)
    images = generator.normal(size=(batch, *model.input_shape[1:])).astype("float32")
    labels = generator.integers(0, model.output_shape[-1], batch)
    # A compiled step on data that is already there: neither tracing nor input pipelines are measured.
    step = model.make_train_function()
    model.train_on_batch(images, labels)
    step = model.train_function
    data = keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)
    return lambda: step(iter([data]))


def measure(
    name: str, batch: int, dtype: str, pairs: int, input_shape: tuple[int, int, int] | None = None
) -> dict[str, float]:
    """Medians of images a second and of the ratio pair by pair."""
    keras.config.set_dtype_policy(dtype)
    ours = registry.create_model(name, input_shape=input_shape)
    theirs = stock_twin(ours)
    steps = [_prepare(model, batch) for model in (ours, theirs)]
    for step in steps:
        for _ in range(3):
            step()
    times: list[list[float]] = [[], []]
    for _ in range(pairs):
        for step, record in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            record.append(time.perf_counter() - start)
    ratios = [stock / own for own, stock in zip(*times, strict=True)]
    keras.config.set_dtype_policy("float32")
    return {
        "ours": batch / statistics.median(times[0]),
        "stock": batch / statistics.median(times[1]),
        "ratio": statistics.median(ratios),
    }


def main() -> None:
    """Prints a line for each network and precision."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--pairs", type=int, default=20)
    arguments = parser.parse_args()
    for name in arguments.models:
        for dtype in arguments.dtype:
            result = measure(name, arguments.batch, dtype, arguments.pairs)
            print(
                f"{name} batch {arguments.batch} {dtype}: ours {result['ours']:.0f} img/s, "
                f"stock Keras {result['stock']:.0f} img/s, ratio {result['ratio']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
