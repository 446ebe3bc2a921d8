"""Every named network becomes a SavedModel and TFLite files that compute what it computes."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export, surgery
from keras_deepnets.export.classifier import classifier_of
from keras_deepnets.export.litert import open_interpreter
from tests.export.conftest import operators, photographs, tensor_types, unsettle
from tests.families.representatives import representatives

pytestmark = pytest.mark.integration

INFOS = [kd.model_info(name) for name in kd.list_models()]
CLASSES = 7
# Families without a shallow or small member for CIFAR, by their builders.
SMALL = {
    "preactresnet8": lambda **options: kd.PreActResNet(depth=8, stem="cifar", **options),
    "resnext11": lambda **options: kd.ResNeXt(depth=11, stem="cifar", groups=8, base_width=4, **options),
    "antialiased14": lambda **options: kd.ResNet(depth=14, stem="cifar", antialias="blur", attention="eca", **options),
    "grouped8": lambda **options: kd.ResNet(
        depth=8, stem="cifar", filters=(32, 64, 128), norm="group", antialias="average", **options
    ),
    "vgg6": lambda **options: kd.VGG(
        convolutions=(1, 2), filters=(16, 32), hidden=(24, 16), batch_norm=True, pooled_size=3, **options
    ),
    "bninception": lambda **options: kd.BNInception(
        modules=[[[16, 8, 16, 8, 16, 8], [0, 8, 16, 8, 16, 0]], [[16, 8, 16, 8, 16, 8]]], **options
    ),
    "googlenet": lambda **options: kd.GoogLeNet(modules=[[[16, 8, 16, 8, 16, 8]], [[16, 8, 16, 8, 16, 8]]], **options),
    "fractalnet17": lambda **options: kd.FractalNet(filters=(16, 24, 32, 32), dropout=0.1, **options),
    "maxoutcnn": lambda **options: kd.MaxoutCNN(filters=(16, 16, 16), hidden=(24,), hidden_pieces=3, **options),
    "prelunet6": lambda **options: kd.PReLUNet(
        convolutions=(1, 2), filters=(16, 32), stem_filters=16, hidden=(24,), **options
    ),
    "stochasticdepth8": lambda **options: kd.ResNet(depth=8, stem="cifar", stochastic_depth=0.5, **options),
}
# Of each family, and of each way to compute it, one that is converted in a moment.
QUANTISED = SMALL | {
    "squeezed14": lambda **options: kd.ResNet(depth=14, stem="cifar", attention="se", **options),
    "blocks14": lambda **options: kd.ResNet(depth=14, stem="cifar", block_layers=True, **options),
    "plain8": lambda **options: kd.PlainNet(depth=8, stem="cifar", **options),
    "wide10_2": lambda **options: kd.WideResNet(depth=10, widen_factor=2, **options),
    "dense10": lambda **options: kd.DenseNet(
        depth=10, stem="cifar", growth_rate=12, bottleneck=False, compression=1.0, **options
    ),
    "densebc16": lambda **options: kd.DenseNet(
        depth=16, stem="cifar", growth_rate=12, memory_efficient=True, **options
    ),
    "highway": lambda **options: kd.Highway(filters=(16, 32), convolutions=(2, 2), hidden=32, **options),
    "highwaymlp5": lambda **options: kd.HighwayMLP(depth=5, **options),
    "fitnet5": lambda **options: kd.FitNet(filters=((16, 16), (32,)), hidden=32, **options),
}
# Of TFLite's built-in operators those that the networks need, of the hundred and more.
OPERATORS = {
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "LOGISTIC",
    "MAX_POOL_2D",
    "MAXIMUM",
    "MEAN",
    "MIRROR_PAD",
    "MUL",
    "NEG",
    "PAD",
    "PRELU",
    "REDUCE_MAX",
    "RESHAPE",
    "RSQRT",
    "SOFTMAX",
    "SPLIT",
    "SQRT",
    "SQUARE",
    "STRIDED_SLICE",
    "SUB",
    "TRANSPOSE",
}
# The norms that make a residual branch strong, without those that projections see too, and the layers of a dense block.
BRANCHES = dict.fromkeys(
    ("PreActResNet", "ResNeXt", "ResNet", "ResNetV2", "StochasticDepth", "WideResNet"), r"_block\d+_[1-9]_bn/"
) | {"DenseNet": r"_block\d+_0_bn/"}


def branches_to_weaken(info):
    """A pattern for the paths of weights, of deep networks that have branches."""
    return BRANCHES.get(info.family) if info.depth >= 40 else None


def is_quick(info):
    """Whether it represents its family and takes seconds."""
    return info.dataset != "imagenet2012" and info.parameters < 2e6 and info.name in representatives()


def geometry(name):
    """Side in pixels and channels of the images; ImageNet's networks are built for the smallest that they take."""
    info = kd.model_info(name)
    # On maps of one pixel a 3×3 convolution keeps a ninth of the signal, and no shortcut the rest.
    if name == "plainnet34":
        return 64, 3
    side = {"mnist": 28, "imagenet2012": 32}.get(info.dataset, 16)
    return max(side, getattr(kd, info.constructor).facts.spec.total_stride), info.input_shape[-1]


def spread(model, images):
    """Sets the classifier, and gives the probabilities of the images, which differ among the classes."""
    (top, *_), features = surgery.classifier_of(model)
    features = outputs(keras.Model(model.input, features), images)
    features = features.mean((1, 2)) if features.ndim == 4 else features  # the outputs are averages over maps
    kernel = np.random.default_rng(2).normal(size=top.kernel.shape[-2:])
    # Logits as large as the features make them: spreading them over the images would magnify what float16 rounds, for a deep
    # network that has learnt nothing tells images apart by little.
    kernel /= np.sqrt(((features @ kernel) ** 2).mean())
    kernel *= 2 if top.kernel.ndim == 4 else 1  # a ReLU on the maps takes half of what they differ by
    # Else float16 would round it to zeros or infinities, and tell nothing.
    assert np.median(np.abs(kernel)) > 1e-4 and np.abs(kernel).max() < np.finfo("float16").max
    top.kernel.assign(kernel.reshape(top.kernel.shape))
    top.bias.assign(np.zeros(top.bias.shape))
    return outputs(model, images)


def settled(make, side, channels, weaken=None, classes=CLASSES):
    """The network with numbers of a trained one's kind, and images for which its probabilities differ.

    Branches whose norms match `weaken` are weak, as those of trained deep networks are: tens of them at full strength magnify what is
    rounded, hundreds overflow, or drown the images in what they add.
    """
    keras.utils.set_random_seed(4)
    model = unsettle(make(input_shape=(side, side, channels), classes=classes, include_preprocessing=True))
    for weight in model.weights:
        if weaken and re.search(f"{weaken}(gamma|beta|moving_mean)$", weight.path):
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
    assert (
        np.isfinite(probabilities).all()
        and probabilities.std(1).min() > 0.2 / classes
        and probabilities.std(0).max() > 1e-4
    )
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


def check(make, side, channels, folder, weaken=None, classes=CLASSES):
    """Exports a network and compares; of more classes each probability is smaller, and so is what it may differ by."""
    share = CLASSES / classes
    model, images, expected = settled(make, side, channels, weaken, classes)
    path = export.saved_model(model, folder / "served")
    served = tf.saved_model.load(str(path)).signatures["serving_images"]
    # The server shows the network its evaluation view, of three equal channels the grey picture.
    found = served(images=tf.constant(np.broadcast_to(images, (*images.shape[:3], 3))))["probabilities"]
    unfolded = classifier_of(model, fold=False)
    np.testing.assert_allclose(found, unfolded.probabilities(unfolded.view(images)), atol=1e-4 * share)
    for quantize, tolerance, more in ((None, 1e-4, set()), ("float16", 1e-2, {"DEQUANTIZE"})):
        path = export.tflite(model, folder / "model.tflite", quantize)
        np.testing.assert_allclose(tflite_probabilities(path, images), expected, atol=tolerance * share)
        assert set(operators(path)) <= OPERATORS | more


def test_there_are_more_than_sixty():
    assert len(INFOS) >= 60
    assert sum(is_quick(info) for info in INFOS) >= 5


@pytest.mark.parametrize("name", SMALL)
def test_small_members_of_families_that_have_none(name, tmp_path):
    check(SMALL[name], 16, 3, tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(info.name, marks=[] if is_quick(info) else pytest.mark.slow) for info in INFOS]
)
def test_exports_compute_what_the_network_computes(name, tmp_path):
    info = kd.model_info(name)
    check(functools.partial(kd.create_model, name), *geometry(name), tmp_path, branches_to_weaken(info))


@pytest.mark.parametrize("activation", ["prelu", "shared_prelu"])
def test_a_rectifier_is_one_operator(activation, tmp_path):
    """Of convolutions, and of fully connected layers."""
    model = QUANTISED["prelunet6"](input_shape=(16, 16, 3), classes=CLASSES, activation=activation)
    for quantize in (None, "int8"):
        path = export.tflite(model, tmp_path / "model.tflite", quantize, photographs(20, 16, 16))
        found = list(operators(path))
        assert found.count("PRELU") == 5 and not {"RELU", "NEG", "MINIMUM", "DEQUANTIZE"} & {*found}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "densenet121"])
def test_at_the_size_and_with_the_classes_that_it_is_made_for(name, tmp_path):
    info = kd.model_info(name)
    assert info.input_shape == (224, 224, 3) and info.classes == 1000
    check(functools.partial(kd.create_model, name), 224, 3, tmp_path, branches_to_weaken(info), classes=1000)


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_members_of_every_family(name, tmp_path):
    channels = 1 if "mlp" in name else 3
    model = settled(QUANTISED[name], 16, channels)[0]
    images = photographs(200, 16, 16)[..., :channels]
    expected = outputs(model, images)
    # Measured: at most 0.013 and 0.0017, 0.023 and 0.0031.
    for quantize, most, mean in (("dynamic", 0.025, 0.003), ("int8", 0.04, 0.005)):
        path = export.tflite(model, tmp_path / "model.tflite", quantize, images)
        difference = np.abs(export.predict(path, images)["probabilities"] - expected)
        assert difference.max() < most and difference.mean() < mean
        assert path.stat().st_size < 2 * model.count_params()
        if quantize == "dynamic":
            assert set(operators(path)) <= OPERATORS
        else:
            in_floats = (
                {"DEQUANTIZE"} if name in ("grouped8", "googlenet") else set()
            )  # NEG, SQUARE and SQRT of their norms have no integer kernels
            assert set(operators(path)) <= OPERATORS | {"QUANTIZE"} | in_floats
            assert tensor_types(path) - {np.uint8, np.int8, np.int32} == ({np.float32} if in_floats else set())
