"""The number formats that a network computes in."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_deepnets import processor
from keras_deepnets.errors import InputError
from keras_deepnets.models import flat_layers, products


@contextlib.contextmanager
def policy(name: str | None) -> Iterator[None]:
    """Give layers created in the block the dtype policy `name`; None keeps the current policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name or before)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def check(name: str) -> None:
    """Raise InputError if the backend does not compute in the precision `name` of a recipe."""
    backend = keras.backend.backend()
    if name == "float64" and backend != "tensorflow":
        raise InputError(
            f"precision='float64' needs the TensorFlow backend, and the backend is {backend}. There, Keras computes many layers in "
            "float32. Set KERAS_BACKEND=tensorflow or precision='float32'."
        )


def prepare_gpus() -> None:
    """Let TensorFlow allocate GPU memory as needed instead of all at once.

    Warns if a GPU is already in use, because it is then too late.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        try:
            if not _grows(device):
                tf.config.experimental.set_memory_growth(device, True)
        except (RuntimeError, ValueError) as error:
            warnings.warn(
                f"TensorFlow takes all memory of {device.name} ({error}). Call keras_deepnets.training.prepare_gpus() before "
                "anything else, or set TF_FORCE_GPU_ALLOW_GROWTH=true.",
                stacklevel=2,
            )


def _grows(device: Any) -> bool:
    import tensorflow as tf

    forced = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "").lower() in ("true", "1")
    return forced or bool(tf.config.experimental.get_memory_growth(device))


def circumstances(model: keras.Model, precision: str, reason: str) -> str:
    """Describe in one line the device and the number format that a compiled model trains with. A format that is slow there gets a warning.

    Args:
        model: A compiled model.
        precision: Dtype policy of the model.
        reason: Why this policy was chosen.
    """
    found = devices()
    parts = [f"On {', '.join(found['gpus']) or 'the CPU'} in {precision} ({reason})"]
    if "tf32" in found:
        parts.append(f"TF32 {'on' if found['tf32'] else 'off'} for float32 products")
    parts.append(f"XLA {'on' if model.jit_compile else 'off'}")
    line = ", ".join(parts) + "."
    slow = precision == "mixed_bfloat16" and platform.machine() in ("x86_64", "AMD64") and not processor.has_bfloat16()
    if slow and not found["gpus"]:
        line += " This CPU has no bfloat16 instructions: float32 is several times faster."
    return line


def devices() -> dict[str, Any]:
    """Return the GPUs by name, and whether their float32 products use TF32, for the record of a run."""
    if keras.backend.backend() != "tensorflow":
        return {"gpus": []}
    import tensorflow as tf

    details = tf.config.experimental.get_device_details
    gpus = [details(device).get("device_name", device.name) for device in tf.config.list_physical_devices("GPU")]
    return {"gpus": gpus} | ({"tf32": tf.config.experimental.tensor_float_32_execution_enabled()} if gpus else {})


def policy_of(model: keras.Model) -> str:
    """Return the dtype policy of most of the model's layers with weights."""
    names = [layer.dtype_policy.name for layer in flat_layers(model) if layer.weights]
    return max(set(names), key=names.count) if names else model.dtype_policy.name


class Choice(NamedTuple):
    """A dtype policy and the reason for it."""

    policy: str
    reason: str


LANES = 16
"""Channels per block of oneDNN's bfloat16 convolutions on CPUs. They are slow if the channels are not a multiple of this."""

FEWEST_MAPS = 8
"""Minimum number of new feature maps from which rounding up the channels of a dense block pays off."""

UNEVEN_SHARE = 0.1
"""Share of multiply-adds in uneven convolutions above which float32 is faster (measured in docs/benchmarks.md)."""

_IMAGE_CHANNELS = 4
"""Inputs with at most this number of channels are images, so the first convolution does not count."""


def automatic(build: Callable[[], keras.Model]) -> Choice:
    """Choose a policy that trains accurately and fast on this machine. The same device and network give the same choice.

    On a GPU, the generation decides: bfloat16 from compute capability 8.0, float16 (with loss scaling) from 7.0. On a
    CPU with bfloat16 instructions, the network decides. It uses bfloat16, unless more than `UNEVEN_SHARE` of its
    multiply-adds are in convolutions whose channels do not suit these instructions (`uneven_share`). Everything else
    uses float32. Nothing is timed.

    Args:
        build: Builds the network. Called only if the choice depends on it.
    """
    capability = _compute_capability()
    if capability is not None:
        name = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
        return Choice(name, f"auto: compute capability {'.'.join(map(str, capability))}")
    if not processor.has_bfloat16():
        return Choice("float32", "auto: the CPU has no bfloat16 instructions")
    share = uneven_share(build())
    if share > UNEVEN_SHARE:
        reason = (
            f"auto: {share:.0%} of its multiply-adds are in convolutions whose channels are not multiples of {LANES}"
        )
        return Choice("float32", reason)
    return Choice("mixed_bfloat16", "auto: the CPU has bfloat16 instructions")


def uneven_share(model: keras.Model) -> float:
    """Return the share of multiply-adds in convolutions with uneven channels.

    A convolution is uneven if its input or output channels are not a multiple of `LANES`. Convolutions on images do not
    count. In a network with dense blocks, only those with fewer than `FEWEST_MAPS` output channels count.
    """
    from keras_deepnets.layers import Concatenate

    rounds = keras.backend.backend() == "tensorflow"
    dense = rounds and any(isinstance(layer, Concatenate) for layer in flat_layers(model))
    total = uneven = 0
    for layer, channels, filters, multiply_adds in products(model):
        total += multiply_adds
        if isinstance(layer, keras.layers.Dense) or channels <= _IMAGE_CHANNELS:
            continue
        if filters < FEWEST_MAPS if dense else channels % LANES or filters % LANES:
            uneven += multiply_adds
    return uneven / max(total, 1)


def _compute_capability() -> tuple[int, int] | None:
    """Return the compute capability of the first GPU that TensorFlow sees, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        return tuple(tf.config.experimental.get_device_details(device).get("compute_capability", (0, 0)))
    return None
