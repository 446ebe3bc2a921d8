"""Non-maximum suppression: TensorFlow's operation and the plain one against a reference in NumPy."""

import keras
import numpy as np
import pytest

from keras_deepnets.detection.suppression import plain_suppress, sizes_mask, suppress
from keras_deepnets.layers import fast
from tests.detection import common

# TensorFlow's operation is the first one only on TensorFlow. Elsewhere both are the plain one.
BOTH = pytest.mark.parametrize("function", [suppress, plain_suppress])


def check(function, boxes, scores, threshold, most):
    """All four outputs equal the reference; the rest is zero."""
    found = [keras.ops.convert_to_numpy(value) for value in function(boxes, scores, threshold, most)]
    assert [value.shape[1:] for value in found] == [(most, 4), (most,), (most,), ()]
    assert [str(value.dtype) for value in found] == ["float32", "float32", "int32", "int32"]
    for image in range(len(boxes)):
        expected = common.suppressed(boxes[image], scores[image], threshold, most)
        count = len(expected)
        assert found[3][image] == count
        for place, (score, group, box) in enumerate(expected):
            assert found[1][image, place] == np.float32(score)
            assert found[2][image, place] == group
            np.testing.assert_array_equal(found[0][image, place], box)
        assert (
            not found[0][image, count:].any()
            and not found[1][image, count:].any()
            and not found[2][image, count:].any()
        )
    return found


def given(rng, images=2, candidates=30, groups=3):
    boxes = np.stack([common.random_boxes(rng, candidates * groups) for _ in range(images)])
    scores = rng.permutation(images * candidates * groups).reshape(images, candidates, groups) / 1000
    return boxes.reshape(images, candidates, groups, 4), scores.astype("float32")


@BOTH
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("most", [5, 40, 200])
def test_random_groups(rng, function, threshold, most):
    boxes, scores = given(rng)
    scores = np.where(rng.random(scores.shape) < 0.2, -1.0, scores).astype("float32")
    found = check(function, boxes, scores, threshold, most)
    assert found[3].max() > 3


def test_the_first_is_tensorflows_operation():
    assert fast.on("combined_suppression") == (keras.backend.backend() == "tensorflow")


@BOTH
def test_of_equal_scores_the_first_wins(function):
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [2, 0, 12, 10]], "float32")[None, :, None]
    scores = np.full((1, 4, 1), 0.5, "float32")
    found = check(function, boxes, scores, 0.5, 4)
    np.testing.assert_array_equal(found[0][0, :2], [[0, 0, 10, 10], [50, 50, 60, 60]])


@BOTH
def test_equal_scores_in_many_groups(rng, function):
    boxes, scores = given(rng, candidates=25, groups=4)
    check(function, boxes, np.round(scores, 2), 0.5, 12)
    check(function, boxes, np.full_like(scores, 1.0), 0.5, 12)
    check(function, boxes, np.full_like(scores, 0.0), 0.5, 12)


@BOTH
def test_nothing_to_select(rng, function):
    boxes, scores = given(rng)
    found = check(function, boxes, np.full_like(scores, -1.0), 0.5, 7)
    np.testing.assert_array_equal(found[3], [0, 0])
    scores[1] = -1.0
    found = check(function, boxes, scores, 0.5, 7)
    np.testing.assert_array_equal(found[3], [7, 0])


@BOTH
def test_a_score_of_zero_is_valid(function):
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], "float32")[None, :, None]
    found = check(function, boxes, np.array([[[0.0], [-1.0]]], "float32"), 0.5, 3)
    assert found[3][0] == 1


@BOTH
def test_degenerate_and_huge_boxes(function):
    rows = [
        [5, 5, 5, 5],
        [5, 5, 5, 5],
        [5, 0, 5, 10],
        [0, 0, 1e6, 1e6],
        [0, 0, 1e6, 0.9e6],
        [1e6, 1e6, 1e6 + 8, 1e6 + 8],
        [1e6, 1e6, 1e6 + 8, 1e6 + 7],
        [0, 0, 10, 10],
    ]
    boxes = np.array(rows, "float32")[None, :, None]
    found = check(function, boxes, np.linspace(0.9, 0.2, 8, dtype="float32")[None, :, None], 0.5, 8)
    # Of the boxes with an area, one of the two pairs each is dropped.
    assert found[3][0] == 6


@BOTH
def test_a_single_candidate_and_fewer_than_wanted(rng, function):
    boxes, scores = given(rng, images=3, candidates=1, groups=1)
    found = check(function, boxes, scores, 0.5, 10)
    np.testing.assert_array_equal(found[3], [1, 1, 1])


@BOTH
@pytest.mark.parametrize(("side", "threshold"), [(5, 0.5), (7, 0.7), (3, 0.3)])
def test_an_overlap_exactly_at_the_threshold_stays(function, side, threshold):
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, side], [0, 0, 10, side + 0.01]], "float32")[None, :, None]
    scores = np.array([[[0.9], [0.5], [0.8]]], "float32")
    found = [np.asarray(value) for value in function(boxes[:, :2], scores[:, :2], threshold, 3)]
    assert found[3][0] == 2
    found = [np.asarray(value) for value in function(boxes[:, ::2], scores[:, ::2], threshold, 3)]
    assert found[3][0] == 1


def test_both_agree_on_many_overlapping_boxes(rng):
    boxes = np.round(rng.uniform(0, 20, (3, 200, 2, 2)))
    boxes = np.concatenate([boxes, boxes + rng.integers(1, 12, boxes.shape)], -1).astype("float32")
    scores = (rng.permutation(1200).reshape(3, 200, 2) - 200).astype("float32") / 1000  # a sixth is invalid
    for threshold in (0.25, 0.5, 0.7):
        first, second = suppress(boxes, scores, threshold, 60), plain_suppress(boxes, scores, threshold, 60)
        for ours, plain in zip(first, second, strict=True):
            np.testing.assert_array_equal(ours, plain)
        assert np.asarray(first.count).min() > 10


@BOTH
def test_many_boxes_of_equal_scores(rng, function):
    boxes = np.stack([common.random_boxes(rng, 200) for _ in range(3)]).reshape(3, 100, 2, 4)
    check(function, boxes, np.round(rng.uniform(0, 1, (3, 100, 2)), 1).astype("float32"), 0.4, 60)


def test_in_a_graph_of_an_unknown_number_of_images(rng):
    import tensorflow as tf

    spec = [tf.TensorSpec([None, 30, 3, 4]), tf.TensorSpec([None, 30, 3])]
    function = tf.function(
        lambda boxes, scores: suppress(boxes, scores, 0.5, 20), input_signature=spec, autograph=False
    )
    boxes, scores = given(rng)
    check(lambda *arguments: function(*arguments[:2]), boxes, np.round(scores, 2), 0.5, 20)


def test_mask_of_sizes():
    np.testing.assert_array_equal(sizes_mask(np.array([0, 2, 5]), 3), [[0, 0, 0], [1, 1, 0], [1, 1, 1]])
