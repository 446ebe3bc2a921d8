"""Fast paths: computations that replace Keras' own on TensorFlow, with the same results up to rounding.

This package contains all code of the library that depends on internals of TensorFlow or Keras. `PATHS` lists the fast paths. Each
path has a plain counterpart, which runs if the path is off. A path is off on other backends, if the switch turns it off, and if the
installed version lacks the internals that it needs. In the last case, one line on stderr reports it.

The environment variable ``KERAS_DEEPNETS_FAST`` is the switch. ``0`` turns all paths off. ``-relu_of_sum,-momentum`` turns these two
off. If it is unset or ``1``, all paths are on.
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
        name: name in the switch.
        replaces: computation that it replaces.
        twin: computation that runs if the path is off.
        condition: when the path applies.
        gain: measured gain.
        needs: internals that it depends on, as ``"module:attribute"``.
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
            "four dimensions, channels last, float32, bfloat16 or float16; not in float32 inference with oneDNN without AVX-512",
            "no float32 copy of half-precision activations: half the memory traffic of Keras",
            ("tensorflow.python.eager.record:record_operation", "tensorflow.python.eager.record:stop_recording"),
        ),
        Path(
            "channel_padding",
            "kernels on a number of channels that is not a multiple of 16",
            "the same kernels on the original channels",
            "on CPUs, outside XLA",
            "batch normalisation and convolution run 2 to 4 times as fast in bfloat16 on such numbers of channels",
        ),
        Path(
            "shared_statistics",
            "batch statistics of maps that a dense block concatenates repeatedly",
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
            "average pooling after a 1×1 convolution",
            "the pooling after the convolution",
            "in graphs; pooling with strides, without padding",
            "a quarter of the convolution's work for 2×2 pooling",
        ),
        Path(
            "relu_of_sum",
            "an addition and a ReLU, and their gradients",
            "tf.nn.relu",
            "half precision, large maps, in training, in graphs, on CPUs, outside XLA",
            "16 bfloat16 maps of 56×56×256: from 17 to 4 ms forward, from 12 to 5 ms backward",
        ),
        Path(
            "prelu",
            "the operations of a parametric rectifier, and their gradients",
            "max(x, 0) + alpha·min(x, 0) by keras.ops",
            "large maps, in training, in graphs, on CPUs, outside XLA",
            "a third of the time of keras.layers.PReLU",
        ),
        Path(
            "local_response",
            "automatic differentiation of local response normalisation",
            "the gradient of keras.ops",
            "in training; compiled for large maps in graphs, on CPUs, outside XLA",
            "8 maps of 56×56×192, forward and back: from 470 to 32 ms; tf.nn.local_response_normalization takes 190 ms",
        ),
        Path(
            "concatenation_gradient",
            "the sum of the gradients of a dense block's concatenation, and its split into parts",
            "the gradient of tf.concat",
            "half precision, large maps, in training, in graphs, on CPUs, outside XLA",
            "one pass over memory instead of two",
        ),
        Path(
            "recomputation",
            "storage of the inputs of a dense block's layers",
            "batch normalisation, ReLU and convolution with stored inputs",
            "memory_efficient=True, in training, where the kernels of fused_batch_norm apply",
            "memory of a dense block grows linearly with its depth",
            ("tensorflow.python.eager.record:stop_recording", "tensorflow.compiler.tf2xla.ops.gen_xla_ops:xla_optimization_barrier"),
        ),
        Path(
            "shared_functions",
            "tracing and optimisation of equal blocks one by one",
            "each block's graph inside the graph of the network",
            "layers.Block",
            "ResNet1202 is traced once per kind of block instead of 600 times",
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
            "combined_suppression",
            "non-maximum suppression as a loop over the candidates",
            "detection.suppression.plain_suppress",
            "detectors",
            "time and memory grow with the number of selected boxes, not with the square of the candidates",
        ),
        Path(
            "region_align",
            "gathers of the four neighbours of each sampling point of a region",
            "detection.RegionAlign.plain",
            "detectors",
            "does not store four copies of the sampled features",
        ),
        Path(
            "variable_names",
            "one kernel for each name of a TensorFlow variable",
            "variables with their own TensorFlow names",
            "while layers are built; Keras' names and paths do not change",
            "creates variables in a tenth of the time",
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
            f"{VARIABLE}={text!r}: {unknown[0]!r} is not '-' followed by the name of a fast path; give 0, 1, or some of "
            f"{', '.join(f'-{name}' for name in PATHS)}."
        )
    return {word[1:] for word in words}


@functools.cache
def _works(name: str) -> bool:
    """Whether the internals that a path needs exist. Reports missing internals once."""
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
    """Whether a fast path is on. Layers check this when they are called.

    Raises:
        InputError: the value of ``KERAS_DEEPNETS_FAST`` is invalid.
    """
    return keras.backend.backend() == "tensorflow" and name not in _switched_off() and _works(name)


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """A scope in which the named fast paths are off, or all if no name is given. Functions that are already traced do not change."""
    off = _switched_off()
    added = set(names or PATHS) - off
    off |= added
    try:
        yield
    finally:
        off -= added
