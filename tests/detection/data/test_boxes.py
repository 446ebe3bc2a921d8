import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.data import orientation
from keras_deepnets.detection.data import boxes, geometry
from keras_deepnets.errors import InputError


def some(rng, count=50):
    corner = rng.uniform(0, 300, (count, 2))
    size = rng.uniform(1, 200, (count, 2))
    return np.concatenate([corner, corner + size], axis=1)


def in_format(xyxy, name, width, height):
    """The same boxes in another format."""
    x1, y1, x2, y2 = xyxy.T
    kind = name.removeprefix("rel_")
    found = {
        "xyxy": (x1, y1, x2, y2),
        "yxyx": (y1, x1, y2, x2),
        "xywh": (x1, y1, x2 - x1, y2 - y1),
        "center_xywh": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
    }[kind]
    scale = [height, width, height, width] if kind == "yxyx" else [width, height, width, height]
    return np.stack(found, axis=1) / (scale if name != kind else 1)


@pytest.mark.parametrize("relative", ["", "rel_"])
@pytest.mark.parametrize("kind", boxes.FORMATS)
def test_formats(rng, kind, relative):
    expected = some(rng)
    given = in_format(expected, relative + kind, 640, 480)
    np.testing.assert_allclose(boxes.to_xyxy(given, relative + kind, 640, 480), expected, atol=1e-9)


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="box format 'xy' is unknown"):
        boxes.to_xyxy(np.zeros((1, 4)), "xy")


def test_no_boxes():
    assert boxes.to_xyxy([], "xywh").shape == (0, 4)
    assert boxes.turn(np.zeros((0, 4)), 6, 4, 3).shape == (0, 4)


@pytest.mark.parametrize("number", range(1, 9))
def test_boxes_turn_as_pixels_do(number):
    image = np.zeros((5, 9, 1), np.uint8)
    image[1:3, 2:8] = 1
    rows, columns, _ = np.nonzero(orientation.upright(tf.constant(image), tf.constant(number)).numpy())
    turned = boxes.turn(np.array([[2, 1, 8, 3]]), number, 9, 5)
    assert turned.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


@pytest.mark.parametrize("source", ["xyxy", "xywh", "center_xywh", "yxyx", "rel_xyxy", "rel_xywh", "rel_yxyx"])
def test_the_converter_of_keras_cv_agrees(rng, source):
    """It rounds to float32."""
    bounding_box = pytest.importorskip("keras_cv.bounding_box")
    given = in_format(some(rng), source, 640, 480)
    image = np.zeros((480, 640, 3), np.float32)
    found = bounding_box.convert_format(given.astype(np.float32), source=source, target="xyxy", images=image)
    np.testing.assert_allclose(np.asarray(found), boxes.to_xyxy(given, source, 640, 480), rtol=1e-6, atol=1e-4)


def test_the_flip_of_keras_cv_agrees(rng):
    layers = pytest.importorskip("keras_cv.layers")
    given = some(rng, 6).astype(np.float32)
    image = rng.uniform(0, 255, (500, 520, 3)).astype(np.float32)
    sample = {"image": tf.constant(image), "boxes": tf.constant(given)}
    ours = geometry.flip(sample)
    layer = layers.RandomFlip("horizontal", rate=1.0, bounding_box_format="xyxy")
    batch = {"images": image[None], "bounding_boxes": {"boxes": given[None], "classes": np.ones((1, 6), np.float32)}}
    theirs = layer(batch, training=True)
    np.testing.assert_array_equal(theirs["images"][0], ours["image"])
    np.testing.assert_allclose(theirs["bounding_boxes"]["boxes"][0], ours["boxes"], atol=1e-3)
