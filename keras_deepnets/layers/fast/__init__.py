"""Fast paths: computations that replace Keras' own on TensorFlow, with the same results to rounding.

This package holds everything in the library that rests on internals of TensorFlow or Keras. `PATHS` lists the fast paths. Each one
has a plain twin, which runs where the path is off: on other backends, where the switch turns it off, and where the internals that it
needs are missing in the installed version. In the last case one line on stderr says so.

The environment variable ``KERAS_DEEPNETS_FAST`` is the switch. ``0`` turns all paths off. ``-relu_of_sum,-momentum`` turns these two
off. Unset or ``1``, all paths are on.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from keras_deepnets.errors import InputError

VARIABLE = "KERAS_DEEPNETS_FAST"


@dataclass(frozen=True)
class Path:
    """A fast path.

    Attributes:
        name: what the switch calls it.
        replaces: the computation that it replaces.
        twin: what runs where the path is off.
        condition: where it applies.
        gain: what it saves, as measured.
        needs: internals that it rests on, as ``"module:attribute"``.
    """

    name: str
    replaces: str
    twin: str
    condition: str
    gain: str
    needs: tuple[str, ...] = ()


_XLA = "tensorflow.python.ops.control_flow_util:GraphOrParentsInXlaContext"

PATHS = {
    path.name: path
    for path in (
        Path(
            "fused_batch_norm",
            "the moments, products and sums of batch normalisation",
            "keras.layers.BatchNormalization",
            "four dimensions, channels last, float32, bfloat16 or float16",
            "reads and writes half-precision activations as they are: half the memory traffic of Keras' float32 copy",
        ),
        Path(
            "channel_padding",
            "kernels on a number of channels that is no multiple of 16",
            "the same kernels on the channels as they are",
            "on CPUs, outside XLA",
            "batch normalisation and convolution run 2 to 4 times as fast on odd widths in bfloat16",
        ),
        Path(
            "shared_statistics",
            "batch statistics of maps that a dense block concatenates again and again",
            "statistics of every concatenation",
            "in training, in graphs, on CPUs, outside XLA",
            "a normalisation reads its input once instead of three times",
        ),
        Path(
            "grouped_convolution",
            "Keras' grouped convolution, which it compiles with XLA",
            "keras.ops.conv",
            "more than one group, channels last",
            "up to 500 times as fast on CPUs, and exports without XLA",
        ),
        Path(
            "pointwise_gradient",
            "oneDNN's weight gradient of a 1×1 convolution",
            "the gradient of tf.nn.conv2d",
            "bfloat16, in training, on CPUs, outside XLA",
            "2 to 3 times as fast",
        ),
        Path(
            "pooling_first",
            "average pooling behind a 1×1 convolution",
            "the pooling where it is",
            "in graphs; pooling with strides, without padding",
            "a quarter of the convolution's work for 2×2 pooling",
        ),
        Path(
            "relu_of_sum",
            "an addition and a ReLU, and their gradients",
            "tf.nn.relu",
            "half precision, large maps, in training, in graphs, on CPUs, outside XLA",
            "16 bfloat16 maps of 56×56×256: forward 17 to 4 ms, backward 12 to 5 ms",
        ),
        Path(
            "concatenation_gradient",
            "the sum of gradients that a dense block's concatenation receives, and its division into parts",
            "the gradient of tf.concat",
            "half precision, large maps, in training, in graphs, on CPUs, outside XLA",
            "one pass over memory instead of two",
        ),
        Path(
            "recomputation",
            "storing what the layers of a dense block read",
            "batch normalisation, ReLU and convolution, whose inputs are stored",
            "memory_efficient=True, in training; the kernels of fused_batch_norm apply",
            "memory of a dense block grows linearly with its depth",
            ("tensorflow.python.eager.record:stop_recording", "tensorflow.compiler.tf2xla.ops.gen_xla_ops:xla_optimization_barrier"),
        ),
        Path(
            "shared_functions",
            "tracing and optimising equal blocks one by one",
            "each block's graph in the graph of the network",
            "layers.Block",
            "ResNet1202 is traced once a kind of block instead of 600 times",
            ("tensorflow.python.ops.resource_variable_ops:variable_accessed",),
        ),
        Path(
            "momentum",
            "the four operations of an SGD update with momentum",
            "keras.optimizers.SGD.update_step",
            "one replica, dense gradients",
            "half the memory traffic of an update",
        ),
        Path(
            "variable_names",
            "a kernel for each name under which TensorFlow creates a variable",
            "variables under their own TensorFlow names",
            "building layers; Keras' names and paths stay",
            "a tenth of the time to create variables",
        ),
    )
}  # fmt: skip


@functools.cache
def _switched_off() -> set[str]:
    """The names that the environment variable turns off."""
    text = os.environ.get(VARIABLE, "").strip()
    if text in ("", "1"):
        return set()
    if text == "0":
        return set(PATHS)
    words = [word.strip() for word in text.split(",")]
    unknown = [word for word in words if not word.startswith("-") or word[1:] not in PATHS]
    if unknown:
        raise InputError(
            f"{VARIABLE}={text!r}: {unknown[0]!r} is not '-' and the name of a fast path; give 0, 1, or some of "
            f"{', '.join(f'-{name}' for name in PATHS)}."
        )
    return {word[1:] for word in words}


@functools.cache
def _works(name: str) -> bool:
    """Whether the internals that a path needs are there. Says so once where they are not."""
    missing = [need for need in (*PATHS[name].needs, _XLA) if not _exists(need)]
    if missing:
        print(
            f"keras_deepnets: fast path {name!r} is off: this version of TensorFlow has no {missing[0].replace(':', '.')}.",
            file=sys.stderr,
        )
    return not missing


def _exists(need: str) -> bool:
    module, _, attribute = need.partition(":")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ImportError:
        return False


def on(name: str) -> bool:
    """Whether a fast path is on. Layers ask when they are called.

    Raises:
        InputError: ``KERAS_DEEPNETS_FAST`` is not understood.
    """
    return keras.backend.backend() == "tensorflow" and name not in _switched_off() and _works(name)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """A scope in which the fast paths of these names are off; without a name, all. What was traced before stays as it is."""
    off = _switched_off()
    added = set(names or PATHS) - off
    off |= added
    try:
        yield
    finally:
        off -= added
