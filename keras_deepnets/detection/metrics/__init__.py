"""Metrics of object detection: COCO AP, VOC AP, precision-recall curves and scores of images.

Importing this package imports only NumPy.
"""

from __future__ import annotations

from keras_deepnets.detection.metrics.evaluating import DetectionMetrics, evaluate_detections
from keras_deepnets.detection.metrics.images import ImageScore, image_score, ranked_images
from keras_deepnets.detection.metrics.results import ClassResult, Curve, DetectionEvaluation

__all__ = [
    "ClassResult",
    "Curve",
    "DetectionEvaluation",
    "DetectionMetrics",
    "ImageScore",
    "evaluate_detections",
    "image_score",
    "ranked_images",
]
