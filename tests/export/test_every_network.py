"""Every named network becomes a SavedModel and TFLite files that compute what it computes."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.export._classifier import classifier_of
from keras_deepnets.export.litert import open_interpreter
from keras_deepnets.layers import Block
from tests.export.conftest import photographs, unsettle

INFOS = [kd.model_info(name) for name in kd.list_models()]
# One of each family for each kind of data, the shallowest and then the smallest.
SHALLOWEST = {
    (info.family, info.dataset): info.name
    for info in sorted(INFOS, key=lambda info: (info.depth, info.parameters), reverse=True)
}.values()
# Families without a shallow or small member for CIFAR, by their builders.
SMALL = {
    "preactresnet20": lambda **options: kd.PreActResNet(depth=20, stem="cifar", **options),
    "resnext20": lambda **options: kd.ResNeXt(depth=20, stem="cifar", groups=8, base_width=4, **options),
    "antialiased14": lambda **options: kd.ResNet(depth=14, stem="cifar", antialias="blur", attention="eca", **options),
    "grouped8": lambda **options: kd.ResNet(
        depth=8, stem="cifar", filters=(32, 64, 128), norm="group", antialias="average", **options
    ),
    "stochasticdepth20": lambda **options: kd.ResNet(depth=20, stem="cifar", stochastic_depth=0.5, **options),
}


def is_quick(info):
    return info.name in SHALLOWEST and info.dataset != "imagenet2012" and info.parameters < 10e6 and info.depth < 100


def geometry(name):
    """Side in pixels and channels of the images; ImageNet's networks are built for the smallest that they take."""
    info = kd.model_info(name)
    # On maps of one pixel a 3×3 convolution keeps a ninth of the signal, and no shortcut the rest.
    if name == "plainnet34":
        return 64, 3
    return {"mnist": 28, "imagenet2012": 32}.get(info.dataset, 16), info.input_shape[-1]


def spread(model, images):
    """Sets the classifier, and gives the probabilities of the images, which differ among the classes."""
    top = model.layers[-1]
    features = outputs(keras.Model(model.input, model.layers[-2].output), images)
    kernel = np.random.default_rng(2).normal(size=top.kernel.shape)
    # Logits as large as the features make them: spreading them over the images would magnify what float16 rounds, for a deep
    # network that has learnt nothing tells images apart by little.
    top.kernel.assign(kernel / np.sqrt(((features @ kernel) ** 2).mean()))
    top.bias.assign(np.zeros(7))
    return outputs(model, images)


def settled(make, side, channels):
    """The network with numbers of a trained one's kind, and images for which its probabilities differ."""
    keras.utils.set_random_seed(4)
    model = unsettle(make(input_shape=(side, side, channels), classes=7, include_preprocessing=True))
    blocks = [layer for layer in model.layers if isinstance(layer, Block) and layer.input.shape == layer.output.shape]
    # Hundreds of residual branches at full strength overflow, or drown the images in what they add.
    if len(blocks) > 300:
        for weight in itertools.chain.from_iterable(block.weights for block in blocks):
            if weight.name in ("gamma", "beta", "moving_mean"):
                weight.assign(0.1 * weight)
    images = photographs(4, side, side)[..., :channels]
    probabilities = spread(model, images)
    for strength in (0.1, 0.0):  # a long plain network forgets its images over what it adds to them
        if probabilities.std(0).max() > 1e-4:
            break
        for weight in model.weights:
            if weight.name in ("beta", "moving_mean"):
                weight.assign(strength * weight)
        probabilities = spread(model, images)
    assert np.isfinite(probabilities).all() and probabilities.std(1).min() > 0.03 and probabilities.std(0).max() > 1e-4
    return model, images, probabilities


def outputs(model, images):
    """What the network gives, without compiling it first: the shared functions of its blocks are all that it takes."""
    return np.asarray(model(images.astype("float32"), training=False))


def tflite_probabilities(path, images):
    interpreter = open_interpreter(model_path=str(path), num_threads=2)
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(source["index"], image[np.newaxis].astype("float32"))
        interpreter.invoke()
        found.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(found)


def in_float16(model, images):
    """What the network gives with its folded weights rounded to float16, computed in float32: what such a file holds."""
    folded = export.fold_batchnorm(model)
    folded.set_weights([weight.astype("float16").astype("float32") for weight in folded.get_weights()])
    return outputs(folded, images)


def check(make, side, channels, folder, deep=False):
    """Exports a network and compares; a `deep` one, with weights that nothing has learnt, magnifies what float16 rounds."""
    model, images, expected = settled(make, side, channels)
    path = export.saved_model(model, folder / "served")
    served = tf.saved_model.load(str(path)).signatures["serving_images"]
    # The server shows the network its evaluation view, of three equal channels the grey picture.
    found = served(images=tf.constant(np.broadcast_to(images, (*images.shape[:3], 3))))["probabilities"]
    unfolded = classifier_of(model, fold=False)
    np.testing.assert_allclose(found, unfolded.probabilities(unfolded.view(images)), atol=1e-4)
    for quantize, meant, tolerance in (
        (None, expected, 1e-4),
        ("float16", in_float16(model, images) if deep else expected, 1e-2),
    ):
        path = export.tflite(model, folder / "model.tflite", quantize)
        np.testing.assert_allclose(tflite_probabilities(path, images), meant, atol=tolerance)


def test_there_are_more_than_sixty():
    assert len(INFOS) >= 60
    assert sum(is_quick(info) for info in INFOS) >= 6


@pytest.mark.parametrize("name", SMALL)
def test_small_members_of_families_that_have_none(name, tmp_path):
    check(SMALL[name], 16, 3, tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(info.name, marks=[] if is_quick(info) else pytest.mark.slow) for info in INFOS]
)
def test_exports_compute_what_the_network_computes(name, tmp_path):
    check(functools.partial(kd.create_model, name), *geometry(name), tmp_path, deep=kd.model_info(name).depth >= 100)
