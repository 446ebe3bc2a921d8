"""Build a detector from its spec: backbone, pyramid or single map, proposals, heads, weights and record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_deepnets import layers, registry
from keras_deepnets.detection import necks
from keras_deepnets.detection.anchors import Anchors
from keras_deepnets.detection.detections import Detections
from keras_deepnets.detection.detector import Detector
from keras_deepnets.detection.proposals import Proposals
from keras_deepnets.detection.region_align import RegionAlign
from keras_deepnets.detection.spec import FasterRCNNSpec
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import VariantFacts
from keras_deepnets.families.checks import check_counts
from keras_deepnets.models import DeepNet, deep_graphs, flat_layers, scaling_of
from keras_deepnets.scaling import IMAGENET, Scaling
from keras_deepnets.surgery import feature_pyramid

SINGLE_LEVEL = 4
"""Level of the feature map of the forms ``c4`` and ``vgg``."""


class Trunk(NamedTuple):
    """The parts of a detector that come from a classifier.

    Attributes:
        body: images to feature maps by level.
        region_size: side of the grid of a region's features.
        head: function from ``[r, size, size, c]`` to ``[r, units]``.
        scaling: the scaling of its input.
    """

    body: keras.Model
    region_size: int
    head: Any
    scaling: Scaling


def build(
    facts: VariantFacts,
    spec: FasterRCNNSpec,
    options: Mapping[str, Any],
    *,
    weights: Any,
    classes: int | None,
    weights_backbone: Any,
    name: str,
    backbone: keras.Model | None = None,
) -> Detector:
    """The detector of `spec`. `backbone` takes the place of the spec's named one."""
    classes = spec.domain.classes if classes is None else classes
    check_counts(facts.name, classes=classes)
    if classes < 2:
        raise InputError(
            f"{facts.name}: classes={classes} must count the background: give one more than the kinds of objects."
        )
    if backbone is not None and weights_backbone is not None:
        raise InputError(
            f"{facts.name}: weights_backbone belongs to a named backbone; load weights into {backbone.name} yourself."
        )
    with deep_graphs():
        trunk = _TRUNKS[spec.form](facts.name, spec, weights_backbone, backbone)
        inputs, outputs = _network(spec, trunk, classes)
        record = {
            "architecture": {
                "constructor": facts.name,
                "family": facts.family.name,
                "options": _jsonable(options),
            },
            "scaling": trunk.scaling,
            "detection": {"classes": classes, "min_size": spec.min_size, "max_size": spec.max_size},
        }
        model = Detector(inputs, outputs, name=name, record=record)
    if weights is not None:
        from keras_deepnets.weights import load_weights

        load_weights(model, weights)
    return model


def _jsonable(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


def _network(spec: FasterRCNNSpec, trunk: Trunk, classes: int) -> tuple[Any, Any]:
    """Inputs and outputs of the detector."""
    inputs = {
        "images": keras.Input((None, None, 3), name="images"),
        "sizes": keras.Input((2,), dtype="int32", name="sizes"),
    }
    sizes = inputs["sizes"]
    x = layers.scale_input(inputs["images"], trunk.scaling)
    x = necks.PaddingMask(name="padding_mask")([x, sizes])
    maps = {int(key[1:]): features for key, features in trunk.body(x).items()}
    features = list(maps.values())
    channels = features[0].shape[-1]
    single = len(maps) == 1
    anchor_sizes = [spec.anchor_sizes] if single else [(size,) for size in spec.anchor_sizes]
    if len(anchor_sizes) != len(maps):
        raise InputError(
            f"FasterRCNN: anchor_sizes={spec.anchor_sizes} must have one size for each of the {len(maps)} levels "
            f"P{min(maps)} to P{max(maps)}."
        )
    rpn = necks.region_proposal_network(
        channels, 512 if single else channels, len(anchor_sizes[0]) * len(spec.anchor_ratios), spec.rpn_depth
    )
    outputs = [rpn(level) for level in features]
    found = Proposals(
        spec.candidates,
        spec.proposals,
        spec.training_candidates,
        spec.training_proposals,
        spec.proposal_nms_threshold,
        name="proposals",
    )(
        {
            "sizes": sizes,
            "objectness": [objectness for objectness, _ in outputs],
            "deltas": [deltas for _, deltas in outputs],
            "anchors": Anchors(anchor_sizes, spec.anchor_ratios, name="anchors")([x, *features]),
        },
    )
    pooled = dict(list(maps.items())[: None if single else -1])
    align = RegionAlign(tuple(pooled), trunk.region_size, name="region_align")
    regions = align([found["boxes"], *pooled.values()])
    head = _head(trunk, channels, classes)
    logits, deltas = head(ops.reshape(regions, (-1, *regions.shape[2:])))
    detections = Detections(spec.detections, spec.score_threshold, spec.nms_threshold, name="detections")(
        {
            "logits": ops.reshape(logits, (-1, spec.proposals, classes)),
            "deltas": ops.reshape(deltas, (-1, spec.proposals, 4 * classes)),
            "proposals": found["boxes"],
            "count": found["count"],
            "sizes": sizes,
        }
    )
    return inputs, detections


def _head(trunk: Trunk, channels: int, classes: int) -> keras.Model:
    """The model from the features of regions to class logits and deltas."""
    inputs = keras.Input((trunk.region_size, trunk.region_size, channels))
    return keras.Model(inputs, list(necks.predictors(trunk.head(inputs), classes)), name="head")


def _classifier(spec: FasterRCNNSpec, weights: Any, include_top: bool) -> DeepNet:
    """The classifier whose layers the detector uses."""
    constructor = registry.constructor_of(spec.backbone)
    options: dict[str, Any] = {}
    if weights is None and "downsample" in constructor.facts.options:
        options["downsample"] = "3x3"  # as in torchvision
    shape = (None, None, 3)
    return constructor(include_top, weights, input_shape=shape, **options)  # type: ignore[return-value]


def _pyramid_trunk(owner: str, spec: FasterRCNNSpec, weights: Any, backbone: keras.Model | None) -> Trunk:
    classifier = _classifier(spec, weights, False) if backbone is None else backbone
    pyramid = feature_pyramid(classifier)
    maps = {int(key[1:]): tensor for key, tensor in pyramid.output.items() if int(key[1:]) >= 2}
    if not {2, 3, 4} <= set(maps):
        raise InputError(
            f"{owner}: {classifier.name} has the feature maps {', '.join(pyramid.output)}; a detector needs P2 to P4 (strides 4 to 16)."
        )
    levels = necks.feature_pyramid_network(maps, spec.pyramid_channels, norm=spec.pyramid_norm)
    _freeze_norms(classifier, spec)
    body = keras.Model(classifier.input, {f"P{level}": features for level, features in levels.items()}, name="body")
    head = {"two_layers": necks.two_layer_head, "convolutional": necks.convolutional_head}[spec.head]
    return Trunk(body, 7, head, _scaling(classifier))


def _c4_trunk(owner: str, spec: FasterRCNNSpec, weights: Any, backbone: keras.Model | None) -> Trunk:
    """The first four stages as the body; the last stage and global average pooling as the head."""
    classifier = _classifier(spec, weights, False) if backbone is None else backbone
    maps = feature_pyramid(classifier).output
    if not {"P4", "P5"} <= set(maps):
        raise InputError(
            f"{owner}: {classifier.name} has the feature maps {', '.join(maps)}; form 'c4' needs P4 and P5."
        )
    _freeze_norms(classifier, spec)
    body = keras.Model(classifier.input, {"P4": maps["P4"]}, name="body")
    stage = keras.Model(maps["P4"], maps["P5"], name="head_stage")
    pool = keras.layers.GlobalAveragePooling2D(name="head_pool")
    return Trunk(body, 14, lambda x: pool(_applied(stage, x)), _scaling(classifier))


def _vgg_trunk(owner: str, spec: FasterRCNNSpec, weights: Any, backbone: keras.Model | None) -> Trunk:
    """The convolutions as the body, without the last pooling; the hidden layers as the head."""
    classifier = _classifier(spec, weights, True) if backbone is None else backbone
    names = [layer.name for layer in classifier.layers]
    if not {"block5_pool", "predictions"} <= set(names):
        raise InputError(f"{owner}: form 'vgg' needs a VGG with its classifier; {classifier.name} is none.")
    last = classifier.get_layer("block5_pool")
    body = keras.Model(classifier.input, {"P4": last.input}, name="body")
    hidden = keras.Model(last.output, classifier.get_layer("predictions").input, name="head_hidden")
    _freeze_norms(classifier, spec)
    return Trunk(body, 7, lambda x: _applied(hidden, x), _scaling(classifier))


_TRUNKS = {"fpn": _pyramid_trunk, "c4": _c4_trunk, "vgg": _vgg_trunk}


def _applied(part: keras.Model, x: Any) -> Any:
    """Apply the layers of a functional model one by one, so that they become layers of the model that contains `x`."""
    return part._run_through_graph(x, operation_fn=lambda operation: operation)


def _scaling(classifier: keras.Model) -> Scaling:
    return scaling_of(classifier) or IMAGENET


def _freeze_norms(classifier: keras.Model, spec: FasterRCNNSpec) -> None:
    """Freeze batch normalisation and move its epsilon into the moving variance, so that the outputs stay the same."""
    if not spec.frozen_batch_norm:
        return
    for layer in flat_layers(classifier):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
            if layer.epsilon:
                layer.moving_variance.assign(layer.moving_variance + layer.epsilon)
                layer.epsilon = 0.0
