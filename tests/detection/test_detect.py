"""Images of any size: resizing, padding, boxes in the original image, files and errors."""

import math

import numpy as np
import pytest
from PIL import Image

from keras_deepnets.detection import detect, detecting, resizing
from tests.detection import common

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def model():
    return common.small_detector(score_threshold=0.0)


def torchvision_size(height, width, min_size, max_size):
    """`_resize_image_and_masks`, and what `interpolate` makes of its factor."""
    scale = min(min_size / min(height, width), max_size / max(height, width))
    return math.floor(float(height) * scale), math.floor(float(width) * scale)


def test_sizes_are_those_of_torchvision():
    assert resizing.resized_size(375, 500, 800, 1333) == (800, 1066)
    assert resizing.resized_size(480, 640, 800, 1333) == (800, 1066)
    assert resizing.resized_size(427, 640, 800, 1333) == (800, 1199)
    assert resizing.resized_size(500, 353, 600, 1000) == (849, 600)
    assert resizing.resized_size(200, 2000, 800, 1333) == (133, 1333)
    assert resizing.resized_size(3000, 2, 800, 1333) == (1333, 1)
    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 2000, (500, 2)).tolist():
        assert resizing.resized_size(height, width, 800, 1333) == torchvision_size(height, width, 800, 1333)


def test_padding():
    assert [resizing.padded_side(side) for side in (1, 32, 33, 800, 1066)] == [32, 32, 64, 800, 1088]
    pixels = [np.full((20, 30, 3), 100, "uint8"), np.full((40, 20, 3), 200, "uint8")]
    batch, sizes = resizing.batched(pixels, 40, 90)
    assert batch.shape == (2, 96, 64, 3) and batch.dtype == np.float32
    assert sizes.tolist() == [[40, 60], [80, 40]] and sizes.dtype == np.int32
    for image, (height, width), value in zip(batch, sizes, (100, 200), strict=True):
        np.testing.assert_array_equal(image[:height, :width], value)
        assert not image[height:].any() and not image[:, width:].any()


def test_resizing_interpolates_with_half_pixel_centres():
    column = np.array([0, 100], "uint8")
    image = np.broadcast_to(column[:, None, None], (2, 2, 3))
    found = np.asarray(resizing.resized(image, 4, 2))[:, 0, 0]
    np.testing.assert_allclose(found, [0, 25, 75, 100])
    wide = np.broadcast_to(np.arange(0, 240, 30, dtype="uint8")[None, :, None], (2, 8, 3))
    # Without anti-aliasing: of eight pixels to two, the means of two neighbours each.
    np.testing.assert_allclose(np.asarray(resizing.resized(wide, 2, 2))[0, :, 0], [45, 165])


def test_boxes_return_to_the_original():
    boxes = np.array([[10, 20, 60, 40]], "float32")
    np.testing.assert_allclose(resizing.restored(boxes, (40, 60), (20, 30, 3)), [[5, 10, 30, 20]])
    np.testing.assert_allclose(resizing.restored(boxes, (799, 1066), (375, 500)), boxes * [[500 / 1066, 375 / 799] * 2])
    assert resizing.restored(np.zeros((0, 4), "float32"), (40, 60), (20, 30)).shape == (0, 4)


def test_detect_gives_boxes_in_the_given_image(model, rng):
    image = rng.integers(0, 255, (32, 48, 3)).astype("uint8")
    (found,) = detect(model, image)
    batch = np.asarray(resizing.resized(image, 64, 96))[None]
    raw = {name: np.asarray(value) for name, value in model({"images": batch, "sizes": np.array([[64, 96]])}).items()}
    count = raw["count"][0]
    assert count == len(found["boxes"]) == 10
    np.testing.assert_allclose(found["boxes"], raw["boxes"][0, :count] / 2, atol=1e-3)
    np.testing.assert_allclose(found["scores"], raw["scores"][0, :count], atol=1e-5)
    np.testing.assert_array_equal(found["labels"], raw["labels"][0, :count])
    assert {name: str(value.dtype) for name, value in found.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "labels": "int64",
    }
    assert found["boxes"][:, 2].max() <= 48 and found["boxes"][:, 3].max() <= 32


def test_a_batch_gives_the_same_as_one_by_one(model, rng):
    # All have the size 64 × 96 after resizing, so no padding differs.
    images = [rng.integers(0, 255, (*size, 3)).astype("uint8") for size in ((64, 96), (32, 48), (128, 192))]
    alone = [detect(model, image)[0] for image in images]
    for batch_size in (2, 3):
        for one, other in zip(alone, detect(model, images, batch_size=batch_size), strict=True):
            np.testing.assert_array_equal(one["labels"], other["labels"])
            np.testing.assert_allclose(one["boxes"], other["boxes"], atol=1e-2)
            np.testing.assert_allclose(one["scores"], other["scores"], atol=1e-5)


def test_images_of_different_sizes(model, rng):
    images = [rng.integers(0, 255, (*size, 3)).astype("uint8") for size in ((30, 200), (70, 41))]
    for image, found in zip(images, detect(model, images, batch_size=2), strict=True):
        assert len(found["boxes"]) == 10
        assert (found["boxes"] >= 0).all() and (found["boxes"] <= np.array(image.shape)[[1, 0, 1, 0]] + 1e-3).all()


def test_nothing_to_detect():
    assert detect(common.small_detector(), []) == []


def test_files(model, rng, tmp_path):
    pixels = rng.integers(0, 255, (64, 96, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.png")
    (expected,) = detect(model, pixels)
    np.testing.assert_array_equal(detecting.as_pixels(tmp_path / "image.png"), pixels)
    # The same pixels, but once a coordinate differed by 5e-7. The cause is not known.
    for given in (tmp_path / "image.png", str(tmp_path / "image.png")):
        (found,) = detect(model, given)
        np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-3)
    grey = detecting.as_pixels(tmp_path / "grey.png")
    assert grey.shape == (64, 96, 3) and (grey == grey[..., :1]).all()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_rotated_files_are_upright(tmp_path, orientation, turns):
    rows, columns = np.mgrid[:40, :64]
    pixels = np.stack([4 * rows, 3 * columns, 0 * rows], -1).astype("uint8")
    note = Image.Exif()
    note[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "image.jpg", quality=95, subsampling=0, exif=note)
    found = detecting.as_pixels(tmp_path / "image.jpg")
    expected = np.rot90(pixels, turns)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 3


def test_errors(model, tmp_path):
    pixels = np.zeros((8, 8, 3), "uint8")
    (tmp_path / "text.jpg").write_text("no image")
    for given, message in (
        (pixels.astype("float32"), r"an image is float32 \(8, 8, 3\); give uint8"),
        (pixels[..., 0], r"an image is uint8 \(8, 8\); give uint8"),
        (np.zeros((8, 8, 4), "uint8"), r"an image is uint8 \(8, 8, 4\)"),
        (pixels[:0], r"an image is uint8 \(0, 8, 3\)"),
        (tmp_path / "missing.jpg", "missing.jpg cannot be read: No such file"),
        (tmp_path / "text.jpg", "text.jpg is not an image that can be decoded"),
        ([pixels, "nothing.png"], "nothing.png cannot be read"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            detect(model, given)
        assert "\n" not in str(caught.value)
    for size in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="batch_size"):
            detect(model, pixels, batch_size=size)
    with pytest.raises(ValueError, match="is not a detector"):
        detect(common.backbone(), pixels)
