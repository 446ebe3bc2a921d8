"""Every named network becomes a SavedModel and TFLite files that compute what it computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.export.litert import open_interpreter
from tests.export.conftest import keras_probabilities, photographs, spread_logits, unsettle

INFOS = [kd.model_info(name) for name in kd.list_models()]
# One of each family for each kind of data, the shallowest.
SHALLOWEST = {(info.family, info.dataset): info.name for info in sorted(INFOS, key=lambda info: -info.depth)}.values()
SIDE = 32
"""Pixels for which networks of ImageNet are built where their size does not matter: their smallest."""


def side_of(name):
    info = kd.model_info(name)
    return 28 if info.dataset == "mnist" else SIDE if info.dataset == "imagenet2012" else 16


def settled(name):
    """The network with numbers of a trained one's kind, and images for which its probabilities differ."""
    info = kd.model_info(name)
    keras.utils.set_random_seed(4)
    side, channels = side_of(name), info.input_shape[-1]
    options = {} if info.dataset == "mnist" else {"input_shape": (side, side, channels)}
    model = unsettle(kd.create_model(name, classes=7, include_preprocessing=True, **options))
    images = photographs(6, side, side)[..., :channels]
    spread_logits(model, images.astype("float32"))
    probabilities = keras_probabilities(model, images)
    assert np.isfinite(probabilities).all() and probabilities.std(0).max() > 0.01
    return model, images, probabilities


def tflite_probabilities(path, images):
    interpreter = open_interpreter(model_path=str(path), num_threads=2)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(source["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(source["index"], images.astype("float32"))
    interpreter.invoke()
    return interpreter.get_tensor(target["index"])


def check(name, tmp_path):
    model, images, expected = settled(name)
    version = export.saved_model(model, tmp_path / "served")
    colour = np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images
    # Grey networks take the mean of the colours; `predict` is what a client sees.
    served = tf.saved_model.load(str(version)).signatures["serving_images"](images=tf.constant(colour))
    if model.scaling is None or model.scaling.crop_fraction == 1:  # else the server shows the network another view
        np.testing.assert_allclose(served["probabilities"], expected, atol=1e-4)
    found = export.predict(model, images)["probabilities"]
    np.testing.assert_allclose(served["probabilities"], found, atol=1e-4)
    for quantize, tolerance in ((None, 1e-4), ("float16", 1e-2)):
        path = export.tflite(model, tmp_path / "model.tflite", quantize)
        np.testing.assert_allclose(tflite_probabilities(path, images), expected, atol=tolerance)


def test_there_are_more_than_sixty():
    assert len(INFOS) >= 60
    assert len(set(SHALLOWEST)) == len({(info.family, info.dataset) for info in INFOS})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            info.name,
            marks=[]
            if info.name in SHALLOWEST
            and info.dataset != "imagenet2012"
            and info.parameters < 10e6
            and info.depth < 100
            else pytest.mark.slow,
        )
        for info in INFOS
    ],
)
def test_exports_compute_what_the_network_computes(name, tmp_path):
    check(name, tmp_path)
