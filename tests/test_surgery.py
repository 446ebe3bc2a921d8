"""Feature pyramids, new classifiers, frozen parts, input scaling, class names."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet18V2", "ResNet50V2", "ResNeXt50_32x4d"])
def test_pyramid_of_an_imagenet_network(name, rng):
    model = getattr(kd, name)(include_top=False)
    pyramid = kd.feature_pyramid(model)
    x = rng.normal(size=(1, 64, 96, 3)).astype("float32")
    maps = pyramid(x)
    assert list(maps) == ["P2", "P3", "P4", "P5"]
    basic = "18" in name
    for level, features in maps.items():
        stride = 2 ** int(level[1])
        assert features.shape == (1, 64 // stride, 96 // stride, 16 * stride if basic else 64 * stride)
    np.testing.assert_allclose(maps["P5"], model(x), rtol=1e-5, atol=1e-6)


def test_pyramid_of_a_cifar_network():
    assert {name: tensor.shape[1:] for name, tensor in kd.feature_pyramid(kd.ResNet20()).output.items()} == {
        "P0": (32, 32, 16),
        "P1": (16, 16, 32),
        "P2": (8, 8, 64),
    }


def test_pyramid_needs_images():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="needs a network with one image input"):
        kd.feature_pyramid(model)


def test_replace_classifier_shares_the_features(rng):
    model = kd.ResNet20(input_shape=(16, 16, 3))
    model.labels = list("abcdefghij")
    new = kd.replace_classifier(model, 3)
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    assert new(x).shape == (2, 3) and new.labels is None and new.scaling == model.scaling
    assert new.get_layer("conv1_conv") is model.get_layer("conv1_conv")
    pooled = keras.Model(model.input, model.get_layer("avg_pool").output)(x).numpy()
    head = new.layers[-1]
    logits = pooled @ head.kernel.numpy() + head.bias.numpy()
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(new(x), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="classes=0"):
        kd.replace_classifier(model, 0)
    with pytest.raises(ValueError, match="not a fully connected classifier"):
        kd.replace_classifier(kd.ResNet20(include_top=False), 3)


@pytest.mark.parametrize("options", [{}, {"stochastic_depth": 0.5}], ids=["plain", "stochastic depth"])
def test_frozen_network_stands_still(rng, options):
    model = kd.freeze(kd.ResNet20(input_shape=(16, 16, 3), **options))
    frozen = keras.Model(model.input, model.get_layer("avg_pool").output)
    x = rng.normal(3, 2, size=(8, 16, 16, 3)).astype("float32")
    before = frozen.get_weights()
    head = model.layers[-1].get_weights()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(8), epochs=2, verbose=0)
    for old, new in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(head[0], model.layers[-1].get_weights()[0])
    np.testing.assert_array_equal(frozen(x, training=True), frozen(x, training=False))


def test_frozen_dropout_drops_nothing(rng):
    model = kd.WideResNet(depth=10, widen_factor=1, dropout=0.5, input_shape=(16, 16, 3), include_top=False)
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    assert not np.array_equal(model(x, training=True), model(x, training=False))
    kd.freeze(model)
    np.testing.assert_allclose(model(x, training=True), model(x, training=False), atol=1e-5)


def test_frozen_layers_are_frozen_after_reloading(tmp_path):
    model = kd.freeze(kd.ResNet20(), "conv2_block3_out")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    flags = [[layer.trainable for layer in each.layers if layer.weights] for each in (model, loaded)]
    assert flags[0] == flags[1]
    assert len(loaded.trainable_weights) == len(model.trainable_weights) == 38


def test_freeze_up_to_a_layer():
    model = kd.freeze(kd.ResNet20(), "conv2_block3_out")
    trainable = {layer.name for layer in model.layers if layer.trainable and layer.weights}
    assert all(name.startswith(("conv3", "conv4", "predictions")) for name in trainable)
    assert len(model.trainable_weights) == 2 * 6 * 3 + 2
    with pytest.raises(ValueError, match=r"no layer .conv2_block9_out.\. Did you mean"):
        kd.freeze(model, "conv2_block9_out")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_preprocess_input(rng, dtype):
    x = rng.integers(0, 256, (2, 8, 8, 3)).astype(dtype)
    kept = x.copy()
    expected = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(kd.preprocess_input(x, "resnet50"), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_allclose(
        kd.preprocess_input(keras.ops.convert_to_tensor(x), "resnet50"), expected, rtol=1e-4, atol=1e-5
    )
    inside = kd.ResNet20(include_preprocessing=True)
    np.testing.assert_array_equal(kd.preprocess_input(x, inside), x)


@pytest.mark.parametrize(
    "x, model, message",
    [
        (np.zeros((1, 8, 8, 1)), "resnet20", "takes 3 channels and the images have 1"),
        (np.zeros((1, 8, 8, 3)), "resnet21", "Unknown model 'resnet21'"),
    ],
)
def test_preprocess_input_refuses(x, model, message):
    with pytest.raises(ValueError, match=message):
        kd.preprocess_input(x, model)


def test_decode_predictions():
    probabilities = np.zeros((2, 1000))
    probabilities[0, 281], probabilities[0, 285], probabilities[1, 0] = 0.6, 0.3, 1
    decoded = kd.decode_predictions(probabilities, top=2)
    assert decoded[0] == [("n02123045", "tabby", 0.6), ("n02124075", "Egyptian_cat", 0.3)]
    assert decoded[1][0] == ("n01440764", "tench", 1.0)
    assert kd.decode_predictions(np.array([[0.2, 0.8]]), labels=["no", "yes"]) == [
        [("1", "yes", 0.8), ("0", "no", 0.2)]
    ]
    with pytest.raises(ValueError, match="names of the 2 classes are unknown"):
        kd.decode_predictions(np.array([[0.2, 0.8]]))
    with pytest.raises(ValueError, match="1 labels were given for 2 classes"):
        kd.decode_predictions(np.array([[0.2, 0.8]]), labels=["no"])
