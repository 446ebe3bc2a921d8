"""Arithmetic of boxes and anchors against NumPy and against known values of torchvision."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_deepnets.detection import Anchors, anchors, boxes
from tests.detection import common

PLAIN, WEIGHTED = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)


@pytest.mark.parametrize("weights", [PLAIN, WEIGHTED])
def test_encode_and_decode_equal_numpy_and_invert_each_other(rng, weights):
    first, second = common.random_boxes(rng, 40), common.random_boxes(rng, 40)
    deltas = np.asarray(boxes.encode(first, second, weights))
    expected = np.array([common.encode(a, b, weights) for a, b in zip(first, second, strict=True)])
    np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(boxes.decode(deltas, second, weights), first, atol=1e-3)
    noise = rng.normal(0, 2, (40, 4)).astype("float32")
    expected = np.array([common.decode(a, b, weights) for a, b in zip(noise, second, strict=True)])
    np.testing.assert_allclose(boxes.decode(noise, second, weights), expected, rtol=1e-4, atol=1e-3)


def test_a_side_grows_at_most_by_the_bound():
    reference = np.array([[10.0, 20.0, 18.0, 24.0]], "float32")
    for size in (np.log(62.5), 5.0, 1e4, 1e30):
        found = np.asarray(boxes.decode(np.array([[0, 0, size, size]], "float32"), reference, PLAIN))[0]
        np.testing.assert_allclose(found, [14 - 250, 22 - 125, 14 + 250, 22 + 125], rtol=1e-5)


def test_encode_of_a_known_pair():
    # Centres (2, 2) and (4, 6); sides (4, 4) and (8, 8).
    found = boxes.encode(np.array([[0.0, 2, 8, 10]], "float32"), np.array([[0.0, 0, 4, 4]], "float32"), WEIGHTED)
    np.testing.assert_allclose(found, [[5.0, 10.0, 5 * np.log(2), 5 * np.log(2)]], rtol=1e-6)


def test_iou_equals_numpy_in_all_dimensions(rng):
    first, second = common.random_boxes(rng, 12), common.random_boxes(rng, 9)
    expected = common.iou_table(first, second)
    np.testing.assert_allclose(boxes.iou(first, second), expected, atol=1e-6)
    table = boxes.iou(np.stack([first, first + 3]), np.stack([second, second + 3]))
    np.testing.assert_allclose(table, [expected, expected], atol=1e-5)
    assert (expected > 0.3).any()


def test_degenerate_boxes_overlap_nothing():
    degenerate = np.array([[5, 5, 5, 5], [5, 5, 5, 9], [0, 0, 0, 0], [1e6, 1e6, 1e6, 1e6]], "float32")
    whole = np.array([[0, 0, 10, 10], [0, 0, 1e6, 1e6]], "float32")
    np.testing.assert_array_equal(boxes.iou(degenerate, degenerate), np.zeros((4, 4)))
    np.testing.assert_array_equal(boxes.iou(degenerate, whole), np.zeros((4, 2)))
    np.testing.assert_array_equal(boxes.iou(whole[1:], whole[1:]), [[1.0]])


def test_clip_and_sides():
    given = np.array([[[-5, -6, 20, 30], [3, 4, 5, 6], [100, 100, 120, 130]]] * 2, "float32")
    found = np.asarray(boxes.clip(given, np.array([[10, 20], [50, 110]], "int32")))
    np.testing.assert_array_equal(found[0], [[0, 0, 20, 10], [3, 4, 5, 6], [20, 10, 20, 10]])
    np.testing.assert_array_equal(found[1], [[0, 0, 20, 30], [3, 4, 5, 6], [100, 50, 110, 50]])
    np.testing.assert_array_equal(boxes.has_sides(found, 2.0), [[True, True, False], [True, True, False]])
    np.testing.assert_array_equal(boxes.area(found[0]), [200, 4, 0])


def test_cell_anchors_are_those_of_torchvision():
    # Printed by torchvision's AnchorGenerator. 22.627 / 2 rounds to 11; 45.25 / 2 to 23. 90.51 / 2 is 45.25.
    np.testing.assert_array_equal(
        anchors.cell_anchors([32]), [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    )
    np.testing.assert_array_equal(
        anchors.cell_anchors([128, 256, 512], [0.5, 1.0]),
        [
            [-91, -45, 91, 45],
            [-181, -91, 181, 91],
            [-362, -181, 362, 181],
            [-64, -64, 64, 64],
            [-128, -128, 128, 128],
            [-256, -256, 256, 256],
        ],
    )
    np.testing.assert_array_equal(anchors.cell_anchors([5, 7], [1.0]), [[-2, -2, 2, 2], [-4, -4, 4, 4]])  # half to even


def test_positions_of_sizes_that_are_no_multiples():
    image, maps = np.zeros((2, 50, 70, 3)), [np.zeros((2, 13, 18, 4)), np.zeros((2, 7, 9, 4))]
    layer = Anchors([(8,), (16, 32)], (1.0, 2.0))
    first, second = (np.asarray(found) for found in layer([image, *maps]))
    assert (first.shape, second.shape) == ((13 * 18 * 2, 4), (7 * 9 * 4, 4))
    # The strides are 50 // 13 = 3 and 70 // 18 = 3; 50 // 7 = 7 and 70 // 9 = 7.
    grid = first.reshape(13, 18, 2, 4)
    np.testing.assert_array_equal(grid[2, 5, 0], [11, 2, 19, 10])
    np.testing.assert_array_equal(grid[12, 0, 1], [-3, 30, 3, 42])
    grid = second.reshape(7, 9, 4, 4)
    np.testing.assert_array_equal(grid[6, 8], anchors.cell_anchors([16, 32], (1.0, 2.0)) + np.array([56, 42, 56, 42]))


def test_symbolic_shapes_of_anchors():
    layer = Anchors([(8,), (16,)])
    known = layer([keras.Input((64, 96, 3)), keras.Input((16, 24, 8)), keras.Input((8, 12, 8))])
    assert [found.shape for found in known] == [(16 * 24 * 3, 4), (8 * 12 * 3, 4)]
    unknown = layer([keras.Input((None, None, 3)), keras.Input((None, None, 8)), keras.Input((8, 12, 8))])
    assert [found.shape for found in unknown] == [(None, 4), (8 * 12 * 3, 4)]
    again = Anchors.from_config(layer.get_config())
    given = [ops.zeros((1, 64, 96, 3)), ops.zeros((1, 16, 24, 8)), ops.zeros((1, 8, 12, 8))]
    for found, expected in zip(again(given), layer(given), strict=True):
        np.testing.assert_array_equal(found, expected)
