"""Matching, sampling and targets against loops in NumPy."""

import numpy as np
import pytest

from keras_deepnets.detection.assignment import AnchorTargets, RegionTargets, match, sampled
from tests.detection import common

PLAIN, WEIGHTED = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)


def expected_match(references, truths, high, low, keep_best):
    """Indices and kinds for one image."""
    if not len(truths):
        return np.zeros(len(references), int), np.zeros(len(references), int)
    table = common.iou_table(truths, references).astype("float32")
    index, largest = table.argmax(0), table.max(0)
    kind = np.where(largest >= np.float32(high), 1, np.where(largest < np.float32(low), 0, -1))
    if keep_best:
        for row in table:
            if row.max() > 0:
                kind[row == row.max()] = 1
    return index, kind


@pytest.mark.parametrize("keep_best", [False, True])
def test_match_equals_numpy(rng, keep_best):
    references = common.random_boxes(rng, 400)
    boxes = [common.random_boxes(rng, count) for count in (5, 1, 0)]
    padded = common.truths(boxes, [np.ones(len(each)) for each in boxes], 6)
    found = match(references, padded["boxes"], padded["count"], 0.6, 0.25, keep_best)
    for image in range(3):
        index, kind = expected_match(references, boxes[image], 0.6, 0.25, keep_best)
        np.testing.assert_array_equal(found.kind[image], kind)
        np.testing.assert_array_equal(np.asarray(found.index)[image][kind == 1], index[kind == 1])
    assert {-1, 0, 1} == set(np.unique(found.kind[0]))


def test_thresholds_of_a_match_are_inclusive_above_and_exclusive_below():
    truth = np.array([[[0, 0, 10, 10]]], "float32")
    references = np.array([[0, 0, 10, side] for side in (7, 6.99, 3, 2.99)], "float32")
    found = match(references, truth, np.array([1]), 0.7, 0.3)
    np.testing.assert_array_equal(found.kind, [[1, -1, -1, 0]])


def test_the_best_references_of_a_truth_match_in_spite_of_a_small_overlap():
    truths = np.array([[[0, 0, 10, 10], [100, 100, 110, 110]]], "float32")
    # Two references share the largest overlap with the first truth. Nothing overlaps the second.
    references = np.array([[0, 8, 10, 18], [0, -8, 10, 2], [0, 9, 10, 19], [50, 50, 60, 60]], "float32")
    count = np.array([2])
    np.testing.assert_array_equal(match(references, truths, count, 0.7, 0.3, True).kind, [[1, 1, 0, 0]])
    np.testing.assert_array_equal(match(references, truths, count, 0.7, 0.3).kind, [[0, 0, 0, 0]])


def test_a_best_reference_gets_the_truth_with_which_it_overlaps_most():
    truths = np.array([[[0, 0, 10, 10], [0, 2, 10, 40]]], "float32")
    found = match(np.array([[0, 0, 10, 11], [90, 90, 99, 99]], "float32"), truths, np.array([2]), 0.7, 0.3, True)
    assert (np.asarray(found.kind).tolist(), int(found.index[0, 0])) == ([[1, 0]], 0)


def test_padding_of_truths_does_not_match():
    truths = np.array([[[0, 0, 10, 10], [20, 20, 30, 30]]] * 2, "float32")
    found = match(truths[0], truths, np.array([1, 0]), 0.5, 0.5)
    np.testing.assert_array_equal(found.kind, [[1, 0], [0, 0]])


def test_proposals_of_each_image_match_its_own_truths(rng):
    references = common.random_boxes(rng, 40).reshape(2, 20, 4)
    boxes = [references[0, :3] + 1, references[1, 5:7] - 1]
    padded = common.truths(boxes, [[1] * 3, [2] * 2], 3)
    found = match(references, padded["boxes"], padded["count"], 0.5, 0.5)
    for image in range(2):
        index, kind = expected_match(references[image], boxes[image], 0.5, 0.5, False)
        np.testing.assert_array_equal(found.kind[image], kind)
        np.testing.assert_array_equal(np.asarray(found.index)[image][kind == 1], index[kind == 1])


def test_sampling_takes_the_largest_draws_up_to_the_share(rng):
    kind = rng.choice([-1, 0, 1], (3, 200), p=[0.2, 0.5, 0.3]).astype("int32")
    draws = rng.permutation(600).reshape(3, 200).astype("float32") / 600
    positive, negative = (np.asarray(mask) for mask in sampled(kind, draws, 40, 0.25))
    for image in range(3):
        for mask, value, count in ((positive, 1, 10), (negative, 0, 30)):
            places = np.flatnonzero(kind[image] == value)
            expected = places[np.argsort(-draws[image, places])[:count]]
            np.testing.assert_array_equal(np.flatnonzero(mask[image]), np.sort(expected))


@pytest.mark.parametrize(
    ("matches", "background", "most", "chosen"),
    [
        (2, 100, 20, (2, 18)),  # few matches: background takes their place
        (100, 3, 20, (5, 3)),  # little background: matches do not
        (0, 100, 20, (0, 20)),
        (100, 0, 20, (5, 0)),
        (3, 4, 50, (3, 4)),  # fewer than wanted, and fewer boxes than asked for
        (0, 0, 20, (0, 0)),
        (10, 10, 1, (0, 1)),  # the share of one is none
    ],
)
def test_counts_of_samples(rng, matches, background, most, chosen):
    kind = rng.permutation([1] * matches + [0] * background + [-1] * 5)[None].astype("int32")
    found = sampled(kind, rng.random(kind.shape).astype("float32"), most, 0.25)
    assert tuple(int(np.asarray(mask).sum()) for mask in found) == chosen
    assert (np.asarray(found[0]) <= (kind == 1)).all() and (np.asarray(found[1]) <= (kind == 0)).all()


def test_sampling_from_fewer_boxes_than_asked_in_a_graph():
    import tensorflow as tf

    spec = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None])]
    function = tf.function(lambda kind, draws: sampled(kind, draws, 256, 0.5), input_signature=spec)
    found = function(np.array([[1, 0, 0, -1]], "int32"), np.array([[0.5, 0.25, 0.75, 0.9]], "float32"))
    np.testing.assert_array_equal(found[0], [[True, False, False, False]])
    np.testing.assert_array_equal(found[1], [[False, True, True, False]])


def fixed(layer, draws):
    """The layer with given random numbers."""
    layer.draw = lambda shape, places: np.broadcast_to(draws[:, : int(shape[1])], tuple(int(side) for side in shape))
    return layer


def test_targets_of_anchors(rng):
    anchors = [common.random_boxes(rng, 60), common.random_boxes(rng, 40)]
    boxes = [common.random_boxes(rng, 4, smallest=10), common.random_boxes(rng, 1, smallest=20), np.zeros((0, 4))]
    padded = common.truths(boxes, [[1] * 4, [2], []], 5)
    draws = rng.permutation(300).reshape(3, 100).astype("float32") / 300
    layer = fixed(AnchorTargets(0.5, 0.2, 16, 0.5), draws)
    found = {name: np.asarray(value) for name, value in layer({"anchors": anchors, **padded}).items()}
    together = np.concatenate(anchors)
    assert np.isfinite(found["deltas"]).all()
    for image in range(3):
        index, kind = expected_match(together, boxes[image], 0.5, 0.2, True)
        positive = np.flatnonzero(found["positive"][image])
        assert set(positive) <= set(np.flatnonzero(kind == 1))
        assert len(positive) == min((kind == 1).sum(), 8)
        assert found["negative"][image].sum() == min((kind == 0).sum(), 16 - len(positive))
        for place in positive:
            expected = common.encode(boxes[image][index[place]], together[place], PLAIN)
            np.testing.assert_allclose(found["deltas"][image, place], expected, rtol=1e-4, atol=1e-5)
    assert found["positive"].sum(1).tolist()[2] == 0 and found["positive"][0].sum() > 2


@pytest.mark.parametrize("lowest", [0.0, 0.1])
@pytest.mark.parametrize("samples", [20, 200])
def test_targets_of_regions(rng, lowest, samples):
    proposals = common.random_boxes(rng, 180).reshape(3, 60, 4)
    boxes = [common.random_boxes(rng, 3, smallest=20), common.random_boxes(rng, 2, smallest=20), np.zeros((0, 4))]
    labels = [[3, 1, 2], [4, 4], []]
    padded = common.truths(boxes, labels, 4)
    filled = np.array([60, 45, 60], "int32")
    draws = rng.permutation(195).reshape(3, 65).astype("float32") / 195
    layer = fixed(RegionTargets(0.5, 0.5, lowest, samples, 0.25), draws)
    given = {"proposals": proposals, "proposal_count": filled, **padded}
    found = {name: np.asarray(value) for name, value in layer(given).items()}
    assert found["regions"].shape == (3, samples, 4) and np.isfinite(found["deltas"]).all()
    for image in range(3):
        truths = boxes[image].astype("float32")
        regions = np.concatenate([proposals[image, : filled[image]], truths])
        own = np.concatenate([draws[image, : filled[image]], draws[image, 60 : 60 + len(truths)]])
        index, kind = expected_match(regions, truths, 0.5, 0.5, False)
        if lowest and len(truths):
            kind[(kind == 0) & (common.iou_table(truths, regions).max(0) < lowest)] = -1
        positive, negative = np.flatnonzero(kind == 1), np.flatnonzero(kind == 0)
        positive = positive[np.argsort(-own[positive])][: samples // 4]
        negative = negative[np.argsort(-own[negative])][: samples - len(positive)]
        chosen = np.concatenate([positive, negative])
        rows = found["regions"][image, : len(chosen)]
        np.testing.assert_array_equal(rows, regions[chosen])
        wanted = [labels[image][index[place]] for place in positive] + [0] * len(negative)
        np.testing.assert_array_equal(found["labels"][image], wanted + [-1] * (samples - len(chosen)))
        for row, place in enumerate(positive):
            expected = common.encode(truths[index[place]], regions[place], WEIGHTED)
            np.testing.assert_allclose(found["deltas"][image, row], expected, rtol=1e-4, atol=1e-4)
    # The true boxes are regions themselves, so an image with objects has positives.
    assert (found["labels"][:2] > 0).any(1).all() and not (found["labels"][2] > 0).any()


@pytest.mark.parametrize("places", [0, 1])
def test_a_batch_without_any_true_box(rng, places):
    none = {"boxes": np.zeros((2, places, 4), "float32"), "count": np.zeros(2, "int32")}
    anchors = {"anchors": [common.random_boxes(rng, 50)]}
    found = AnchorTargets(samples=16)(anchors | none)
    assert np.asarray(found["positive"]).sum() == 0 and np.asarray(found["negative"]).sum(1).tolist() == [16, 16]
    given = {"proposals": common.random_boxes(rng, 20).reshape(2, 10, 4), "proposal_count": np.array([10, 0], "int32")}
    found = RegionTargets(samples=12)(given | none | {"labels": np.zeros((2, places), "int32")})
    np.testing.assert_array_equal(found["labels"], [[0] * 10 + [-1] * 2, [-1] * 12])
    assert np.isfinite(np.asarray(found["deltas"])).all()


def test_degenerate_true_boxes_never_give_nan(rng):
    flat = {"boxes": np.array([[[5, 5, 5, 5], [10, 10, 10, 40]]], "float32"), "count": np.array([2], "int32")}
    found = AnchorTargets(samples=16)({"anchors": [common.random_boxes(rng, 50)]} | flat)
    assert np.isfinite(np.asarray(found["deltas"])).all() and np.asarray(found["positive"]).sum() == 0
    given = {"proposals": common.random_boxes(rng, 10)[None], "proposal_count": np.array([10], "int32")}
    found = RegionTargets(samples=12)(given | flat | {"labels": np.array([[1, 2]], "int32")})
    assert np.isfinite(np.asarray(found["deltas"])).all() and not (np.asarray(found["labels"]) > 0).any()


def test_the_seed_decides_the_samples(rng):
    anchors, padded = [common.random_boxes(rng, 300)], common.truths([common.random_boxes(rng, 2)], [[1, 1]], 2)
    masks = [
        np.asarray(AnchorTargets(samples=32, seed=seed)({"anchors": anchors, **padded})["negative"])
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
    layer = AnchorTargets(samples=32, seed=1)
    first, second = (np.asarray(layer({"anchors": anchors, **padded})["negative"]) for _ in range(2))
    assert (first != second).any()


def test_samples_by_image_do_not_depend_on_the_batch(rng):
    """Nor on the steps before: they are a function of the seed, the epoch and the image."""
    layer = AnchorTargets(samples=32, seed=1)
    given = {"anchors": [common.random_boxes(rng, 300)]}

    def negative(images, epoch=4, layer=layer):
        none = common.truths([[]] * len(images), [[]] * len(images), 1)
        places = np.array([[epoch, image] for image in images])
        return np.asarray(layer(given | none | {"places": places})["negative"])

    whole = negative([0, 1, 2])
    np.testing.assert_array_equal(whole[[2, 0]], negative([2, 0]))
    assert (whole.sum(1) == 32).all() and (whole[0] != whole[1]).any()
    assert (whole != negative([0, 1, 2], epoch=5)).any(1).all()
    assert (whole != negative([0, 1, 2], layer=AnchorTargets(samples=32, seed=2))).any(1).all()


def test_configurations():
    anchors = AnchorTargets.from_config(AnchorTargets(0.6, 0.2, 10, 0.3, 5).get_config())
    fields = (anchors.high, anchors.low, anchors.samples, anchors.positive_share, anchors.seed)
    assert fields == (0.6, 0.2, 10, 0.3, 5)
    regions = RegionTargets.from_config(RegionTargets(0.6, 0.4, 0.1, 10, 0.3, 5).get_config())
    assert (regions.high, regions.low, regions.lowest, regions.samples) == (0.6, 0.4, 0.1, 10)
