"""VOC AP against values calculated by hand and against a direct transcription of the devkit."""

import numpy as np
import pytest

from keras_deepnets.detection.metrics import evaluate_detections
from tests.detection.metrics.cases import CLASSES, random_case

CAT = ("background", "cat")


def boxes(*lefts):
    """Squares of 10 pixels, at these left edges."""
    return [[left, 0, left + 10, 10] for left in lefts]


def evaluated(truths, detections, classes=CAT):
    return evaluate_detections(truths, detections, classes, coco=False)


def one_image(lefts, detections, **flags):
    """Truth with squares, and detections as (left edge, score)."""
    truth = {"boxes": boxes(*lefts), "labels": [1] * len(lefts), **flags}
    found = {"boxes": boxes(*(left for left, _ in detections)), "scores": [score for _, score in detections]}
    return evaluated([truth], [{**found, "labels": [1] * len(detections)}])


def test_eleven_points_by_hand():
    # Ranked: true, false, true; three objects. Recall 1/3, 1/3, 2/3; precision 1, 1/2, 2/3.
    # Levels 0 to 0.3: 1. Levels 0.4, 0.5, 0.6: 2/3. Levels 0.7 to 1: 0.
    found = one_image((0, 100, 200), [(0, 0.9), (50, 0.8), (100, 0.7)])
    assert found.voc07 == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    # All points: 1/3 x 1 + 1/3 x 2/3.
    assert found.voc == pytest.approx(5 / 9)
    # 101 points: recall 0 to 0.33: 34 levels at 1; 0.34 to 0.66: 33 at 2/3.
    assert found.ap50 == pytest.approx((34 + 33 * 2 / 3) / 101)
    curve = found.curves[0]
    assert curve.recall == pytest.approx([1 / 3, 1 / 3, 2 / 3]) and curve.precision == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.scores.tolist() == [0.9, 0.8, 0.7]


def test_a_recall_on_a_level_reaches_it():
    # 3 of 10 found: levels 0, 0.1, 0.2 and 0.3 are reached, although 3 * 0.1 > 0.3 in floats.
    found = one_image(range(0, 1000, 100), [(0, 0.9), (100, 0.8), (200, 0.7)])
    assert found.voc07 == pytest.approx(4 / 11) and found.voc == pytest.approx(0.3)


def test_second_detection_of_an_object_is_false():
    found = one_image((0, 100), [(0, 0.9), (1, 0.8), (100, 0.7)])
    assert found.voc == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert found.voc07 == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_difficult_objects_do_not_count():
    # Both detections of the difficult object are ignored in VOC. In COCO, the second one is false.
    found = one_image((0, 100), [(100, 0.9), (101, 0.8), (0, 0.7)], difficult=[False, True])
    assert (found.objects, found.voc07, found.voc) == (1, 1, 1)
    assert found.ap50 == pytest.approx(0.5)
    found = one_image((100,), [(100, 0.9)], difficult=[True])
    assert found.objects == 0 and found.voc07 is found.voc is found.ap50 is None


def test_detections_inside_a_crowd_are_ignored():
    truth = {"boxes": [[0, 0, 100, 100], [200, 0, 210, 10]], "labels": [1, 1], "crowd": [True, False]}
    found = {"boxes": boxes(0, 30, 60, 94, 96, 200), "scores": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], "labels": [1] * 6}
    found = evaluated([truth], [found])
    # The detection at 94 has 60 % of its area in the crowd: ignored. That at 96 has 40 %: false.
    assert found.voc == found.voc07 == pytest.approx(0.5) and found.ap50 == pytest.approx(0.5)


def test_an_overlap_of_half_is_enough():
    # 10 and 20 wide, one inside the other: IoU 0.5.
    truth = {"boxes": [[0, 0, 20, 10]], "labels": [1]}
    assert evaluated([truth], [{"boxes": boxes(0), "scores": [1], "labels": [1]}]).voc == 1
    assert evaluated([truth], [{"boxes": [[0, 0, 9.99, 10]], "scores": [1], "labels": [1]}]).voc == 0


def test_the_best_object_counts_even_if_it_is_taken():
    # The second detection is nearest to the first object, which is taken. VOC: false. COCO: it takes the free object.
    truth = {"boxes": [[0, 0, 20, 10], [6, 0, 26, 10]], "labels": [1, 1]}
    found = {"boxes": [[0, 0, 20, 10], [2, 0, 22, 10]], "scores": [0.9, 0.8], "labels": [1, 1]}
    found = evaluated([truth], [found])
    assert found.voc == pytest.approx(0.5) and found.ap50 == pytest.approx(1)


def test_mean_is_over_classes_with_objects():
    truth = {"boxes": boxes(0, 100), "labels": [1, 2]}
    found = {"boxes": boxes(0, 50), "scores": [0.9, 0.8], "labels": [1, 3]}
    found = evaluated([truth], [found], ("background", "cat", "dog", "owl"))
    assert [row.voc for row in found.per_class] == [1, 0, None]
    assert found.voc == found.voc07 == 0.5
    assert [curve.name for curve in found.curves] == ["cat", "dog"]


def devkit(truths, detections, label):
    """VOCevaldet.m with IoU of continuous boxes; crowds count as difficult objects here. Returns 11-point and all-point AP."""
    rows = sorted(
        (
            (-score, image, at)
            for image, found in enumerate(detections)
            for at, score in enumerate(found["scores"])
            if found["labels"][at] == label
        ),
        key=lambda row: row[0],
    )
    positives, taken, true, false = 0, set(), [], []
    for truth in truths:
        positives += sum(1 for at, name in enumerate(truth["labels"]) if name == label and not truth["difficult"][at])
    for _, image, at in rows:
        a, best, place = detections[image]["boxes"][at], -np.inf, None
        for other, b in enumerate(truths[image]["boxes"]):
            if truths[image]["labels"][other] != label:
                continue
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            if width > 0 and height > 0:
                shared = width * height
                union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
                if shared / union > best:
                    best, place = shared / union, other
        hit = best >= 0.5
        if hit and truths[image]["difficult"][place]:
            true.append(0), false.append(0)
        elif hit and (image, place) not in taken:
            taken.add((image, place))
            true.append(1), false.append(0)
        else:
            true.append(0), false.append(1)
    if positives == 0:
        return None, None
    true, false = np.cumsum(true), np.cumsum(false)
    recall = true / positives
    precision = np.nan_to_num(true / np.maximum(true + false, 1e-9))
    eleven = sum(max(precision[recall >= level - 1e-9], default=0) for level in np.linspace(0, 1, 11)) / 11
    recall, precision = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for at in range(len(precision) - 2, -1, -1):
        precision[at] = max(precision[at], precision[at + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return eleven, np.sum((recall[steps + 1] - recall[steps]) * precision[steps + 1])


@pytest.mark.parametrize("seed", range(25))
def test_random_cases_are_those_of_the_devkit(seed):
    truths, detections = random_case(100 + seed, most=200 if seed % 5 == 0 else 25)
    for truth in truths:
        del truth["crowd"]
    found = evaluated(truths, detections, CLASSES)
    for label, row in enumerate(found.per_class, start=1):
        eleven, area = devkit(truths, detections, label)
        if eleven is None:
            assert row.voc07 is row.voc is None
        else:
            assert (row.voc07, row.voc) == pytest.approx((eleven, area), abs=1e-12)
