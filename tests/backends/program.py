"""What a user does with a trained network, on the backend of this process: `python -m tests.backends.program FOLDER`.

The folder holds the weights. The results go to `BACKEND.npz`.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_deepnets as kd
from tests.detection import common
from tests.detection.training.common import tiny, voc_folder

CLASSES = 5
SAMPLING = kd.detection.Sampling(
    anchors=4000, regions=800, seed=0
)  # all anchors and regions, so that nothing is random
STEPS = 3


def classifier():
    return kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), classes=CLASSES, include_preprocessing=True)


def models():
    """Network by name. Each has a file of weights."""
    return {"classifier": classifier(), "detector": common.small_detector(frozen_batch_norm=False)}


def pictures(model, images, labels):
    """Numbers of the pictures of a network."""
    kd.insight.stages(model)
    yield "filters", kd.insight.first_filters(model)
    responses = kd.insight.layer_responses(model, images)
    yield "responses", responses.deviations
    for layer in (None, "conv3_block1_out", "conv3_block1_1_relu"):
        found = kd.insight.grad_cam(model, images, [0, 3, 4], layer)
        yield f"grad-cam {layer}", found.maps
        yield f"probabilities {layer}", found.probabilities
    yield "loss surface", kd.insight.loss_surface(model, images, labels, points=3, extent=0.2).losses


def forms(model, images):
    """Outputs of the forms of a network."""
    yield "folded", kd.export.fold_batchnorm(model).predict(images, verbose=0)
    for level, maps in kd.feature_pyramid(model).predict(images, verbose=0).items():
        yield f"level {level}", maps
    kd.freeze(model, "conv3_block1_out")
    yield "trainable", sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def detection(model, folder):
    """Detections, and the losses of a training."""
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    for name, values in kd.detection.detect(model, [pixels])[0].items():
        yield f"detected {name}", values
    form = kd.detection.training_form(model, SAMPLING)
    form.compile(keras.optimizers.SGD(0.01), jit_compile=keras.backend.backend() == "jax")
    boxes = common.truths([[[5, 5, 35, 30], [40, 20, 80, 60]], [[10, 8, 44, 40]]], [[1, 3], [2]], 3)
    inputs = common.images() | boxes
    rows = [form.train_on_batch(inputs, return_dict=True) for _ in range(STEPS)]
    for name in rows[0]:
        yield f"{name} of a training", np.asarray([float(row[name]) for row in rows])
    data, options = (
        voc_folder(folder / f"{keras.backend.backend()}-voc"),
        {"batch_size": 2, "accumulate": 2, "epochs": 2, "verbose": 0},
    )
    whole = kd.detection.train(tiny(), data, "fast", folder / f"{keras.backend.backend()}-detector", **options)
    assert np.isfinite(whole.history["loss"]).all() and len(whole.history["loss"]) == 2


def dropping():
    """A branch that stochastic depth always drops is not computed, and nothing of it changes."""
    options = {"stochastic_depth": 1 - 1e-9, "drop_unit": "batch", "block_layers": True}
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), classes=CLASSES, **options)
    parts = model.get_layer("conv4_block1_out").sublayers
    kernel, mean = parts["conv4_block1_1_conv"].kernel, parts["conv4_block1_1_bn"].moving_mean
    kernel.assign(np.full(kernel.shape, np.nan, "float32"))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype("float32")
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    for _ in range(STEPS):
        assert np.isfinite(float(np.asarray(model.train_on_batch(images, np.array([0, 1, 2, 3])))))
    assert np.isnan(keras.ops.convert_to_numpy(kernel)).all() and not keras.ops.convert_to_numpy(mean).any()
    changed = sum(
        bool((keras.ops.convert_to_numpy(weight) != old).any())
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if not np.isnan(old).any()
    )
    assert changed > 3


def fine_tuning(folder):
    """Fine-tuning that is interrupted in each phase, against a whole one."""
    keras.utils.set_random_seed(2)
    start = folder / f"{keras.backend.backend()}-start.safetensors"
    build = {"depth": 8, "stem": "cifar"}
    kd.save_weights(kd.ResNet(**build, input_shape=(32, 32, 3), classes=7), start)
    options = {"weights": start, "model_options": build, "epochs": 2, "head_epochs": 2, "limit": 64, "verbose": 0}

    class Stop(keras.callbacks.Callback):
        def __init__(self, at):
            super().__init__()
            self.at = at

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == self.at:
                raise KeyboardInterrupt

    whole = kd.training.train("ResNet", "digits", run_dir=folder / f"{keras.backend.backend()}-whole", **options)
    parts = {"run_dir": folder / f"{keras.backend.backend()}-parts"} | options
    for at in (1, 3):
        try:
            kd.training.train("ResNet", "digits", callbacks=[Stop(at)], **parts)
            raise AssertionError("was not interrupted")
        except KeyboardInterrupt:
            pass
    resumed = kd.training.train("ResNet", "digits", **parts)
    assert len(whole.history["loss"]) == 4
    np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
    for one, other in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), one.path)


def main(folder):
    built = models()
    for name, model in built.items():
        kd.load_weights(model, folder / f"{name}.safetensors")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 16, 16, 3), np.uint8)
    results = dict(pictures(built["classifier"], images, np.array([0, 1, 2])))
    results |= dict(forms(built["classifier"], images))
    results |= dict(detection(built["detector"], folder))
    np.savez(folder / f"{keras.backend.backend()}.npz", **results)
    dropping()
    fine_tuning(folder)
    print(keras.backend.backend())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
