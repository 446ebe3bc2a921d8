"""Our detectors with torchvision's weights against what torchvision computes, stage by stage.

The criteria: stages and losses 1e-4 relative, boxes 0.05 pixels, scores 1e-4, labels equal, gradients 1e-3. See `tests.golden.detection`
for what is not compared, and why.
"""

import functools

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import detection
from keras_deepnets.detection import Sampling, resizing, training_form
from keras_deepnets.models import flat_layers
from keras_deepnets.weights.names import weights_by_name
from tests.detection import common
from tests.golden import detection as golden
from tests.golden.deterministic import difference, summary

GOLDENS = golden.load()
SLOW = pytest.mark.slow
ALL = pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=() if case.small else SLOW) for case in golden.CASES]
)


def network(case):
    """Our network without weights."""
    if not case.small:
        name = "FasterRCNN_ResNet50_FPN" + ("_V2" if case.version == 2 else "")
        return getattr(detection, name)(**case.options)
    more = {"pyramid_norm": True, "rpn_depth": 2, "head": "convolutional"} if case.version == 2 else {}
    return detection.FasterRCNN(common.backbone(filters=(64, 128, 256, 512)), case.classes, **(case.options | more))


@functools.lru_cache(maxsize=1)
def built(case):
    """The network, and torchvision's tensors."""
    model, state = network(case), {}
    calibration = golden.calibration_of(GOLDENS[case.name])
    for name, weight in weights_by_name(model).items():
        theirs = case.naming.theirs(name)
        shape = case.naming.their_shape(tuple(weight.shape), name.rpartition("/")[0])
        state[theirs] = case.weights(theirs, shape, calibration)
    return model, state


def filled(case):
    """The network with torchvision's tensors, also if a step has changed its statistics."""
    model, state = built(case)
    assert kd.load_weights(model, dict(state)).naming == case.naming.name
    return model


def unmatched(theirs, ours):
    """The share of their boxes without one of ours within 0.05 pixels. Rounding may swap neighbours in the order of the scores."""
    return np.mean(
        [
            np.abs(np.asarray(own)[None] - boxes[:, None]).max(-1).min(1) > 0.05
            for boxes, own in zip(theirs, ours, strict=True)
        ]
    )


def worst(found, expected):
    """Each stage to its largest difference, relative to its largest number."""
    return {name: difference(value, expected[name]) for name, value in found.items()}


def detections(case, model):
    """The detections in both images. `detect` traces a graph; its result is that of the model itself, which is quicker here."""
    if case.frozen:
        return detection.detect(model, golden.images(), batch_size=2)
    batch, sizes = resizing.batched(golden.images(), model.min_size, model.max_size)
    found = {name: np.asarray(value) for name, value in model({"images": batch, "sizes": sizes}).items()}
    return [
        {
            "boxes": resizing.restored(found["boxes"][place, :count], sizes[place], golden.IMAGES[place]),
            "scores": found["scores"][place, :count],
            "labels": found["labels"][place, :count],
        }
        for place, count in enumerate(found["count"])
    ]


@ALL
def test_stages_and_detections(case):
    model, expected = filled(case), GOLDENS[case.name]
    batch, sizes = resizing.batched(golden.images(), model.min_size, model.max_size)
    x = model.get_layer("padding_mask")([model.get_layer("input_scaling")(batch), sizes])
    maps = list(model.get_layer("body")(x, training=False).values())
    outputs = [model.get_layer("rpn")(features) for features in maps]
    found = {}
    for level, features, (objectness, deltas) in zip(golden.LEVELS, maps, outputs, strict=True):
        found |= {f"pyramid {level}": summary(np.asarray(features))}
        found |= {
            f"objectness {level}": summary(np.asarray(objectness)),
            f"deltas {level}": summary(np.asarray(deltas)),
        }
    differences = worst(found, expected)
    assert max(differences.values()) < 1e-4, differences
    proposals = model.get_layer("proposals")(
        {
            "sizes": sizes,
            "objectness": [each[0] for each in outputs],
            "deltas": [each[1] for each in outputs],
            "anchors": model.get_layer("anchors")([x, *maps]),
        }
    )
    assert unmatched(expected["proposals"], proposals["boxes"]) == 0
    for place, ours in enumerate(detections(case, model)):
        theirs = expected[f"detections {place}"]
        assert len(theirs) == case.options["detections"] or case.small
        np.testing.assert_array_equal(ours["labels"], theirs[:, 5])
        np.testing.assert_allclose(ours["boxes"], theirs[:, :4], atol=0.05)
        np.testing.assert_allclose(ours["scores"], theirs[:, 4], atol=1e-4)
        assert len(np.unique(ours["labels"])) >= 3 and np.ptp(ours["scores"]) > 0.1


def prepared(case, model):
    """The training form with torchvision's proposals and the golden random numbers, and its input."""
    expected = GOLDENS[case.name]
    form = training_form(model, Sampling(seed=0, **case.sampling))
    batch, sizes = resizing.batched(golden.images(), model.min_size, model.max_size)
    lengths = {"anchor": 100_000, "region": case.options["training_proposals"] + golden.MOST_OBJECTS}
    for kind, length in lengths.items():
        # Behind the places of true boxes there is one more, which is always empty.
        numbers = np.pad(golden.draws(kind, length), [(0, 0), (0, 1)])
        form.get_layer(f"{kind}_targets").draw = lambda shape, places, numbers=numbers: numbers[:, : int(shape[1])]
    layer, kept = form.get_layer("region_targets"), {}

    def call(inputs, original=layer.call):
        kept["proposals"] = np.asarray(inputs["proposals"])
        return original(inputs | {"proposals": keras.ops.convert_to_tensor(expected["training proposals"])})

    layer.call = call
    return form, {"images": batch, "sizes": sizes} | golden.objects(case, sizes), kept


@ALL
def test_losses_and_gradients(case):
    import tensorflow as tf

    model, expected = filled(case), GOLDENS[case.name]
    form, inputs, kept = prepared(case, model)
    weights = weights_by_name(model)
    chosen = [weights[name] for name in case.gradients()]
    with tf.GradientTape() as tape:
        losses = form(inputs, training=True)
        total = sum(losses.values())
    # At the end of the list, and where an overlap is close to the threshold, rounding decides.
    assert unmatched(expected["training proposals"], kept["proposals"]) <= 0.01
    found = [float(losses[name]) for name in golden.LOSSES]
    np.testing.assert_allclose(found, expected["losses"], rtol=1e-4)
    gradients = tape.gradient(total, [weight.value for weight in chosen])
    found = {
        f"gradient {name}": summary(tf.convert_to_tensor(gradient).numpy())
        for name, gradient in zip(case.gradients(), gradients, strict=True)
    }
    differences = worst(found, expected)
    for name, value in differences.items():
        assert value < case.bound(name.removeprefix("gradient ")), (name, differences)


@ALL
def test_norms_are_those_of_the_version(case):
    norms = [layer for layer in flat_layers(built(case)[0]) if isinstance(layer, keras.layers.BatchNormalization)]
    own = {(layer.epsilon, layer.trainable) for layer in norms}
    assert own == {(0.0, False) if case.frozen else (1e-5, True)}
