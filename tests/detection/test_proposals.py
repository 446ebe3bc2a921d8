"""Proposals and detections on small random maps against the whole rule in NumPy."""

import keras
import numpy as np
import pytest

from keras_deepnets.detection import Anchors, Detections, Proposals
from tests.detection import common

SIZES = np.array([[60, 90], [41, 64]], "int32")
PLAIN, WEIGHTED = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)


def rpn_outputs(rng, images=2, spread=0.5):
    """Random outputs of a region proposal network on three levels, one of them with fewer anchors than candidates."""
    shapes, ratios = ((8, 12), (4, 6), (2, 3)), 3
    maps = [np.zeros((images, *shape, 1), "float32") for shape in shapes]
    found = Anchors([(12,), (24,), (48,)])([np.zeros((images, 64, 96, 3)), *maps])
    return {
        "sizes": SIZES[:images],
        "objectness": [rng.normal(0, 2, (images, *shape, ratios)).astype("float32") for shape in shapes],
        "deltas": [rng.normal(0, spread, (images, *shape, 4 * ratios)).astype("float32") for shape in shapes],
        "anchors": [np.asarray(each) for each in found],
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, "float64")))


def expected_proposals(inputs, image, candidates, most, threshold):
    """The rule for one image: a list of (score, box), best first."""
    found = []
    height, width = inputs["sizes"][image]
    levels = zip(inputs["objectness"], inputs["deltas"], inputs["anchors"], strict=True)
    for objectness, deltas, anchors in levels:
        logits, deltas = objectness[image].ravel(), deltas[image].reshape(-1, 4)
        best = np.argsort(-logits, kind="stable")[:candidates]
        boxes = [common.clip(common.decode(deltas[i], anchors[i], PLAIN), height, width) for i in best]
        large = [box[2] - box[0] >= 1e-3 and box[3] - box[1] >= 1e-3 for box in boxes]
        scores = np.where(large, sigmoid(logits[best]), -1.0)
        found += [(scores[i], boxes[i]) for i in common.greedy(boxes, scores, threshold)]
    return sorted(found, key=lambda entry: -entry[0])[:most]


def check_proposals(found, inputs, candidates, most, threshold=0.7):
    found = {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}
    images = len(inputs["sizes"])
    assert found["boxes"].shape == (images, most, 4) and found["scores"].shape == (images, most)
    for image in range(images):
        expected = expected_proposals(inputs, image, candidates, most, threshold)
        count = len(expected)
        assert found["count"][image] == count
        np.testing.assert_allclose(found["scores"][image, :count], [score for score, _ in expected], atol=1e-6)
        if count:
            np.testing.assert_allclose(found["boxes"][image, :count], [box for _, box in expected], atol=2e-4)
        assert not found["boxes"][image, count:].any() and not found["scores"][image, count:].any()
    return found


@pytest.mark.parametrize("seed", range(3))
def test_proposals(seed):
    inputs = rpn_outputs(np.random.default_rng(seed))
    layer = Proposals(40, 25, 60, 45)
    found = check_proposals(layer(inputs), inputs, 40, 25)
    assert found["count"].tolist() == [25, 25]
    check_proposals(layer(inputs, sampled=True), inputs, 60, 45)


def test_proposals_are_fewer_than_asked(rng):
    inputs = rpn_outputs(rng)
    found = check_proposals(Proposals(20, 100, nms_threshold=0.3)(inputs), inputs, 20, 100, 0.3)
    assert 0 < found["count"].max() < 60


def test_proposals_of_growing_and_vanishing_boxes(rng):
    inputs = rpn_outputs(rng, spread=3.0)
    found = check_proposals(Proposals(50, 30)(inputs), inputs, 50, 30)
    assert (
        (found["boxes"] >= 0).all() and (found["boxes"][0, :, 2] <= 90).all() and (found["boxes"][1, :, 3] <= 41).all()
    )


def test_no_proposal_if_all_boxes_lie_outside(rng):
    inputs = rpn_outputs(rng)
    inputs["deltas"] = [
        np.tile(np.array([50, 0, 0, 0], "float32"), each.shape[-1] // 4) + 0 * each for each in inputs["deltas"]
    ]
    found = check_proposals(Proposals(40, 25)(inputs), inputs, 40, 25)
    assert found["count"].tolist() == [0, 0]


def test_proposals_in_a_graph_of_unknown_sizes_and_in_half_precision(rng):
    import tensorflow as tf

    inputs = rpn_outputs(rng)
    layer = Proposals(40, 25, 60, 45)
    given = {
        "sizes": tf.TensorSpec([None, 2], tf.int32),
        "objectness": [tf.TensorSpec([None, None, None, 3])] * 3,
        "deltas": [tf.TensorSpec([None, None, None, 12])] * 3,
        "anchors": [tf.TensorSpec([None, 4])] * 3,
    }
    function = tf.function(lambda x: layer(x), input_signature=[given], autograph=False)
    check_proposals(function(inputs), inputs, 40, 25)
    halves = {name: [tf.cast(each, tf.bfloat16) for each in inputs[name]] for name in ("objectness", "deltas")}
    rounded = {name: [tf.cast(each, tf.float32).numpy() for each in values] for name, values in halves.items()}
    found = layer(inputs | halves)
    assert found["boxes"].dtype == tf.float32
    # Rounding to 8 bits makes ties, so only the scores are unique.
    expected = expected_proposals(inputs | rounded, 0, 40, 25, 0.7)
    assert abs(float(found["scores"][0, 0]) - expected[0][0]) < 1e-6


def test_no_gradient_flows_through_proposals(rng):
    import tensorflow as tf

    inputs = rpn_outputs(rng)
    objectness = [tf.constant(each) for each in inputs["objectness"]]
    with tf.GradientTape() as tape:
        tape.watch(objectness)
        found = Proposals(40, 25)(inputs | {"objectness": objectness})
        loss = tf.reduce_sum(found["boxes"]) + tf.reduce_sum(found["scores"])
    assert tape.gradient(loss, objectness) == [None, None, None]


def head_outputs(rng, regions=30, classes=4, scale=2.0):
    return {
        "logits": rng.normal(0, scale, (2, regions, classes)).astype("float32"),
        "deltas": rng.normal(0, 1, (2, regions, 4 * classes)).astype("float32"),
        "proposals": np.stack([common.random_boxes(rng, regions, 60) for _ in range(2)]),
        "count": np.array([regions, regions - 11], "int32"),
        "sizes": SIZES,
    }


def expected_detections(inputs, image, most, score_threshold, nms_threshold):
    """The rule for one image: a list of (score, label, box), best first."""
    height, width = inputs["sizes"][image]
    logits = inputs["logits"][image].astype("float64")
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    scores = exponentials / exponentials.sum(1, keepdims=True)
    found = []
    for label in range(1, logits.shape[1]):
        boxes, own = [], []
        for region in range(inputs["count"][image]):
            deltas = inputs["deltas"][image, region, 4 * label : 4 * label + 4]
            box = common.clip(common.decode(deltas, inputs["proposals"][image, region], WEIGHTED), height, width)
            if scores[region, label] > score_threshold and min(box[2] - box[0], box[3] - box[1]) >= 1e-2:
                boxes.append(box)
                own.append(scores[region, label])
        found += [(own[i], label, boxes[i]) for i in common.greedy(boxes, own, nms_threshold)]
    return sorted(found, key=lambda entry: -entry[0])[:most]


def check_detections(layer, inputs):
    found = {name: keras.ops.convert_to_numpy(value) for name, value in layer(inputs).items()}
    for image in range(2):
        expected = expected_detections(inputs, image, layer.detections, layer.score_threshold, layer.nms_threshold)
        count = len(expected)
        assert found["count"][image] == count
        np.testing.assert_allclose(found["scores"][image, :count], [entry[0] for entry in expected], atol=1e-6)
        np.testing.assert_array_equal(found["labels"][image, :count], [entry[1] for entry in expected])
        if count:
            np.testing.assert_allclose(found["boxes"][image, :count], [entry[2] for entry in expected], atol=1e-4)
        for name in ("boxes", "scores", "labels"):
            assert not found[name][image, count:].any()
    return found


@pytest.mark.parametrize("options", [{}, {"score_threshold": 0.3}, {"nms_threshold": 0.1}, {"detections": 200}])
def test_detections(rng, options):
    found = check_detections(Detections(**({"detections": 12} | options)), head_outputs(rng))
    assert found["count"].min() > 3 and len(np.unique(found["labels"])) >= 3


def test_no_detection(rng):
    inputs = head_outputs(rng)
    inputs["logits"][1, :, 0] = 100.0
    found = check_detections(Detections(12), inputs)
    assert found["count"][0] == 12 and found["count"][1] == 0
    inputs["count"][:] = 0
    assert check_detections(Detections(12), inputs)["count"].tolist() == [0, 0]


def test_a_score_at_the_threshold_is_no_detection(rng):
    inputs = head_outputs(rng, classes=2)
    inputs["logits"][:] = 0.0
    assert np.asarray(Detections(12, 0.5)(inputs)["count"]).tolist() == [0, 0]
    assert np.asarray(Detections(12, 0.49)(inputs)["count"]).min() > 0


def test_detections_of_half_precision_are_float32(rng):
    inputs = head_outputs(rng)
    inputs["logits"] = keras.ops.cast(inputs["logits"], "bfloat16")
    found = Detections(12)(inputs)
    types = {name: keras.backend.standardize_dtype(value.dtype) for name, value in found.items()}
    assert types == {"boxes": "float32", "scores": "float32", "labels": "int32", "count": "int32"}


def test_configurations():
    proposals = Proposals.from_config(Proposals(1, 2, 3, 4, 0.6).get_config())
    fields = ("candidates", "proposals", "training_candidates", "training_proposals", "nms_threshold")
    assert [getattr(proposals, name) for name in fields] == [1, 2, 3, 4, 0.6]
    detections = Detections.from_config(Detections(7, 0.1, 0.4).get_config())
    assert (detections.detections, detections.score_threshold, detections.nms_threshold) == (7, 0.1, 0.4)
