"""A small detector and pictures. Models and exports are made once: building and converting is what takes time."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import detection, export
from keras_deepnets.detection import detecting
from tests.export.conftest import photographs, unsettle

LABELS = ("background", "cat", "dög", "owl")
SIZES = ((100, 140), (300, 120), (90, 90), (133, 271))


def small_detector(**options):
    """A feature pyramid on a narrow ResNet: 3 MB of weights. The epsilon of its normalisations is 0, as of every frozen one."""
    keras.utils.set_random_seed(3)
    backbone = unsettle(kd.ResNet(False, blocks=(1, 1, 1, 1), filters=(8, 16, 16, 32), input_shape=(None, None, 3)))
    chosen = {"min_size": 128, "max_size": 192, "pyramid_channels": 8, "score_threshold": 0.1, "detections": 30}
    chosen |= {"candidates": 60, "proposals": 50, "nms_threshold": 0.4}
    model = detection.FasterRCNN(backbone, classes=4, name="small", **chosen | options)
    for weight in model.weights:  # regressions that move boxes, and scores that differ
        if "predictions" in weight.path and "kernel" in weight.path:
            weight.assign(np.random.default_rng(4).normal(0, 0.2, weight.shape))
        elif ("rpn_objectness" in weight.path or "rpn_deltas" in weight.path) and "kernel" in weight.path:
            weight.assign(np.random.default_rng(5).normal(0, 0.3, weight.shape))
    return model


def images_of(sizes=SIZES):
    return [photographs(1, *size, seed=sum(size))[0] for size in sizes]


def png(image):
    return tf.io.encode_png(image).numpy()


def jpeg_turned(image, orientation):
    """A JPEG of good quality with an EXIF orientation."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def assert_same(found, expected, pixels=1e-3, scores=1e-5):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["labels"], other["labels"])
        np.testing.assert_allclose(one["boxes"], other["boxes"], atol=pixels, rtol=0)
        np.testing.assert_allclose(one["scores"], other["scores"], atol=scores, rtol=0)
        assert {name: value.dtype.name for name, value in one.items()} == {
            "boxes": "float32",
            "scores": "float32",
            "labels": "int64",
        }


def at_fixed_size(model, images, height, width):
    """What Keras finds in the images that a single-file export sees."""
    from keras_deepnets.detection.export import fixed

    given = [fixed.inputs(image, height, width) for image in images]
    return [
        fixed.result(detecting.run(model, each), each["sizes"], image.shape)
        for each, image in zip(given, images, strict=True)
    ]


@pytest.fixture(scope="session")
def small():
    return small_detector()


@pytest.fixture(scope="session")
def images():
    return images_of()


@pytest.fixture(scope="session")
def folder(small, tmp_path_factory):
    """Versions 1 (an error fails a request) and 2 (an error is skipped), made by `kd.export`."""
    folder = tmp_path_factory.mktemp("served") / "small"
    export.saved_model(small, folder, LABELS, data="pets", accuracy={"AP": 0.5})
    export.saved_model(small, folder, LABELS, on_error="skip", batch_sizes=(1, 3))
    return folder


@pytest.fixture(scope="session")
def tflite_file(small, tmp_path_factory):
    return export.tflite(small, tmp_path_factory.mktemp("tflite") / "small.tflite", image_size=(96, 160), labels=LABELS)
