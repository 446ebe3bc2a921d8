"""Every kind of image file: what an export sees of it is what the data pipeline shows the network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_deepnets as kd
from keras_deepnets import data, export
from tests.export.conftest import keras_probabilities, photographs

pytestmark = pytest.mark.integration

SIDE = 12


def alpha(size):
    return np.linspace(0, 255, size[0] * size[1]).reshape(size).astype("uint8")


def with_alpha(mode):
    def converted(image):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(alpha(image.size[::-1])))
        return image

    return converted


def deep(image):
    """Grey in 16 bits."""
    return Image.fromarray(np.asarray(image.convert("L")).astype("uint16") * 257 - 100)


# Name of the file → how the picture is written.
KINDS = {
    "baseline.jpg": (lambda image: image, {"quality": 90}),
    "progressive.jpg": (lambda image: image, {"quality": 90, "progressive": True}),
    "unsampled.jpeg": (lambda image: image, {"quality": 75, "subsampling": 0}),
    "grey.jpg": (lambda image: image.convert("L"), {}),
    "cmyk.jpg": (lambda image: image.convert("CMYK"), {}),
    "rgb.png": (lambda image: image, {}),
    "grey.png": (lambda image: image.convert("L"), {}),
    "grey_alpha.png": (with_alpha("L"), {}),
    "rgb_alpha.png": (with_alpha("RGB"), {}),
    "palette.png": (lambda image: image.quantize(200), {}),
    "transparent_palette.png": (lambda image: image.quantize(16), {"transparency": 3}),
    "bits.png": (lambda image: image.convert("1"), {}),
    "deep.png": (deep, {}),
    "rgb.bmp": (lambda image: image, {}),
    "grey.bmp": (lambda image: image.convert("L"), {}),
    "palette.bmp": (lambda image: image.quantize(100), {}),
    "still.gif": (lambda image: image, {}),
    "moving.gif": (
        lambda image: image,
        {"save_all": True, "append_images": [Image.new("RGB", (33, 21), colour) for colour in ("red", "blue")]},
    ),
}
SIZES = {"palette.png": (SIDE, SIDE), "rgb.bmp": (1, 40), "grey.jpg": (90, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of each kind, in two class folders."""
    folder = tmp_path_factory.mktemp("kinds")
    for number, (name, (convert, options)) in enumerate(KINDS.items()):
        path = folder / f"class {number % 2}" / name
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(photographs(1, *SIZES.get(name, (21, 33)), seed=number)[0])
        convert(image).save(path, **options)
    return folder


def looking(channels, scaling):
    """A network whose features are the pixels that it sees."""
    inputs = keras.Input((SIDE, SIDE, channels))
    keras.utils.set_random_seed(8)
    pixels = keras.layers.Flatten()(inputs)
    outputs = keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(0, 1e-3))(pixels)
    model = keras.Model(inputs, outputs, name="looking")
    model.scaling = scaling
    return model


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
def test_every_kind_of_file_is_seen_as_the_data_pipeline_shows_it(channels, interpolation, folder, tmp_path):
    scaling = kd.Scaling((0,) * channels, (1,) * channels, crop_fraction=0.875, interpolation=interpolation)
    model = looking(channels, scaling)
    images = data.load(folder, "all")
    assert images.size == len(KINDS)
    batches = images.batches(5, SIDE, channels, crop_fraction=0.875, interpolation=interpolation)
    views = np.concatenate([batch.numpy() for batch, _ in batches])
    files = [(folder / name).read_bytes() for name in images.store.names]
    served = tf.saved_model.load(str(export.saved_model(model, tmp_path, features=True))).signatures["serving_default"]
    found = served(image_bytes=tf.constant(files))
    for name, seen, shown in zip(images.store.names, found["features"], views, strict=True):
        np.testing.assert_array_equal(np.reshape(seen, shown.shape), shown, err_msg=name)
    expected = keras_probabilities(model, views.astype("float32"))
    assert np.ptp(expected, axis=0).min() > 0.03  # files make a difference
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)
    np.testing.assert_array_equal(found["classes"], expected.argmax(-1))


@pytest.mark.parametrize("name", list(KINDS))
def test_the_pixels_are_those_that_pil_reads(name, folder):
    (path,) = folder.rglob(name)
    with Image.open(path) as image:
        expected = np.asarray(image if name != "deep.png" else deep_to_eight(image))
        if name != "deep.png":
            expected = np.asarray(image.convert("RGBA" if "alpha" in name else "RGB"))[..., :3]
    found = data.transforms.decode(path.read_bytes()).numpy()
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() == 0


def deep_to_eight(image):
    values = np.asarray(image).astype(int)
    return np.repeat((values >> 8)[..., None], 3, -1)
