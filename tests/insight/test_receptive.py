import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_stages, stages


def seen(model, layer):
    """Side of the square of input pixels with a gradient from the middle of a layer's output. All weights are 1."""
    for weight in model.weights:
        weight.assign(np.ones(weight.shape, "float32") * (0.01 if len(weight.shape) > 1 else 1))
    inner = keras.Model(model.inputs[0], model.get_layer(layer).output)

    @tf.function  # without the gradients of the weights, on which eager TensorFlow may abort
    def gradient_of(pixels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            maps = inner(pixels, training=False)
            score = tf.reduce_sum(maps[0, maps.shape[1] // 2, maps.shape[2] // 2])
        return tape.gradient(score, pixels)

    gradient = gradient_of(tf.ones((1, *model.input_shape[1:])))[0].numpy()
    rows, columns = np.nonzero(np.abs(gradient).sum(-1))
    return max(np.ptp(rows), np.ptp(columns)) + 1


NETWORKS = {
    "resnet": lambda: kd.ResNet(depth=8, stem="cifar", input_shape=(64, 64, 3), shortcut="B"),
    "average before the projection": lambda: kd.ResNet(depth=8, stem="cifar", input_shape=(64, 64, 3), shortcut="D"),
    "imagenet stem": lambda: kd.ResNet(blocks=(1, 1), filters=(8, 16), input_shape=(128, 128, 3), downsample="3x3"),
    "densenet": lambda: kd.DenseNet(depth=10, growth_rate=4, bottleneck=False, stem="cifar", input_shape=(64, 64, 3)),
    "recomputed": lambda: kd.DenseNet(
        depth=10, growth_rate=4, stem="cifar", input_shape=(64, 64, 3), memory_efficient=True
    ),
    "highway": lambda: kd.Highway(filters=(4, 6), convolutions=(2, 2), input_shape=(48, 48, 3)),
    "vgg": lambda: kd.VGG(convolutions=(2, 2), filters=(4, 4), input_shape=(32, 32, 3), include_top=False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_against_the_gradient(name):
    model = NETWORKS[name]()
    found = stages(model)
    for stage in found:
        # Of equal pixels, max pooling chooses one: only it has a gradient.
        pooled = any("MaxPooling" in type(layer).__name__ for layer in model.layers)
        side = seen(model, stage.last)
        assert side <= stage.receptive_field if pooled else side == stage.receptive_field, stage


@pytest.mark.parametrize(
    ("name", "side"),
    # Araujo, Norris, Sim: "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019, table 1.
    [
        ("resnet50", 483),
        pytest.param("resnet101", 1027, marks=pytest.mark.slow),
        pytest.param("vgg16", 212, marks=pytest.mark.slow),
    ],
)
def test_published_receptive_fields(name, side):
    assert stages(kd.create_model(name))[-1].receptive_field == side


def test_memory_strides_and_convolutions():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    x = keras.layers.ReLU(name="b")(x)
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same", dtype="mixed_bfloat16", name="c")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    first, second = stages(keras.Model(inputs, keras.layers.Dense(2)(x)))
    assert (first.size, first.first, first.last, first.convolutions, first.stride) == ((8, 8), "a", "b", 1, 1)
    assert first.memory == 2 * 8 * 8 * 4 * 4
    assert (second.size, second.convolutions, second.stride, second.receptive_field) == ((4, 4), 1, 2, 5)
    assert second.memory == 4 * 4 * 5 * 2


def test_channel_attention_sees_the_whole_image():
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(32, 32, 3), attention="se")
    assert stages(model)[-1].receptive_field == float("inf")


def test_blocks_as_layers_give_the_same_stages():
    plain, blocks = (
        stages(kd.ResNet(depth=14, stem="cifar", input_shape=(16, 16, 3), block_layers=flag)) for flag in (False, True)
    )
    for one, other in zip(plain, blocks, strict=True):
        assert (one.size, one.receptive_field, one.convolutions) == (
            other.size,
            other.receptive_field,
            other.convolutions,
        )
        assert one.memory == other.memory


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="no fixed input size"):
        stages(kd.ResNet(depth=8, stem="cifar", input_shape=(None, None, 3)))
    with pytest.raises(InputError, match="no feature maps"):
        draw_stages(kd.PlainMLP(depth=2, input_shape=(8, 8, 1)), tmp_path / "stages.png")
    assert not list(tmp_path.iterdir())


def test_the_picture(tmp_path):
    path = draw_stages(NETWORKS["resnet"](), tmp_path / "stages.svg")
    assert "<svg" in path.read_text(encoding="utf-8")
