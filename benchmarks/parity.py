"""Compare networks under JAX and PyTorch with TensorFlow: outputs, gradients and the losses of a short training.

    python -m benchmarks.parity
    python -m benchmarks.parity resnet20 densenet121 --precision float32

Each backend runs in its own process on the CPU, with the same initial weights, images and labels. Random layers (dropout) are off. The
table shows the largest relative differences:

* outputs: of the logits in inference mode, relative to the largest logit;
* gradient: Euclidean norm of the difference over all weights, relative to the norm of the gradient. It is the median over five batches.
  An activation within rounding of zero may pass a ReLU on one side only. The gradient then jumps by about 1e-3;
* loss: of 20 steps of SGD with momentum on one batch, relative to the first loss.

In float32 and mixed_bfloat16, the last columns show what rounding alone does: they compare TensorFlow with itself in the next wider format.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

NETWORKS: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "resnet20": (16, {}),
    "PreActResNet": (16, {"depth": 20, "stem": "cifar"}),
    "wideresnet16_4": (16, {}),
    "densenet40_12": (16, {}),
    "highway1": (32, {}),
    "allcnn_c": (32, {"dropout": 0.0, "input_dropout": 0.0}),
    "resnet18": (64, {}),
    "plainnet20": (16, {}),
    "nin": (32, {"dropout": 0.0}),
    "googlenet": (64, {"dropout": 0.0}),
    "ResNeXt": (32, {"blocks": (1, 1), "filters": (64, 128)}),
}
"""Image side in pixels and options of each network."""
WIDER: Mapping[str, str | None] = {"float32": "float64", "mixed_bfloat16": "float32", "float64": None}
"""Precisions, each with the next wider one."""
BACKENDS = ("jax", "torch")
STEPS = 20
_IMAGES, _CLASSES = 8, 10  # per step
_RATE = 1e-4
_GRADIENTS = 5  # batches
_STILL = 1e-12  # learning rate at which the weights do not change; the momentum is this times the gradient


class Differences(NamedTuple):
    """Largest relative differences from TensorFlow."""

    outputs: float
    gradient: float
    loss: float


def build(name: str) -> keras.Model:
    """Build a network of `NETWORKS` that returns logits."""
    import keras_deepnets as kd

    side, options = NETWORKS[name]
    return kd.create_model(
        name, input_shape=(side, side, 3), classes=_CLASSES, classifier_activation=None, **dict(options)
    )


def run(name: str, precision: str, weights: Path, results: Path) -> None:
    """Measure one network under the backend of this process. Write arrays to the `.npz` file `results`."""
    import keras

    import keras_deepnets as kd

    if precision == "float64":
        _computes_in_float64()
    keras.config.set_dtype_policy(precision)
    model = build(name)
    kd.load_weights(model, weights)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_GRADIENTS, _IMAGES, *model.input_shape[1:])).astype("float32")
    labels = rng.integers(0, _CLASSES, (_GRADIENTS, _IMAGES))
    model.compile(
        keras.optimizers.SGD(_RATE, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",  # otherwise, JAX compiles each operation by itself
    )
    outputs = model.predict_on_batch(images[0])
    model.optimizer.learning_rate = _STILL
    gradients = []
    for step in range(_GRADIENTS):
        for momentum in model.optimizer.momentums if model.optimizer.built else ():
            momentum.assign(np.zeros(momentum.shape, momentum.dtype))
        model.train_on_batch(images[step], labels[step])
        momenta = [keras.ops.convert_to_numpy(momentum).ravel() for momentum in model.optimizer.momentums]
        gradients.append(np.concatenate(momenta) / -_STILL)
    model.optimizer.learning_rate = _RATE
    losses = [float(np.asarray(model.train_on_batch(images[0], labels[0]))) for _ in range(STEPS)]
    np.savez(results, outputs=outputs, gradients=gradients, losses=losses)


def _computes_in_float64() -> None:
    """Let Keras compute in float64 throughout. On JAX and PyTorch, it reduces float64 to float32 in many layers, by this table."""
    import keras
    from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE

    BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.config.set_floatx("float64")


def compare(reference: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> Differences:
    """Compare the results of `run` under two backends."""
    outputs = np.abs(other["outputs"] - reference["outputs"]).max() / np.abs(reference["outputs"]).max()
    norms = np.linalg.norm(reference["gradients"], axis=1)
    gradient = np.median(np.linalg.norm(other["gradients"] - reference["gradients"], axis=1) / norms)
    loss = np.abs(other["losses"] - reference["losses"]).max() / reference["losses"][0]
    return Differences(float(outputs), float(gradient), float(loss))


def measure(name: str, precision: str, backends: tuple[str, ...] = BACKENDS) -> dict[str, Differences]:
    """Run one network under TensorFlow and `backends`. Return the differences of each backend from TensorFlow.

    The entry of the wider precision (`WIDER`) is the difference of TensorFlow in that precision: what rounding does in one backend.
    """
    import keras_deepnets as kd

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        kd.save_weights(build(name), weights)
        reference = _in_process(name, precision, "tensorflow", weights)
        found = {backend: compare(reference, _in_process(name, precision, backend, weights)) for backend in backends}
        if wider := WIDER[precision]:
            found[wider] = compare(reference, _in_process(name, wider, "tensorflow", weights))
    return found


def _in_process(name: str, precision: str, backend: str, weights: Path) -> dict[str, np.ndarray]:
    """Return the results of `run` in a new process."""
    results = weights.with_name(f"{backend}-{precision}.npz")
    words = [sys.executable, "-m", "benchmarks.parity", name, "--precision", precision]
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    if precision == "float64":
        environment["JAX_ENABLE_X64"] = "1"
    done = subprocess.run(
        [*words, "--run", str(weights), str(results)],
        env=os.environ | environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)) + os.pathsep},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} under {backend}: {done.stderr[-3000:]}")
    return dict(np.load(results))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help="default: all")
    parser.add_argument("--precision", choices=WIDER, help="default: all")
    parser.add_argument("--run", nargs=2, type=Path, metavar=("WEIGHTS", "RESULTS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.networks if name not in NETWORKS]:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(NETWORKS)}")
    if arguments.run:
        run(arguments.networks[0], arguments.precision, *arguments.run)
        return
    backends = tuple(backend for backend in BACKENDS if find_spec(backend))
    if not backends:
        parser.error("neither JAX nor PyTorch is installed; run `pip install jax torch`")
    for precision in (arguments.precision,) if arguments.precision else WIDER:
        sides = tuple(filter(None, (*backends, WIDER[precision])))
        columns = [f"{side}: {field}" for side in sides for field in Differences._fields]
        print(f"{precision}\n\n| network | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)
        for name in arguments.networks:
            found = measure(name, precision, backends)
            values = [f"{value:.1e}" for side in sides for value in found[side]]
            print(f"| `{name}` | {' | '.join(values)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
