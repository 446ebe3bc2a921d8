"""The architecture of a Faster R-CNN as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from keras_deepnets import scaling as scalings
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import Domain, Paper, option
from keras_deepnets.families.checks import check_choice, check_counts

PAPER = Paper(
    "R15",
    "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
    "Ren et al.",
    2015,
    "https://arxiv.org/abs/1506.01497",
)

COCO = Domain("coco/2017", (800, 1333, 3), 91, scalings.IMAGENET)
VOC = Domain("voc/2007", (600, 1000, 3), 21, scalings.IMAGENET)

FORMS = ("fpn", "c4", "vgg")
HEADS = ("two_layers", "convolutional")


@dataclass(frozen=True)
class FasterRCNNSpec:
    """A backbone, a form, and the numbers of proposals and detections."""

    backbone: str = option("resnet50", "name of the classifier whose layers the detector uses.")
    form: str = option(
        "fpn", '"fpn" (feature pyramid), "c4" (last stage per region) or "vgg" (hidden layers of VGG per region).'
    )
    pyramid_norm: bool = option(False, "batch normalisation in the feature pyramid.")
    pyramid_channels: int = option(256, "channels of the feature pyramid.")
    rpn_depth: int = option(1, "number of 3×3 convolutions of the region proposal network.")
    head: str = option("two_layers", 'box head of form "fpn": "two_layers" (fully connected) or "convolutional".')
    frozen_batch_norm: bool = option(
        True,
        "batch normalisation of the backbone uses its moving statistics and is not trained. Its epsilon is then 0; weights of other "
        "epsilons are converted.",
    )
    anchor_sizes: tuple[float, ...] = option(
        (32, 64, 128, 256, 512),
        'sizes of the anchors in pixels: one per level in form "fpn", all at each position in the other forms.',
    )
    anchor_ratios: tuple[float, ...] = option((0.5, 1.0, 2.0), "height over width of the anchors.")
    min_size: int = option(800, "length in pixels to which the shorter side of an image is resized.")
    max_size: int = option(1333, "largest length in pixels of the longer side.")
    candidates: int = option(1000, "best anchors per level before non-maximum suppression, at inference.")
    proposals: int = option(1000, "proposals per image, at inference.")
    training_candidates: int = option(2000, "best anchors per level before non-maximum suppression, in training.")
    training_proposals: int = option(2000, "proposals per image, in training.")
    proposal_nms_threshold: float = option(0.7, "largest intersection over union of two proposals.")
    score_threshold: float = option(0.05, "detections have a larger score.")
    nms_threshold: float = option(0.5, "largest intersection over union of two detections of a class.")
    detections: int = option(100, "largest number of detections per image.")

    domain: Domain = dataclasses.field(default=COCO, repr=False)

    def __post_init__(self):
        """Checks all values."""
        owner = "FasterRCNN"
        check_choice(owner, "form", self.form, FORMS)
        check_choice(owner, "head", self.head, HEADS)
        for name in ("anchor_sizes", "anchor_ratios"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not values or any(not _positive(value) for value in values):
                raise InputError(f"{owner}: {name}={values!r} must be a tuple of positive numbers, e.g. (32, 64, 128).")
            object.__setattr__(self, name, tuple(values))
        counts = ("pyramid_channels", "rpn_depth", "min_size", "max_size", "candidates", "proposals", "detections")
        check_counts(
            owner, **{name: getattr(self, name) for name in (*counts, "training_candidates", "training_proposals")}
        )
        if self.min_size > self.max_size:
            raise InputError(f"{owner}: min_size={self.min_size} must be at most max_size={self.max_size}.")
        for name in ("proposal_nms_threshold", "score_threshold", "nms_threshold"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise InputError(f"{owner}: {name}={value!r} must be a number in [0, 1].")

    @property
    def depth(self) -> int:
        """The depth of the backbone."""
        from keras_deepnets import registry

        return registry.constructor_of(self.backbone).facts.spec.depth

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 32 if self.form == "fpn" else 16


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
