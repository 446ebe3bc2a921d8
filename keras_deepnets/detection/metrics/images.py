"""The score of each image, to find the images that a detector handles best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_deepnets.detection.metrics.inputs import Detection, checked_classes, checked_detection, checked_truth
from keras_deepnets.detection.metrics.matching import FALSE, TRUE, by_score, match_voc, same_class_overlaps


class ImageScore(NamedTuple):
    """The score of one image.

    Attributes:
        image: Index of the image.
        f1: F1 score, 2 TP / (2 TP + FP + FN). None if the image has neither objects nor detections that count.
        true_positives: Number of found objects.
        false_positives: Number of detections without an object.
        false_negatives: Number of missed objects.
    """

    image: int
    f1: float | None
    true_positives: int
    false_positives: int
    false_negatives: int


def image_score(
    truth: Mapping[str, Any],
    detection: Mapping[str, Any],
    classes: Sequence[str],
    min_score: float = 0.5,
    image: int = 0,
) -> ImageScore:
    """Score one image at IoU 0.5, matched by VOC's rule. Crowds, difficult objects and their detections do not count.

    Args:
        truth: As in `evaluate_detections`.
        detection: As in `evaluate_detections`.
        classes: Class names, with the background first.
        min_score: Detections below it do not count.
        image: Index of the image.

    Raises:
        InputError: As in `evaluate_detections`.
    """
    names = checked_classes(classes)
    objects = checked_truth(truth, len(names), image)
    found = by_score(checked_detection(detection, len(names), image))
    kept = found.scores >= min_score
    found = Detection(found.boxes[kept], found.scores[kept], found.labels[kept])
    outcomes = match_voc(same_class_overlaps(objects, found), objects.crowd, objects.difficult)
    true, false = int(np.sum(outcomes == TRUE)), int(np.sum(outcomes == FALSE))
    missed = int(np.sum(~(objects.crowd | objects.difficult))) - true
    total = 2 * true + false + missed
    return ImageScore(image, 2 * true / total if total else None, true, false, missed)


def ranked_images(scores: Sequence[ImageScore]) -> list[ImageScore]:
    """Sort the scores, best first. Images without objects and detections are left out.

    Of equal F1 scores above 0, the image with more objects found is better. Of scores of 0, the image with fewer errors is better.
    """
    known = [score for score in scores if score.f1 is not None]
    return sorted(known, key=lambda each: (-(each.f1 or 0.0), -each.true_positives, _errors(each)))


def _errors(score: ImageScore) -> int:
    return score.false_positives + score.false_negatives
