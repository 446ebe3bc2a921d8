"""Forward passes and one training step of a network of each family on the backend of this process, into an npz file."""

import sys
import zlib

import keras
import numpy as np

import keras_deepnets as kd
from keras_deepnets import layers


def fill(model):
    """Weights that depend on nothing but their names and shapes."""
    # Without norms the numbers grow, and a saturated softmax is computed from logits by one backend only.
    normalised = any(weight.path.endswith("gamma") for weight in model.weights)
    for weight in model.weights:
        if "seed" in weight.path:
            continue
        generator = np.random.default_rng(zlib.crc32(weight.path.encode()))
        shape = tuple(weight.shape)
        kind = weight.path.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):
            values = generator.uniform(0.5, 1.5, shape)
        elif kind == "kernel":
            values = generator.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape)
            values *= 0.02 if "predictions" in weight.path and not normalised else 1
        else:
            values = generator.normal(0, 0.1, shape)
        weight.assign(values.astype("float32"))


def cheapest():
    """The cheapest network of each family for each kind of data."""
    found = {}
    for info in map(kd.model_info, kd.list_models()):
        key = info.family, info.dataset
        if key not in found or info.depth < found[key].depth:
            found[key] = info
    return found.values()


def networks():
    """Name and model: of every family, and of blocks that are layers."""
    for info in cheapest():
        side = {"imagenet2012": 64, "cifar10": 16, "mnist": 28}[info.dataset]
        side = max(side, getattr(kd, info.constructor).facts.spec.total_stride)
        # Random draws differ from backend to backend.
        still = {"final_survival": 1.0, "dropout": 0.0, "input_dropout": 0.0, "drop_path": 0, "global_share": 0}
        known = getattr(kd, info.constructor).facts.options
        options = {name: value for name, value in still.items() if name in known}
        if info.family == "PReLUNet":
            options["hidden"] = (64,)  # of its hundreds of millions of weights these layers have most
        # FitNets pool over the whole of a 32-pixel image.
        shape = info.input_shape if info.family == "FitNet" else (side, side, info.input_shape[-1])
        yield info.name, kd.create_model(info.name, input_shape=shape, classes=3, **options)
    blocks = {"stem": "cifar", "input_shape": (16, 16, 3), "classes": 3, "block_layers": True}
    yield "blocks", kd.ResNet(depth=14, shortcut="A", **blocks)
    variants = {"stem": "cifar", "input_shape": (16, 16, 3), "classes": 3, "depth": 8}
    yield "anti-aliased", kd.ResNet(antialias="blur", attention="eca", shortcut="D", **variants)
    yield "grouped", kd.ResNet(norm="group", filters=(32, 64, 128), antialias="average", **variants)
    # The mean of equal maps does not depend on the draws of drop-path.
    inputs = keras.Input((16, 16, 3))
    x = layers.conv_bn_relu(inputs, 8, 3, name="unit")
    x = layers.fractal_join({1: x, 2: x, 3: x}, layers.column_plan(inputs, 3, 0.5), drop_path=0.4)
    yield "drop-path", keras.Model(inputs, layers.classifier(x, 3, "softmax"))
    yield "preact blocks", kd.PreActResNet(depth=20, block="bottleneck", **blocks)


def main(path):
    results = {}
    for name, model in networks():
        x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
        fill(model)
        # JAX compiles an operation at a time what it is not told to compile at once: minutes a network.
        model.compile(
            keras.optimizers.SGD(1e-6 if name.startswith("fitnet") else 1e-3, momentum=0.9),
            "sparse_categorical_crossentropy",
            jit_compile=keras.backend.backend() == "jax",
        )
        results[f"{name} forward"] = model.predict_on_batch(x)
        results[f"{name} loss"] = np.asarray(model.train_on_batch(x, np.array([0, 1, 2, 0])))
        results[f"{name} after"] = model.predict_on_batch(x)
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
