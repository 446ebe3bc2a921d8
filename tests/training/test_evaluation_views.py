"""Ten crops and several scales against crops cut by hand, one image at a time."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import graphs
from keras_deepnets.data import stores, transforms
from keras_deepnets.errors import InputError
from keras_deepnets.training import evaluate, feed
from keras_deepnets.training.evaluation import Tally, add_all
from tests.training.common import images, network

pytestmark = pytest.mark.integration

SIDE = 8
SCALING = kd.Scaling((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), "BGR", crop_fraction=0.8)


def pictures(shapes, seed=5, classes=6):
    """Random images of the given heights and widths, class by class."""
    rng = np.random.default_rng(seed)
    found = [rng.integers(0, 256, (*shape, 3)).astype("uint8") for shape in shapes]
    labels = rng.integers(0, classes, len(shapes))
    same = len(set(shapes)) == 1
    store = stores.from_arrays(np.stack(found), labels) if same else stores.from_images(found, labels)
    return kd.data.ImageData("noise", "test", tuple("abcdef")[:classes], store), found, labels


def classifier(activation, head="flatten", scaling=SCALING):
    """Looks at where things are (flatten) or at what there is (pool)."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, activation="relu", kernel_initializer="he_normal")(inputs)
    x = keras.layers.Flatten()(x) if head == "flatten" else keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(6, activation, kernel_initializer=keras.initializers.RandomNormal(stddev=0.3))(x)
    model = keras.Model(inputs, outputs)
    model.scaling = scaling
    return model


def probabilities(model, pixels):
    """Of uint8 images, in double precision."""
    outputs = np.asarray(model(SCALING.apply(np.asarray(pixels)))).astype(np.float64)
    if model.layers[-1].activation.__name__ == "softmax":
        return outputs
    return np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)


def check(found, expected, labels):
    """`found` is what the probabilities `[n, 6]` say by loops."""
    confusion = np.zeros((6, 6), int)
    for row, label in zip(expected, labels, strict=True):
        confusion[label, row.argmax()] += 1
    top5 = [label in np.argsort(-row)[:5] for row, label in zip(expected, labels, strict=True)]
    np.testing.assert_array_equal(found.confusion, confusion)
    assert found.size == len(labels)
    assert found.top1 == np.trace(confusion) / len(labels)
    assert found.top5 == np.mean(top5)
    loss = -np.mean([np.log(row[label]) for row, label in zip(expected, labels, strict=True)])
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)


def by_hand(image):
    """The ten crops of an image 12 × 15, of which 8 of 10 pixels are to be kept."""
    resized = transforms.evaluation_view(image, 10, 12).numpy()
    corners = [resized[:8, :8], resized[:8, -8:], resized[-8:, :8], resized[-8:, -8:], resized[1:9, 2:10]]
    return np.stack(corners + [crop[:, ::-1] for crop in corners])


@pytest.mark.parametrize("activation", ["softmax", "linear"])
@pytest.mark.parametrize("batch_size", [4, 30, 256])
def test_ten_crops_against_numpy(activation, batch_size):
    data, found, labels = pictures([(12, 15)] * 23)
    model = classifier(activation)
    expected = np.stack([probabilities(model, by_hand(image)).mean(0) for image in found])
    check(evaluate(model, data, batch_size, crops=10), expected, labels)
    views = transforms.evaluation_view(np.stack(found), 8, 8, crop_fraction=0.8).numpy()
    centre = probabilities(model, views)
    check(evaluate(model, data, batch_size), centre, labels)
    assert evaluate(model, data, crops=10).loss != evaluate(model, data).loss


def test_ten_crops_of_images_of_many_sizes():
    shapes = [(12, 15), (20, 10), (8, 8), (9, 31)] * 3
    data, found, labels = pictures(shapes)
    model = classifier("softmax")
    expected = []
    for image in found:
        height, width = image.shape[:2]
        size = (8, 8) if (height, width) == (8, 8) else (10, 10 * width // height)
        size = (10 * height // width, 10) if height > width else size
        resized = transforms.evaluation_view(image, *size).numpy()
        top, left = (round((side - 8) / 2) for side in size)
        bottom, right = size[0] - 8, size[1] - 8
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (top, left)]
        crops = [resized[y : y + 8, x : x + 8] for y, x in places]
        expected.append(probabilities(model, crops + [crop[:, ::-1] for crop in crops]).mean(0))
    check(evaluate(model, data, 40, crops=10), np.stack(expected), labels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "area"])
def test_the_fifth_crop_is_the_evaluation_view(rng, interpolation):
    batch = rng.integers(0, 256, (2, 50, 43, 3)).astype("uint8")
    crops = transforms.ten_crops(batch, 14, 14, 3, 0.875, interpolation).numpy()
    view = transforms.evaluation_view(batch, 14, 14, 3, 0.875, interpolation).numpy()
    assert crops.shape == (2, 10, 14, 14, 3) and crops.dtype == np.uint8
    assert np.abs(crops[:, 4].astype(int) - view).max() <= 1
    np.testing.assert_array_equal(crops[:, 5:], crops[:, :5, :, ::-1])
    np.testing.assert_array_equal(transforms.ten_crops(batch[0], 14, 14, 3, 0.875, interpolation).numpy(), crops[0])
    grey = transforms.ten_crops(batch, 14, 14, 1, 0.875, interpolation).numpy()
    assert grey.shape == (2, 10, 14, 14, 1)


def test_at_most_so_many_crops_a_step():
    data, *_ = pictures([(12, 15)] * 23)
    sizes = [len(labels) for _, labels in feed.ten_crops(classifier("softmax"), data, 100)]
    assert sizes == [8, 8, 7]


@pytest.mark.parametrize("activation", ["softmax", "linear"])
@pytest.mark.parametrize("batch_size", [2, 256])
def test_scales_against_numpy(activation, batch_size):
    shapes = [(12, 15), (20, 10), (12, 15), (8, 8), (9, 31)] * 3
    data, found, labels = pictures(shapes)
    model, scales = classifier(activation, "pool"), (8, 11, 16)
    convolution, dense = (layer.get_weights() for layer in (model.layers[1], model.layers[3]))
    expected = []
    for image in found:
        height, width = image.shape[:2]
        rows = []
        for side in scales:
            size = (side, side * width // height) if height < width else (side * height // width, side)
            resized = SCALING.apply(transforms.evaluation_view(image, *size).numpy()).astype(np.float64)
            maps = np.zeros(((size[0] - 3) // 2 + 1, (size[1] - 3) // 2 + 1, 5))
            for y, x in np.ndindex(maps.shape[:2]):
                patch = resized[2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
                maps[y, x] = np.maximum(np.tensordot(patch, convolution[0], 3) + convolution[1], 0)
            logits = maps.mean((0, 1)) @ dense[0] + dense[1]
            rows.append(np.exp(logits) / np.exp(logits).sum())
        expected.append(np.mean(rows, 0))
    check(evaluate(model, data, batch_size, scales=scales), np.stack(expected), labels)


def test_no_more_pixels_at_once_than_the_batch_has(monkeypatch):
    data, *_ = pictures([(16, 16)] * 40)
    model, steps = classifier("softmax", "pool"), []
    predict = keras.Model.predict_on_batch

    def counting(self, x):
        steps.append(x.shape[:3])
        return predict(self, x)

    monkeypatch.setattr(keras.Model, "predict_on_batch", counting)
    evaluate(model, data, 20, scales=(8, 16))
    tried, steps = steps[:2], steps[2:]
    assert tried == [(1, 8, 8), (1, 16, 16)]
    assert steps == [(20, 8, 8), *[(5, 16, 16)] * 4] * 2


IMAGENET = {"input_shape": (64, 64, 3)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ResNet", {**IMAGENET, "blocks": (1, 1), "filters": (8, 16)}),
        (
            "ResNet",
            {
                **IMAGENET,
                "blocks": (2, 1, 1),
                "filters": (16, 32, 64),
                "shortcut": "D",
                "attention": "se",
                "block_layers": True,
            },
        ),
        ("PreActResNet", {**IMAGENET, "blocks": (2, 2), "filters": (8, 16), "form": "keras", "block_layers": True}),
        ("ResNeXt", {**IMAGENET, "blocks": (1, 2), "filters": (64, 128), "groups": 4, "base_width": 4}),
        ("ResNet20", {}),
        ("ResNet", {"depth": 20, "stem": "cifar", "shortcut": "A", "block_layers": True}),
        ("DenseNet", {**IMAGENET, "blocks": (2, 3), "growth_rate": 8}),
        ("FitNet1", {}),
        ("Highway1", {}),
    ],
)
def test_our_networks_at_other_sizes(rng, name, options):
    """The rebuilt network is the one that the constructor makes for that size."""
    arguments = {"classes": 3, "classifier_activation": None, "include_preprocessing": True} | options
    model = getattr(kd, name)(**arguments)
    copy = graphs.rebuild(model, any_size=True)
    assert copy.input_shape == (None, None, None, 3)
    assert copy.labels == model.labels and copy.architecture == model.architecture
    other = getattr(kd, name)(**arguments | {"input_shape": (40, 51, 3)})
    other.set_weights(model.get_weights())
    pixels = rng.integers(0, 256, (2, 40, 51, 3)).astype("uint8")
    pixels[1] //= 4
    expected = other.predict_on_batch(pixels)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(copy.predict_on_batch(pixels), expected, rtol=0, atol=1e-4 * scale)
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * scale
    side = model.input_shape[1]
    own = rng.integers(0, 256, (2, side, side, 3)).astype("uint8")
    np.testing.assert_allclose(copy.predict_on_batch(own), model.predict_on_batch(own), rtol=0, atol=1e-4 * scale)


def test_a_network_in_half_precision_stays_so():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kd.ResNet(depth=20, stem="cifar", block_layers=True)
    keras.config.set_dtype_policy("float32")
    copy = graphs.rebuild(model, any_size=True)
    assert [layer.compute_dtype for layer in copy.layers[1:]] == [layer.compute_dtype for layer in model.layers[1:]]
    pixels = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(copy.predict_on_batch(pixels), model.predict_on_batch(pixels), atol=2e-3)


def test_scales_of_a_network_of_ours_with_a_new_classifier():
    data, found, labels = pictures([(10, 12)] * 6)
    keras.utils.set_random_seed(4)
    model = kd.replace_classifier(kd.ResNet20(), 6)
    other = kd.ResNet20(classes=6, input_shape=(32, 38, 3))
    other.set_weights(model.get_weights())
    pixels = [transforms.evaluation_view(image, 32, 38).numpy() for image in found]
    expected = np.asarray(other.predict_on_batch(kd.preprocess_input(np.stack(pixels), model)), np.float64)
    check(evaluate(model, data, scales=(32,)), expected, labels)


def test_nothing_to_crop():
    data = images(40)
    with pytest.raises(
        InputError,
        match=r"Ten crops need a margin around the 8×8 pixels .* leave none \(crop fraction 1\); use crops=1 \(--crops 1\)",
    ):
        evaluate(network(), data, crops=10)
    whole = classifier("softmax", scaling=kd.Scaling((0.0,) * 3, (1.0,) * 3, crop_fraction=1.0))
    for shapes in ([(16, 16)] * 3, [(16, 16), (20, 20), (16, 24)]):  # sizes that differ are not known beforehand
        with pytest.raises(InputError, match="Ten crops need a margin"):
            evaluate(whole, pictures(shapes)[0], crops=10)


def test_a_network_of_one_size():
    data, *_ = pictures([(12, 15)] * 3)
    with pytest.raises(
        InputError, match=r"takes 8×8 pixels and cannot be rebuilt for other sizes \(.*leave out the scales"
    ):
        evaluate(classifier("softmax"), data, scales=(8, 16))


def test_a_fully_connected_network():
    data = kd.data.ImageData.from_arrays(np.zeros((3, 28, 28, 1), "uint8"), np.arange(3), tuple("0123456789"))
    with pytest.raises(InputError, match=r"takes 28×28 pixels and cannot be rebuilt for other sizes"):
        evaluate(kd.HighwayMLP10(), data, scales=(28, 32))


def test_a_model_of_any_size_and_one_without_a_graph():
    data, *_ = pictures([(12, 15)] * 3)
    model = classifier("softmax", "pool")
    free = keras.Sequential([keras.Input((None, None, 3)), *model.layers[1:]])
    free.scaling = SCALING
    first, second = (evaluate(each, data, scales=(8, 16)) for each in (free, model))
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-6)

    class Own(keras.Model):
        def call(self, inputs):
            return model(inputs)

        input_shape, output_shape, labels = (None, 8, 8, 3), (None, 6), None

    own = Own()
    own.build((None, 8, 8, 3))
    with pytest.raises(InputError, match=r"cannot be rebuilt for other sizes .*is not a functional"):
        evaluate(own, data, scales=(8, 16))


def test_a_scale_that_is_too_small():
    data, *_ = pictures([(12, 15)] * 3)
    with pytest.raises(InputError, match=r"images of 2×2 pixels.*leave out that scale"):
        evaluate(classifier("softmax", "pool"), data, scales=(8, 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"crops": 5}, r"crops=5 is not 1 .* or 10"),
        ({"crops": True}, "crops=True"),
        ({"crops": 10, "scales": (8,)}, "crops=10 and scales cannot be combined"),
        ({"image_size": 8, "scales": (8,)}, "image_size=8 and scales cannot be combined"),
        ({"scales": ()}, r"scales=\(\) must be different whole numbers"),
        ({"scales": (8, 8)}, "different"),
        ({"scales": (8, 0)}, "whole numbers"),
        ({"scales": 8}, "scales=8"),
        ({"batch_size": 0, "crops": 10}, "batch_size=0"),
        ({"batch_size": 0, "scales": (8,)}, "batch_size=0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_arguments_that_do_not_go_together(words, message):
    data, *_ = pictures([(12, 15)] * 3)
    with pytest.raises(InputError, match=message):
        evaluate(classifier("softmax", "pool"), data, **words)


def test_outputs_that_are_no_numbers():
    model = network()
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    with pytest.raises(InputError, match="are NaN or infinite"):
        evaluate(model, images(40))


def of_logits(*rows):
    tally = Tally(["cat", "dog", "bird"])
    add_all(tally, iter([(np.array(rows, "float32"), np.zeros(len(rows), int), None)]), "net", len(rows), logits=True)
    return tally.evaluation(1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_infinite_logits(value):
    with pytest.raises(InputError, match="'net' gives outputs that are NaN or infinite"):
        of_logits([1, 0, 0], [0, value, 0])


def test_a_class_that_the_model_excludes():
    found = of_logits([1, 0, -np.inf], [0, 1, -np.inf])
    assert found.top1 == 0.5
    assert found.loss == pytest.approx(np.log1p(np.e) - 0.5)
