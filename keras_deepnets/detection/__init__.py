"""Object detection: Faster R-CNN on the networks of this library. Importing this package imports neither Keras nor TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets.detection import data, export, metrics, training
from keras_deepnets.lazy import lazy_names

if TYPE_CHECKING:
    from keras_deepnets.detection.anchors import Anchors
    from keras_deepnets.detection.data import DetectionData, load
    from keras_deepnets.detection.detecting import detect
    from keras_deepnets.detection.detections import Detections
    from keras_deepnets.detection.detector import Detector
    from keras_deepnets.detection.evaluating import evaluate
    from keras_deepnets.detection.faster_rcnn import (
        FasterRCNN,
        FasterRCNN_ResNet50_FPN,
        FasterRCNN_ResNet50_FPN_V2,
        FasterRCNN_ResNet101_C4,
        FasterRCNN_VGG16,
    )
    from keras_deepnets.detection.metrics import DetectionEvaluation, DetectionMetrics, evaluate_detections
    from keras_deepnets.detection.pictures import draw_boxes, save_detections
    from keras_deepnets.detection.proposals import Proposals
    from keras_deepnets.detection.region_align import RegionAlign
    from keras_deepnets.detection.sampling import Sampling
    from keras_deepnets.detection.training import DetectionRecipe, get_recipe, recipes, train
    from keras_deepnets.detection.training_model import TrainingDetector, training_form

_MODULES = {
    "anchors": ("Anchors",),
    "data": ("DetectionData", "load"),
    "detecting": ("detect",),
    "detections": ("Detections",),
    "detector": ("Detector",),
    "evaluating": ("evaluate",),
    "faster_rcnn": (
        "FasterRCNN",
        "FasterRCNN_ResNet50_FPN",
        "FasterRCNN_ResNet50_FPN_V2",
        "FasterRCNN_ResNet101_C4",
        "FasterRCNN_VGG16",
    ),
    "metrics": ("DetectionEvaluation", "DetectionMetrics", "evaluate_detections"),
    "pictures": ("draw_boxes", "save_detections"),
    "proposals": ("Proposals",),
    "region_align": ("RegionAlign",),
    "sampling": ("Sampling",),
    "training": ("DetectionRecipe", "get_recipe", "recipes", "train"),
    "training_model": ("TrainingDetector", "training_form"),
}

__all__ = [
    "Anchors",
    "DetectionData",
    "DetectionEvaluation",
    "DetectionMetrics",
    "DetectionRecipe",
    "Detections",
    "Detector",
    "FasterRCNN",
    "FasterRCNN_ResNet50_FPN",
    "FasterRCNN_ResNet50_FPN_V2",
    "FasterRCNN_ResNet101_C4",
    "FasterRCNN_VGG16",
    "Proposals",
    "RegionAlign",
    "Sampling",
    "TrainingDetector",
    "data",
    "detect",
    "draw_boxes",
    "evaluate",
    "evaluate_detections",
    "export",
    "get_recipe",
    "load",
    "metrics",
    "recipes",
    "save_detections",
    "train",
    "training",
    "training_form",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES, first="keras")
