"""Faster R-CNN: region proposals by a network, and a classifier of regions.

S. Ren, K. He, R. Girshick, J. Sun: "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NeurIPS 2015,
arXiv:1506.01497. The forms:

* ``fpn``: regions and proposals from a feature pyramid (Lin et al. 2017, arXiv:1612.03144), as in torchvision.
* ``c4``: one feature map of stride 16; the last stage of the backbone runs on each region (He et al. 2015, appendix A).
* ``vgg``: one feature map of stride 16; the hidden layers of VGG run on each region (section 3.3).

The papers' RoI pooling is RoIAlign here (He et al. 2017), which has no rounding. Nothing here imports Keras before a network is built.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_deepnets.detection.spec import PAPER, VOC, FasterRCNNSpec
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import Family, VariantFacts

if TYPE_CHECKING:
    import keras

_DETECTION = ("min_size", "max_size", "score_threshold", "nms_threshold", "detections")
_PROPOSALS = ("candidates", "proposals", "training_candidates", "training_proposals", "proposal_nms_threshold")
OPTIONS = ("frozen_batch_norm", *_DETECTION, "anchor_sizes", "anchor_ratios", *_PROPOSALS)


def _features(x: Any, spec: FasterRCNNSpec) -> Any:
    raise InputError("FasterRCNN: build it with a constructor of keras_deepnets.detection; it has no classifier form.")


FAMILY = Family("FasterRCNN", FasterRCNNSpec, _features, PAPER, OPTIONS, task="detection")

_COMMON = """
    Args:
        weights: None for random initialisation; the name of published weights (`model_info` lists those of this network), which are
            downloaded once; or the path of a weight file.
        classes: number of classes, with the background (label 0).
        weights_backbone: weights of the classifier, for the backbone: those of its constructor. None for random initialisation.
        name: name of the model.
{options}
    Returns:
        A `Detector`. Call it on ``{{"images": …, "sizes": …}}``, or use `keras_deepnets.detection.detect`.

    Raises:
        ValueError: a value is invalid. The message names the value, the rule and a way out.
        TypeError: an option is unknown. The message lists the valid options.
"""


def _variant(
    name: str, *, source: str, error: str, options: tuple[str, ...] = OPTIONS, **row: Any
) -> Callable[..., Any]:
    """A named constructor, made from one row of the table below."""
    facts = VariantFacts(name, FAMILY, row, options, source, error)
    classes_by_default = facts.spec.domain.classes

    def construct(weights=None, classes=None, *, weights_backbone=None, name=None, **architecture):
        from keras_deepnets.detection import building

        return building.build(
            facts,
            facts.spec_with(architecture),
            architecture,
            weights=weights,
            classes=classes,
            weights_backbone=weights_backbone,
            name=name or facts.name.lower(),
        )

    construct.__name__ = construct.__qualname__ = name
    construct.__module__ = __name__
    spec = facts.spec
    docs = {field.name: field.metadata.get("doc") for field in dataclasses.fields(FasterRCNNSpec)}
    lines = [f"{name}: {PAPER}, {source}.", "", f"    Backbone: {spec.backbone}. Published: {error}."]
    construct.__doc__ = (
        "\n".join(lines)
        + "\n"
        + _COMMON.format(options="".join(f"        {field}: {docs[field]}\n" for field in options))
    )
    kinds = inspect.Parameter
    parameters = [
        kinds("weights", kinds.POSITIONAL_OR_KEYWORD, default=None),
        kinds("classes", kinds.POSITIONAL_OR_KEYWORD, default=classes_by_default),
        kinds("weights_backbone", kinds.KEYWORD_ONLY, default=None),
        kinds("name", kinds.KEYWORD_ONLY, default=name.lower()),
        *(kinds(field, kinds.KEYWORD_ONLY, default=getattr(spec, field)) for field in options),
    ]
    construct.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    construct.facts = facts  # type: ignore[attr-defined]
    return construct


_PYRAMID = (*OPTIONS, "pyramid_channels")

FasterRCNN_ResNet50_FPN = _variant(
    "FasterRCNN_ResNet50_FPN",
    source="with the feature pyramid of Lin et al. 2017; torchvision's version 1",
    error="37.0 % box AP, COCO val2017 (torchvision)",
    options=_PYRAMID,
    form="fpn",
)
FasterRCNN_ResNet50_FPN_V2 = _variant(
    "FasterRCNN_ResNet50_FPN_V2",
    source="with the improvements of Li et al. 2021, arXiv:2111.11429; torchvision's version 2",
    error="46.7 % box AP, COCO val2017 (torchvision)",
    options=_PYRAMID,
    form="fpn",
    pyramid_norm=True,
    rpn_depth=2,
    head="convolutional",
    frozen_batch_norm=False,
)

_SINGLE: dict[str, Any] = {
    "min_size": 600,
    "max_size": 1000,
    "candidates": 6000,
    "proposals": 300,
    "training_candidates": 12000,
    "training_proposals": 2000,
    "nms_threshold": 0.3,
    "anchor_sizes": (128, 256, 512),
    "domain": VOC,
}
FasterRCNN_ResNet101_C4 = _variant(
    "FasterRCNN_ResNet101_C4",
    source="with the backbone of He et al. 2015, appendix A",
    error="76.4 % mAP, VOC 2007 test, trained on VOC 2007 and 2012; 27.2 % AP, COCO val, with a fourth anchor size of 64",
    backbone="resnet101",
    form="c4",
    **_SINGLE,
)
FasterRCNN_VGG16 = _variant(
    "FasterRCNN_VGG16",
    source="section 3.3",
    error="73.2 % mAP, VOC 2007 test, trained on VOC 2007 and 2012",
    backbone="vgg16",
    form="vgg",
    **_SINGLE,
)


def _with_fields(signature: inspect.Signature) -> inspect.Signature:
    """A signature whose ``**architecture`` is replaced by the fields of the spec."""
    given = [value for value in signature.parameters.values() if value.kind is not inspect.Parameter.VAR_KEYWORD]
    known = {value.name for value in given} | {"domain"}
    fields = [field for field in dataclasses.fields(FasterRCNNSpec) if field.name not in known]
    more = [inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default) for field in fields]
    return signature.replace(parameters=[*given, *more])


_BUILDER = VariantFacts(
    "FasterRCNN",
    FAMILY,
    {},
    tuple(field.name for field in dataclasses.fields(FasterRCNNSpec) if field.name != "domain"),
)


def FasterRCNN(
    backbone: str | keras.Model,
    classes: int = 91,
    *,
    weights: Any = None,
    weights_backbone: Any = None,
    name: str | None = None,
    **architecture: Any,
) -> Any:
    """Faster R-CNN with a feature pyramid on any network that has one.

    Args:
        backbone: name of a classifier of this library, or a Keras model with one image input. It needs feature maps of at least the
            strides 4, 8 and 16 (see `keras_deepnets.feature_pyramid`). The detector shares the layers of a given model.
        classes: number of classes, with the background (label 0).
        weights: path of a weight file of this detector, or None.
        weights_backbone: weights of the classifier, if `backbone` is a name.
        name: name of the model.
        **architecture: fields of `FasterRCNNSpec`, e.g. ``min_size=400`` or ``rpn_depth=2``. `anchor_sizes` has one size per level, and one
            more for the additional level.

    Returns:
        A `Detector`.

    Raises:
        ValueError: a value is invalid, or the network has no feature maps of these strides.
        TypeError: an option is unknown.
    """
    from keras_deepnets.detection import building

    own = backbone if isinstance(backbone, str) else backbone.name
    options = architecture | {"backbone": own}
    return building.build(
        _BUILDER,
        _BUILDER.spec_with(options),
        options,
        weights=weights,
        classes=classes,
        weights_backbone=weights_backbone,
        name=name or f"fasterrcnn_{own}",
        backbone=None if isinstance(backbone, str) else backbone,
    )


# With it, the registry knows the builder, which files of weights name.
FasterRCNN.facts = _BUILDER  # type: ignore[attr-defined]
FasterRCNN.__signature__ = _with_fields(inspect.signature(FasterRCNN))  # type: ignore[attr-defined]
