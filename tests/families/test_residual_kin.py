"""Pre-activation, stochastic depth, Wide ResNet and ResNeXt: what their papers say beyond the common battery."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.families.preact import UNITS

KINDS = {"Conv2D": "conv", "BatchNormalization": "bn", "Activation": "relu", "Add": "add"}
CONV_BN_RELU_CONV = ["conv", "bn", "relu", "conv"]
BLOCK = {
    "original": [*CONV_BN_RELU_CONV, "bn", "add", "relu"],
    "bn_after_addition": [*CONV_BN_RELU_CONV, "add", "bn", "relu"],
    "relu_before_addition": [*CONV_BN_RELU_CONV, "bn", "relu", "add"],
    "relu_only_preactivation": ["relu", *CONV_BN_RELU_CONV, "bn", "add"],
    "full_preactivation": ["bn", "relu", *CONV_BN_RELU_CONV, "add"],
}
TAIL = {"relu_only_preactivation": ["relu"], "full_preactivation": ["bn", "relu"]}


def kinds(model, prefix):
    return [KINDS[type(layer).__name__] for layer in model.layers if layer.name.startswith(prefix)]


@pytest.mark.parametrize("unit", UNITS)
def test_order_of_the_five_units(unit):
    model = kd.PreActResNet(depth=14, stem="cifar", unit=unit)
    assert kinds(model, "conv1_") == ["conv", "bn", "relu"]
    assert kinds(model, "conv2_block2") == BLOCK[unit]
    # The first unit finds its input activated; its shortcut is too.
    before = len(BLOCK[unit]) - len([*CONV_BN_RELU_CONV, *UNITS[unit].last, *UNITS[unit].after, "add"])
    assert kinds(model, "conv2_block1") == BLOCK[unit][before:]
    assert kinds(model, "post") == TAIL.get(unit, [])
    last = model.layers[model.layers.index(model.get_layer("avg_pool")) - 1]
    assert last.name == ("post_relu" if TAIL.get(unit) else "conv4_block2_out")


def test_original_unit_is_the_residual_net_with_projections(rng):
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    unit = kd.PreActResNet(depth=20, stem="cifar", unit="original", input_shape=(16, 16, 3))
    residual = kd.ResNet20(shortcut="B", input_shape=(16, 16, 3))
    by_name = {weight.path: weight for weight in unit.weights}
    assert sorted(by_name) == sorted(weight.path for weight in residual.weights)
    for weight in residual.weights:
        weight.assign(by_name[weight.path])
    np.testing.assert_allclose(unit(x), residual(x), atol=1e-6)


def inputs_of(model, name):
    return [tensor._keras_history.operation.name for tensor in model.get_layer(name).input]


def test_shortcuts_start_where_the_paper_says():
    model = kd.PreActResNet110()
    assert inputs_of(model, "conv2_block1_out")[0] == "conv1_relu"
    assert inputs_of(model, "conv2_block2_out")[0] == "conv2_block1_out"
    assert inputs_of(model, "conv3_block1_out")[0] == "conv3_block1_0_conv"
    assert model.get_layer("conv3_block1_0_conv").input._keras_history.operation.name == "conv3_block1_preact_relu"


def test_imagenet_v2_has_the_layer_names_of_keras_applications():
    theirs = keras.applications.ResNet50V2(weights=None)
    ours = {layer.name for layer in kd.ResNet50V2().layers}
    # Their stride is in the last block of a stage (a pooled shortcut, `max_pooling2d…`), ours in the first as in timm.
    wanted = {
        layer.name for layer in theirs.layers if not layer.name.endswith("_pad") and "max_pooling2d" not in layer.name
    }
    wanted.discard(theirs.layers[0].name)
    assert wanted - ours == set()


def test_stochastic_depth_at_inference_is_the_scaled_residual_net(rng):
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    stochastic = kd.StochasticDepthResNet110(final_survival=0.4, input_shape=(16, 16, 3))
    residual = kd.ResNet110(input_shape=(16, 16, 3))
    by_name = {weight.path: weight.numpy() for weight in stochastic.weights}
    for weight in residual.weights:
        weight.assign(by_name[weight.path])
    blocks = [layer.name[:-4] for layer in residual.layers if layer.name.endswith("_add")]
    for index, block in enumerate(blocks, start=1):
        bn = residual.get_layer(f"{block}_2_bn")
        for weight in (bn.gamma, bn.beta):
            weight.assign(weight * (1 - index / 54 * 0.6))
    assert len(blocks) == 54
    np.testing.assert_allclose(stochastic(x, training=False), residual(x, training=False), atol=1e-5)


def test_final_survival_one_is_the_residual_net():
    model = kd.StochasticDepthResNet110(final_survival=1)
    assert not [layer for layer in model.layers if layer.name.endswith("_drop")]


def test_wide_resnet_drops_between_the_convolutions():
    model = kd.WideResNet16_4(dropout=0.3)
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert len(drops) == 6 and {layer.rate for layer in drops} == {0.3}
    names = [layer.name for layer in model.layers]
    assert names[names.index(drops[0].name) - 1].endswith("_1_relu")
    assert model.get_layer("conv2_block1_2_conv").input._keras_history.operation is drops[0]
    assert kd.WideResNet(depth=10, widen_factor=2).get_layer("conv4_block1_2_conv").filters == 128


@pytest.mark.parametrize(
    "name, widths", [("ResNeXt50_32x4d", (128, 256, 512, 1024)), ("ResNeXt101_64x4d", (256, 512, 1024, 2048))]
)
def test_resnext_widths(name, widths):
    model = getattr(kd, name)(input_shape=(32, 32, 3))
    convolutions = [model.get_layer(f"conv{stage}_block1_2_conv") for stage in range(2, 6)]
    assert tuple(layer.filters for layer in convolutions) == widths
    assert {layer.groups for layer in convolutions} == {int(name.split("_")[1].split("x")[0])}
    assert [layer.strides[0] for layer in convolutions] == [1, 2, 2, 2]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kd.PreActResNet110(unit="post"), "unit='post' is not one of 'original'"),
        (
            lambda: kd.PreActResNet(depth=20, stem="cifar", shortcut=None),
            "PreActResNet: shortcut=None is not one of 'A', 'B', 'C', 'D'",
        ),
        (lambda: kd.PreActResNet(depth=111, stem="cifar"), r"PreActResNet: depth=111 is not 6n\+2"),
        (lambda: kd.PreActResNet(depth=165, stem="cifar", block="bottleneck"), r"depth=165 is not 9n\+2"),
        (lambda: kd.WideResNet(depth=17), r"WideResNet: depth=17 is not 6n\+4"),
        (lambda: kd.WideResNet(widen_factor=0), "widen_factor=0"),
        (lambda: kd.WideResNet28_10(dropout=1.5), "dropout=1.5"),
        (lambda: kd.StochasticDepthResNet110(final_survival=0), "final_survival=0"),
        (lambda: kd.ResNeXt(blocks=(1, 1, 1, 1), groups=0), "ResNeXt: groups=0"),
        (
            lambda: kd.ResNeXt(blocks=(1, 1, 1), stem="cifar", filters=(10, 20, 40)),
            "must be a whole number in every stage",
        ),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
