"""RoIAlign: both computations against a loop in NumPy from the definition, and against numbers of torchvision."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_deepnets.detection import RegionAlign
from keras_deepnets.detection.fast_align import align
from tests.detection import common

SIZE, SAMPLES = 3, 2


def interpolated(features, y, x):
    """Bilinear interpolation in ``[h, w, c]``: the border's value up to one pixel outside, and 0 beyond."""
    height, width = features.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(features.shape[-1])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * features[top, left] + dx * features[top, right]
    return (1 - dy) * upper + dy * ((1 - dx) * features[bottom, left] + dx * features[bottom, right])


def slow(region, features, level, size=SIZE, samples=SAMPLES):
    """The features of one region of one map, float64."""
    x1, y1, x2, y2 = np.asarray(region, "float64") / 2**level
    bin_height, bin_width = max(y2 - y1, 1) / size, max(x2 - x1, 1) / size
    found = np.zeros((size, size, features.shape[-1]))
    for row in range(size):
        for column in range(size):
            for i in range(samples):
                for j in range(samples):
                    y = y1 + (row + (i + 0.5) / samples) * bin_height
                    x = x1 + (column + (j + 0.5) / samples) * bin_width
                    found[row, column] += interpolated(features, y, x) / samples**2
    return found


def level_of(region, first, last):
    """Equation 1 of Lin et al. 2017, with torchvision's small number."""
    x1, y1, x2, y2 = (float(value) for value in region)
    side = max((x2 - x1) * (y2 - y1), 1e-12) ** 0.5
    return int(np.clip(np.floor(4 + np.log2(side / 224) + 1e-6), first, last))


def both(layer, regions, maps):
    """The results of the fast and of the plain computation."""
    regions, maps = ops.convert_to_tensor(regions), [ops.convert_to_tensor(features) for features in maps]
    return (
        align(regions, layer.chosen(regions), maps, layer.levels, layer.size, layer.samples),
        layer.plain(regions, maps),
    )


def maps_of(rng, images, height, width, levels, channels=3):
    return [
        rng.normal(size=(images, -(-height // 2**level), -(-width // 2**level), channels)).astype("float32")
        for level in levels
    ]


def check(layer, regions, maps):
    expected = np.stack(
        [
            [
                slow(region, maps[level - layer.levels[0]][image], level)
                for region in of_image
                for level in [level_of(region, layer.levels[0], layer.levels[-1])]
            ]
            for image, of_image in enumerate(regions)
        ]
    )
    for found in both(layer, regions, maps):
        np.testing.assert_allclose(found, expected, atol=3e-5)


def test_regions_of_one_map_in_several_images(rng):
    maps = maps_of(rng, 3, 128, 160, [4])
    regions = common.random_boxes(rng, 15, 128).reshape(3, 5, 4)
    check(RegionAlign([4], SIZE), regions, maps)


def test_regions_at_and_beyond_the_border(rng):
    maps = maps_of(rng, 1, 64, 96, [3])
    regions = [
        [0, 0, 96, 64],
        [-20, -20, 30, 40],
        [60, 40, 140, 90],
        [-100, -100, -50, -50],
        [200, 10, 240, 60],
        [96, 64, 96, 64],
        [95, 63, 96, 64],
        [-7.9, 0, 8, 8],
        [88, 0, 103.9, 64],
        [-500, -400, 600, 700],
    ]
    check(RegionAlign([3], SIZE), np.array([regions], "float32"), maps)


def test_regions_smaller_than_a_pixel_and_without_area(rng):
    maps = maps_of(rng, 1, 64, 64, [2])
    regions = [[10, 10, 11, 11.5], [33, 20, 33, 20], [0, 0, 0, 0], [20, 5, 20.01, 60], [63.9, 63.9, 64, 64]]
    check(RegionAlign([2], SIZE), np.array([regions], "float32"), maps)


def test_huge_regions(rng):
    regions = np.array([[[0, 0, 1e5, 1e5], [-3e4, 0, 200, 1e6]]], "float32")
    maps = maps_of(rng, 1, 256, 256, [2, 3, 4, 5])
    found = both(RegionAlign([2, 3, 4, 5], SIZE), regions, maps)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert np.isfinite(np.asarray(found[0])).all()


def test_all_levels(rng):
    maps = maps_of(rng, 2, 512, 640, [2, 3, 4, 5])
    sides = [10, 60, 111, 113, 150, 223, 225, 300, 447, 490]
    regions = np.array([[[3, 5, 3 + side, 5 + side * 0.9] for side in sides]] * 2, "float32")
    assert {level_of(region, 2, 5) for region in regions[0]} == {2, 3, 4, 5}
    check(RegionAlign([2, 3, 4, 5], SIZE), regions, maps)


def test_levels_at_the_thresholds():
    layer = RegionAlign([2, 3, 4, 5])
    sides = {1: 2, 56: 2, 111.9: 2, 112: 3, 223.9: 3, 224: 4, 447.9: 4, 448: 5, 900: 5, 5000: 5}
    squares = np.array([[[0, 0, side, side] for side in sides]], "float32")
    np.testing.assert_array_equal(layer.chosen(squares)[0], [level - 2 for level in sides.values()])
    # The same areas, with other sides and at another place.
    wide = np.array([[[64, 32, 64 + 4 * side, 32 + side / 4] for side in (56, 112, 224, 448)]], "float32")
    np.testing.assert_array_equal(layer.chosen(wide)[0], [0, 1, 2, 3])
    assert np.asarray(layer.chosen(np.array([[[5, 5, 5, 5], [9, 9, 3, 12]]], "float32"))).tolist() == [[0, 0]]


def test_bfloat16_maps(rng):
    maps = [ops.cast(features, "bfloat16") for features in maps_of(rng, 1, 256, 256, [2, 3, 4])]
    layer = RegionAlign([2, 3, 4], SIZE, dtype="mixed_bfloat16")
    regions = common.random_boxes(rng, 6, 256)[None]
    exact = both(layer, regions, [ops.cast(features, "float32") for features in maps])[1]
    for found in (*both(layer, regions, maps), layer([regions, *maps])):
        assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
        # One rounding to 8 bits at the end, not one per step.
        np.testing.assert_allclose(np.asarray(ops.cast(found, "float32")), exact, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("levels", [[3], [2, 3, 4]])
def test_gradients_of_both_agree(rng, levels):
    import tensorflow as tf

    maps = [tf.constant(features) for features in maps_of(rng, 2, 192, 256, levels)]
    regions = tf.constant(common.random_boxes(rng, 16, 192).reshape(2, 8, 4) - 10)
    layer = RegionAlign(levels, SIZE)
    factors = tf.constant(rng.normal(size=(2, 8, SIZE, SIZE, 3)).astype("float32"))
    gradients = []
    for place in (0, 1):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            loss = tf.reduce_sum(both(layer, regions, maps)[place] * factors)
        gradients.append([tf.convert_to_tensor(each).numpy() for each in tape.gradient(loss, maps)])
    for fast, plain in zip(*gradients, strict=True):
        np.testing.assert_allclose(fast, plain, atol=1e-5 * max(np.abs(plain).max(), 1))
    assert max(np.abs(each).max() for each in gradients[1]) > 0.5


def test_no_gradient_flows_to_the_regions(rng):
    import tensorflow as tf

    regions = tf.constant(common.random_boxes(rng, 4, 64)[None])
    with tf.GradientTape() as tape:
        tape.watch(regions)
        found = RegionAlign([3], SIZE)([regions, tf.ones((1, 8, 8, 2))])
    assert tape.gradient(found, regions) is None


def test_numbers_of_torchvision():
    # roi_align(x, boxes, 2, 1 / 4, 2, aligned=False) of torchvision, with x[i, j] = (3·i² + 7·j) % 11 on a map of 6 × 8.
    rows, columns = np.mgrid[:6, :8]
    features = ((3 * rows**2 + 7 * columns) % 11).astype("float32")[None, :, :, None]
    regions = np.array([REGIONS], "float32")
    for found in both(RegionAlign([2], 2), regions, [features]):
        np.testing.assert_allclose(np.asarray(found)[0, ..., 0], TORCHVISION, atol=2e-5)


REGIONS = [[1.0, 2.0, 27.0, 19.0], [-9.0, -3.0, 8.0, 8.0], [25.0, 15.0, 40.0, 30.0], [12.0, 9.0, 13.0, 9.5]]
TORCHVISION = [
    [[5.4145508, 5.8959961], [3.0869141, 4.234375]],
    [[0.210938, 4.40625], [1.148438, 6.28125]],
    [[5.302002, 0.0], [0.0, 0.0]],
    [[2.375, 3.125], [3.03125, 1.71875]],
]


def test_configuration():
    layer = RegionAlign.from_config(RegionAlign([2, 3], 5, 4).get_config())
    assert (layer.levels, layer.size, layer.samples) == ((2, 3), 5, 4)
    found = layer([keras.Input((9, 4)), keras.Input((None, None, 6)), keras.Input((None, None, 6))])
    assert found.shape == (None, 9, 5, 5, 6)
