"""Which number formats a network computes in."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_deepnets.models import flat_layers


@contextlib.contextmanager
def policy(name: str | None) -> Iterator[None]:
    """Layers made in the block have the dtype policy `name`; None leaves the current one."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def prepare_gpus() -> None:
    """Lets TensorFlow take a GPU's memory as it needs it, not all at once. Warns where one is in use already: then it is too late."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        try:
            if not _grows(device):
                tf.config.experimental.set_memory_growth(device, True)
        except (RuntimeError, ValueError) as error:
            warnings.warn(
                f"TensorFlow takes all memory of {device.name} ({error}); call keras_deepnets.training.prepare_gpus() before "
                "anything else, or set TF_FORCE_GPU_ALLOW_GROWTH=true.",
                stacklevel=2,
            )


def _grows(device: Any) -> bool:
    import tensorflow as tf

    forced = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "").lower() in ("true", "1")
    return forced or bool(tf.config.experimental.get_memory_growth(device))


def circumstances(model: keras.Model, precision: str, reason: str) -> str:
    """What a compiled model is trained on, and in which numbers, in one line.

    Args:
        model: compiled.
        precision: its dtype policy.
        reason: why it is this one.
    """
    found = devices()
    parts = [f"On {', '.join(found['gpus']) or 'the CPU'} in {precision} ({reason})"]
    if "tf32" in found:
        parts.append(f"TF32 {'on' if found['tf32'] else 'off'} for float32 products")
    parts.append(f"XLA {'on' if model.jit_compile else 'off'}")
    return ", ".join(parts) + "."


def devices() -> dict[str, Any]:
    """What the run computes on, for its record: the GPUs by name, and whether their float32 products are TF32 ones."""
    if keras.backend.backend() != "tensorflow":
        return {"gpus": []}
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    gpus = [details(device).get("device_name", device.name) for device in tf.config.list_physical_devices("GPU")]
    return {"gpus": gpus} | ({"tf32": tf.config.experimental.tensor_float_32_execution_enabled()} if gpus else {})


def policy_of(model: keras.Model) -> str:
    """The dtype policy that most of a model's weights were made under."""
    names = [layer.dtype_policy.name for layer in flat_layers(model) if layer.weights]
    return max(set(names), key=names.count) if names else model.dtype_policy.name


class Choice(NamedTuple):
    """A dtype policy, and why it is this one."""

    policy: str
    reason: str


def automatic(build: Callable[[], keras.Model], batch_size: int = 32) -> Choice:
    """The fastest policy that is known to train well on this machine's device.

    A GPU decides by its generation: bfloat16 from compute capability 8.0, float16 (with loss scaling) from 7.0. A CPU that
    has bfloat16 instructions is measured, since networks with few channels are slower in bfloat16. Else float32.

    Args:
        build: makes the network under the current policy.
        batch_size: images in a measured step.
    """
    capability = _compute_capability()
    if capability is not None:
        name = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
        return Choice(name, f"auto: compute capability {'.'.join(map(str, capability))}")
    if not _cpu_has_bfloat16():
        return Choice("float32", "auto: the CPU has no bfloat16 instructions")
    seconds = {name: step_seconds(build, name, batch_size) for name in ("float32", "mixed_bfloat16")}
    first, second = sorted(seconds, key=seconds.__getitem__)
    return Choice(first, f"auto: {seconds[second] / seconds[first]:.2f} times as fast as {second} here")


def step_seconds(build: Callable[[], keras.Model], name: str, batch_size: int, steps: int = 4) -> float:
    """Seconds of a training step of the network under the policy `name`: the fastest of `steps`, after one that compiles."""
    with policy(name):
        model = build()
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", jit_compile=False)
    images = np.zeros((batch_size, *model.input_shape[1:]), "float32")
    labels = np.zeros(batch_size, "int64")
    times = []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        model.train_on_batch(images, labels)
        times.append(time.perf_counter() - begin)
    del model
    gc.collect()
    return min(times[1:])


def _compute_capability() -> tuple[int, int] | None:
    """Of the first GPU that TensorFlow sees, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        return tuple(tf.config.experimental.get_device_details(device).get("compute_capability", (0, 0)))
    return None


def _cpu_has_bfloat16() -> bool:
    try:
        return any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512_bf16", "amx_bf16"))
    except OSError:  # not Linux; oneDNN's bfloat16 needs these instructions anyway
        return False
