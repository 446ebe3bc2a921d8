"""The training form: losses, gradients, frozen layers and convergence."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.detection import detect, training_form
from keras_deepnets.detection.sampling import PAPER, Sampling, with_seed
from keras_deepnets.detection.training_model import smooth_l1
from tests.detection import common

LOSSES = ("objectness", "rpn_box", "classifier", "box")


def objects(images=2, most=3):
    """The first image has objects, the others have none."""
    boxes = [[[5, 5, 35, 30], [40, 20, 80, 60]]] + [[]] * (images - 1)
    return common.truths(boxes, [[1, 3]] + [[]] * (images - 1), most)


def step(model, inputs, **kwargs):
    """The trained form after one step of SGD."""
    trained = training_form(model, Sampling(seed=0, **kwargs))
    trained.compile(keras.optimizers.SGD(0.01))
    trained.train_on_batch(inputs)
    return trained


def test_smooth_l1():
    differences = np.array([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0], "float32")
    np.testing.assert_allclose(smooth_l1(differences, 1.0), [1.5, 0.125, 0, 0.03125, 0.5, 2.5])
    np.testing.assert_allclose(smooth_l1(differences, 0.5), [1.75, 0.25, 0, 0.0625, 0.75, 2.75])


def binary_cross_entropy(logits, labels):
    probabilities = 1 / (1 + np.exp(-logits.astype("float64")))
    return -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities))


def l1(differences, beta):
    size = np.abs(differences.astype("float64"))
    return np.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta).sum(-1)


@pytest.mark.parametrize("sampling", [Sampling(seed=3, regions=64), PAPER])
def test_the_losses_are_those_of_numpy(rng, sampling):
    model = common.small_detector()
    for weight in model.get_layer("head").trainable_weights[-4:] + model.get_layer("rpn").trainable_weights[-4:]:
        weight.assign(rng.normal(0, 0.05, weight.shape))
    form = training_form(model, sampling)
    names = ("anchor_targets", "region_targets", "proposal_losses", "region_losses")
    kept = {}
    for name in names:
        layer = form.get_layer(name)

        def call(inputs, original=layer.call, name=name):
            kept[name] = (inputs, original(inputs))
            return kept[name][1]

        layer.call = call
    found = {name: float(value) for name, value in form(common.images() | objects(), training=True).items()}
    inputs = keras.tree.map_structure(np.asarray, kept["proposal_losses"][0])
    targets = inputs["targets"]
    logits = np.concatenate([each.reshape(2, -1) for each in inputs["objectness"]], 1)
    deltas = np.concatenate([each.reshape(2, -1, 4) for each in inputs["deltas"]], 1)
    used = (targets["positive"] + targets["negative"]) > 0
    number = used.sum()
    assert number == 2 * 256 and targets["positive"].sum() > 0
    expected = {
        "objectness": binary_cross_entropy(logits, targets["positive"])[used].sum() / number,
        "rpn_box": l1(deltas - targets["deltas"], sampling.beta)[targets["positive"] > 0].sum() / number,
    }
    inputs = keras.tree.map_structure(np.asarray, kept["region_losses"][0])
    labels, logits = inputs["targets"]["labels"], inputs["logits"].astype("float64")
    deltas, total, distance = inputs["deltas"].reshape(*labels.shape, -1, 4), 0.0, 0.0
    for place in zip(*np.nonzero(labels >= 0), strict=True):
        total += np.log(np.exp(logits[place]).sum()) - logits[place][labels[place]]
        if labels[place] > 0:
            distance += l1(deltas[place][labels[place]] - inputs["targets"]["deltas"][place], sampling.beta)
    number = (labels >= 0).sum()
    assert (labels > 0).any() and (labels >= 0).any(1).all()
    expected |= {"classifier": total / number, "box": distance / number}
    for name in LOSSES:
        assert found[name] == pytest.approx(expected[name], rel=1e-5), name
        assert found[name] > 1e-4


def test_the_loss_is_their_sum_and_the_metrics_are_their_means():
    model = common.small_detector()
    form = training_form(model, Sampling(seed=0))
    form.compile(keras.optimizers.SGD(0.0))
    inputs = common.images() | objects()
    import tensorflow as tf

    history = form.fit(tf.data.Dataset.from_tensors(inputs), shuffle=False, verbose=0).history
    assert set(history) == {"loss", *LOSSES}
    assert history["loss"][0] == pytest.approx(sum(history[name][0] for name in LOSSES), rel=1e-5)
    assert history["objectness"][0] == pytest.approx(np.log(2), rel=0.1)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_changes_all_trainable_weights(frozen):
    model = common.small_detector(frozen_batch_norm=frozen)
    before = {weight.path: np.array(weight) for weight in model.weights}
    step(model, common.images() | objects())
    changed = {weight.path for weight in model.weights if (np.array(weight) != before[weight.path]).any()}
    trainable = {weight.path for weight in model.trainable_weights}
    statistics = {path for path in before if path.endswith(("moving_mean", "moving_variance"))}
    norms = {path for path in before if "bn/" in path}
    assert trainable <= changed
    assert changed - trainable == (set() if frozen else statistics)
    assert not (norms & changed) if frozen else norms <= changed


def test_frozen_norms_use_their_moving_statistics_in_training():
    model = common.small_detector()
    inputs = common.images()
    first, second = (model.get_layer("body")(inputs["images"] / 128 - 1, training=mode) for mode in (True, False))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_images_without_objects():
    model = common.small_detector()
    none = common.truths([[], []], [[], []], 2)
    form = training_form(model, Sampling(seed=0))
    found = {name: float(value) for name, value in form(common.images() | none, training=True).items()}
    assert found["rpn_box"] == found["box"] == 0.0
    assert found["objectness"] == pytest.approx(np.log(2), rel=0.1) and np.isfinite(found["classifier"])
    before = [np.array(weight) for weight in model.trainable_weights]
    step(model, common.images() | common.truths([[], []], [[], []], 0))
    assert all(np.isfinite(np.array(weight)).all() for weight in model.trainable_weights)
    assert any((np.array(weight) != old).any() for weight, old in zip(model.trainable_weights, before, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_gradients_are_finite_in_half_precision(policy):
    import tensorflow as tf

    model = common.small_detector()
    exact = training_form(model, Sampling(seed=0))(common.images() | objects(), training=True)
    keras.config.set_dtype_policy(policy)
    half = common.small_detector()
    half.set_weights(model.get_weights())
    form = training_form(half, Sampling(seed=0))
    with tf.GradientTape() as tape:
        losses = form(common.images() | objects(), training=True)
        loss = sum(losses.values())
    gradients = tape.gradient(loss, [weight.value for weight in half.trainable_weights])
    for weight, gradient in zip(half.trainable_weights, gradients, strict=True):
        assert np.isfinite(gradient.numpy()).all(), weight.path
    for name, value in losses.items():
        assert value.dtype == tf.float32
        assert abs(float(value) - float(exact[name])) < 0.05 + 0.05 * float(exact[name])
    if policy == "mixed_float16":  # whose optimiser scales the loss
        step(half, common.images() | objects())
        assert all(np.isfinite(np.array(weight)).all() for weight in half.weights)


def rectangles():
    """Two images of noise with white rectangles, and their boxes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 90, (2, 64, 96, 3)).astype("uint8")
    boxes = [np.array([[8, 10, 40, 42], [56, 20, 86, 60]], "float32"), np.array([[30, 8, 70, 52]], "float32")]
    for image, own in zip(pixels, boxes, strict=True):
        for x1, y1, x2, y2 in own.astype(int):
            image[y1:y2, x1:x2] = 250
    return pixels, boxes


@pytest.mark.slow
def test_training_finds_rectangles():
    pixels, boxes = rectangles()
    keras.utils.set_random_seed(1)
    model = common.small_detector(2, anchor_sizes=(8, 16, 32, 48, 64), frozen_batch_norm=False)
    form = training_form(model, Sampling(seed=0, anchors=64, regions=64))
    form.compile(keras.optimizers.Adam(2e-3))
    sizes = np.array([[64, 96]] * 2, "int32")
    inputs = {"images": pixels.astype("float32"), "sizes": sizes} | common.truths(boxes, [[1, 1], [1]], 2)
    losses = [form.train_on_batch(inputs)[0]]
    for _ in range(60):
        form.reset_metrics()
        losses.append(form.train_on_batch(inputs)[0])
    assert losses[-1] < 0.3 * losses[0]
    for norm in kd.models.flat_layers(model):
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.momentum = 0.0  # the statistics of the last step, in the place of a slow average
    form.make_train_function(force=True)
    form.train_on_batch(inputs)
    found = detect(model, list(pixels), batch_size=2)
    for own, detections in zip(boxes, found, strict=True):
        best = detections["boxes"][: len(own)]
        assert (common.iou_table(own, best).max(1) > 0.5).all()
        assert (detections["scores"][: len(own)] > 0.5).all() and (detections["labels"] == 1).all()


def test_the_model_shares_its_layers():
    model = common.small_detector()
    form = training_form(model)
    assert {id(weight) for weight in form.trainable_weights} == {id(weight) for weight in model.trainable_weights}
    assert with_seed(PAPER, 5).seed == 5 and with_seed(PAPER, 5).regions == 128


def test_other_models_have_no_training_form():
    with pytest.raises(ValueError, match="is not a detector; build one with"):
        training_form(common.backbone())
