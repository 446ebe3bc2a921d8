"""Object detection: Faster R-CNN on the networks of this library. Importing this package imports neither Keras nor TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets.lazy import lazy_names

if TYPE_CHECKING:
    from keras_deepnets.detection.anchors import Anchors
    from keras_deepnets.detection.detecting import detect
    from keras_deepnets.detection.detections import Detections
    from keras_deepnets.detection.detector import Detector
    from keras_deepnets.detection.faster_rcnn import (
        FasterRCNN,
        FasterRCNN_ResNet50_FPN,
        FasterRCNN_ResNet50_FPN_V2,
        FasterRCNN_ResNet101_C4,
        FasterRCNN_VGG16,
    )
    from keras_deepnets.detection.proposals import Proposals
    from keras_deepnets.detection.region_align import RegionAlign

__all__ = [
    "Anchors",
    "Detections",
    "Detector",
    "FasterRCNN",
    "FasterRCNN_ResNet50_FPN",
    "FasterRCNN_ResNet50_FPN_V2",
    "FasterRCNN_ResNet101_C4",
    "FasterRCNN_VGG16",
    "Proposals",
    "RegionAlign",
    "detect",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "anchors": ("Anchors",),
        "detecting": ("detect",),
        "detections": ("Detections",),
        "detector": ("Detector",),
        "faster_rcnn": (
            "FasterRCNN",
            "FasterRCNN_ResNet50_FPN",
            "FasterRCNN_ResNet50_FPN_V2",
            "FasterRCNN_ResNet101_C4",
            "FasterRCNN_VGG16",
        ),
        "proposals": ("Proposals",),
        "region_align": ("RegionAlign",),
    },
)
