import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.detection.data import augmentation, geometry
from keras_deepnets.errors import InputError


def sample(height=48, width=64, corners=((10, 5, 30, 25), (40, 20, 64, 48), (0, 0, 8, 6))):
    """An image whose channels are row, column and 7, with boxes. The place of each pixel is thus known after any crop."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)
    count = len(corners)
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(np.reshape(corners, (count, 4)), tf.float32),
        "labels": tf.constant(np.arange(1, count + 1)),
        "crowd": tf.constant([False] * count),
        "difficult": tf.constant([True] * count),
        "factor": tf.constant(1.0, tf.float64),
    }


def apply(text, given, draws):
    policy = augmentation.get(text)
    assert policy.draws == len(draws)
    return {key: value.numpy() for key, value in policy.apply(given, tf.constant(draws, tf.float32)).items()}


def origin(image):
    """Left and top of a crop in the original image."""
    return int(image[0, 0, 1]), int(image[0, 0, 0])


def test_flip_mirrors_image_and_boxes():
    given = sample()
    flipped = apply("flip", given, [0.49])
    np.testing.assert_array_equal(flipped["image"], given["image"][:, ::-1])
    assert flipped["boxes"].tolist() == [[34, 5, 54, 25], [0, 20, 24, 48], [56, 0, 64, 6]]
    assert flipped["labels"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(apply("flip", given, [0.5])["boxes"], given["boxes"])
    np.testing.assert_array_equal(apply("flip(1)", given, [0.99])["boxes"], flipped["boxes"])


def test_scale_jitter_multiplies_the_size():
    given = sample()
    jittered = apply("scale_jitter(0.5, 1.5)", given, [0.25])
    assert jittered["factor"] == 0.75
    assert geometry.target_size(jittered, 96, 1000).numpy().tolist() == [72, 96]
    assert geometry.target_size(given, 96, 100).numpy().tolist() == [75, 100]
    assert geometry.target_size(given, None, None).numpy().tolist() == [48, 64]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 640), (800, 1066)), ((333, 500), (800, 1201)), ((64, 48), (1066, 800)), ((427, 640), (800, 1199))],
)
def test_sizes_are_those_of_torchvision(shape, expected):
    given = {"image": tf.zeros((*shape, 3)), "factor": tf.constant(1.0, tf.float64)}
    assert tuple(geometry.target_size(given, 800, 1333).numpy()) == expected


def bilinear(image, height, width):
    """Half-pixel centres, without antialiasing."""
    for axis, size in enumerate((height, width)):
        old = image.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        weight = (place - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        high = np.minimum(low + 1, old - 1)
        image = np.take(image, low, axis) * (1 - weight) + np.take(image, high, axis) * weight
    return image


@pytest.mark.parametrize("size", [(20, 31), (96, 128), (100, 50)])
def test_resizing_is_bilinear_and_boxes_follow(rng, size):
    given = sample() | {"image": tf.constant(rng.integers(0, 256, (48, 64, 3), np.uint8))}
    resized = geometry.resize(given, tf.constant(size))
    expected = bilinear(given["image"].numpy().astype(np.float64), *size)
    np.testing.assert_allclose(resized["image"], expected, atol=2e-3)
    ratios = np.array([size[1] / 64, size[0] / 48] * 2)
    np.testing.assert_allclose(resized["boxes"], given["boxes"].numpy() * ratios, rtol=1e-6)


@pytest.mark.parametrize("number", range(20))
def test_crop_keeps_visible_objects(number):
    given = sample()
    draws = np.random.default_rng(number).uniform(size=4)
    cropped = apply("crop(0.4, 0.5)", given, draws)
    check_crop(given, cropped)
    left, top = origin(cropped["image"])
    height, width = cropped["image"].shape[:2]
    areas = []
    for x1, y1, x2, y2 in given["boxes"].numpy():
        shown = max(0, min(x2, left + width) - max(x1, left)) * max(0, min(y2, top + height) - max(y1, top))
        areas.append(shown / ((x2 - x1) * (y2 - y1)))
    expected = [label for label, share in enumerate(areas, start=1) if share >= 0.5]
    assert cropped["labels"].tolist() == (expected or [1, 2, 3])


def check_crop(given, cropped):
    """The crop is a part of the image, and its boxes are the clipped boxes of the kept objects."""
    left, top = origin(cropped["image"])
    height, width = cropped["image"].shape[:2]
    np.testing.assert_array_equal(cropped["image"], given["image"][top : top + height, left : left + width])
    kept = given["boxes"].numpy()[cropped["labels"] - 1]
    expected = np.clip(kept - [left, top, left, top], 0, [width, height, width, height])
    np.testing.assert_array_equal(cropped["boxes"], expected)
    x1, y1, x2, y2 = cropped["boxes"].T
    assert (x2 > x1).all() and (y2 > y1).all()
    assert len(cropped["crowd"]) == len(cropped["difficult"]) == len(kept)


def test_a_crop_without_objects_is_not_used():
    given = sample(corners=[(0, 0, 4, 4)])
    cropped = apply("crop(0.3)", given, [0, 0, 0.99, 0.99])
    assert cropped["image"].shape == (48, 64, 3) and cropped["labels"].tolist() == [1]
    empty = apply("crop(0.5)", sample(corners=()), [0, 0, 0.99, 0.99])
    assert empty["image"].shape == (24, 32, 3) and empty["boxes"].shape == (0, 4)


@pytest.mark.parametrize("number", range(20))
def test_iou_crop_overlaps_an_object(number):
    given = sample()
    draws = np.random.default_rng(number).uniform(size=3)
    least = geometry.OVERLAPS[int(np.float32(draws[0]) * 7)]
    cropped = apply("iou_crop", given, draws)
    check_crop(given, cropped)
    height, width = cropped["image"].shape[:2]
    if (height, width) == (48, 64):
        assert cropped["labels"].tolist() == [1, 2, 3]
        return
    assert least < 1 and 0.5 <= width / height <= 2
    left, top = origin(cropped["image"])
    centres = (given["boxes"].numpy()[:, :2] + given["boxes"].numpy()[:, 2:]) / 2 - [left, top]
    inside = (centres > 0).all(axis=1) & (centres < [width, height]).all(axis=1)
    assert cropped["labels"].tolist() == (np.flatnonzero(inside) + 1).tolist() != []
    full = given["boxes"].numpy()[inside]
    shown = (cropped["boxes"][:, 2:] - cropped["boxes"][:, :2]).prod(axis=1)
    union = (full[:, 2:] - full[:, :2]).prod(axis=1) + height * width - shown
    assert (shown / union).max() >= least


def test_iou_crop_without_objects_keeps_the_image():
    cropped = apply("iou_crop", sample(corners=()), [0.2, 0.3, 0.4])
    assert cropped["image"].shape == (48, 64, 3) and cropped["boxes"].shape == (0, 4)


def test_large_scale_jitter_crops_to_the_square():
    given = sample()
    small = apply("large_scale_jitter(0.1, 2, 128)", given, [0.0, 0.5, 0.5])
    assert small["image"].shape == (9, 12, 3) and small["labels"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(small["boxes"][1], [40 * 12 / 64, 20 * 9 / 48, 12, 9], rtol=1e-6)
    large = apply("large_scale_jitter(2, 2, 128)", given, [0.5, 0.0, 0.999])
    assert large["image"].shape == (128, 128, 3)  # 192 x 256 pixels, cropped at the top and right
    assert large["labels"].tolist() == [2]
    np.testing.assert_allclose(large["boxes"], [[160 - 128, 80, 128, 128]])
    centre = large["image"][64, 64]
    np.testing.assert_allclose(centre[:2], [64.5 / 4 - 0.5, (64.5 + 128) / 4 - 0.5], atol=1e-3)


def test_colour_leaves_the_boxes():
    given = sample()
    changed = apply("colour_jitter(0.5)", given, [0.1, 0.9, 0.2, 0.7])
    np.testing.assert_array_equal(changed["boxes"], given["boxes"])
    assert changed["image"].dtype == np.uint8 and not np.array_equal(changed["image"], given["image"])
    same = apply("color_jitter(0)", given, [0.1, 0.9, 0.2, 0.7])
    np.testing.assert_array_equal(same["image"], given["image"])


def test_policies_are_applied_in_order():
    given = sample()
    both = apply("flip + crop(0.5)", given, [0.1, 0.2, 0.3, 0.4, 0.5])
    expected = apply("crop(0.5)", geometry.flip(given), [0.2, 0.3, 0.4, 0.5])
    np.testing.assert_array_equal(both["image"], expected["image"])
    np.testing.assert_array_equal(both["boxes"], expected["boxes"])
    policy = augmentation.get("flip+scale_jitter(high=1.25)+colour_jitter")
    assert (policy.name, policy.draws) == ("flip+scale_jitter(high=1.25)+colour_jitter", 6)
    assert (policy.factor, policy.size, policy.crops) == (1.25, None, False)
    assert augmentation.get(policy) is policy and augmentation.get(None) == augmentation.get("none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spin", "'spin' is unknown; choose None or one of flip, scale_jitter"),
        ("flip(2)", "probability=2 must be above 0 and at most 1"),
        ("flip(x)", r"write it as flip\(probability=0.5\)"),
        ("scale_jitter(2, 1)", "low=2 must be above 0 and must not exceed high=1"),
        ("scale_jitter(-1, 1)", "must be a non-negative number"),
        ("large_scale_jitter(0.1, 2, 0.5)", "size=0.5 must be a whole number of pixels"),
        ("scale_jitter+large_scale_jitter", "both choose the size"),
        ("crop(0)", "smallest=0 must be above 0"),
    ],
)
def test_bad_texts(text, message):
    with pytest.raises(InputError, match=message):
        augmentation.get(text)
