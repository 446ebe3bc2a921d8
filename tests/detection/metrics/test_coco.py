import importlib.util
import json

import numpy as np
import pytest

from keras_deepnets.detection.metrics import DetectionMetrics, coco, evaluate_detections
from keras_deepnets.errors import InputError
from tests.detection.metrics.cases import CLASSES, of_pycocotools, random_case

SQUARE = {"boxes": [[10, 10, 110, 110]], "labels": [1]}
EMPTY = {"boxes": [], "labels": []}


def values(numbers):
    return np.array([np.nan if each is None else each for each in numbers], float)


def summary(evaluation):
    return values(getattr(evaluation, name) for name in coco.NAMES)


@pytest.mark.parametrize("seed", range(20))
def test_all_numbers_are_those_of_pycocotools(seed):
    pytest.importorskip("pycocotools")
    pytest.importorskip("faster_coco_eval")
    truths, detections = random_case(seed, images=1 if seed == 3 else 8, most=500 if seed % 5 == 0 else 25)
    twelve, per_class, ap50 = of_pycocotools(truths, detections)
    found = evaluate_detections(truths, detections, CLASSES)
    np.testing.assert_allclose(summary(found), twelve, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values(row.ap for row in found.per_class), per_class, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values(row.ap50 for row in found.per_class), ap50, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(40, 70))
def test_ap50_without_the_extra_is_that_of_pycocotools(seed):
    pytest.importorskip("pycocotools")
    truths, detections = random_case(seed, most=500 if seed % 5 == 0 else 25)
    twelve, _, ap50 = of_pycocotools(truths, detections)
    found = evaluate_detections(truths, detections, CLASSES, coco=False)
    np.testing.assert_allclose(values(row.ap50 for row in found.per_class), ap50, rtol=0, atol=1e-12)
    assert found.ap50 == pytest.approx(twelve[1], abs=1e-12)
    assert found.ap is found.ap75 is found.ar1 is found.per_class[0].ap is None


def test_one_perfect_large_box():
    pytest.importorskip("faster_coco_eval")
    found = evaluate_detections([SQUARE, EMPTY], [{**SQUARE, "scores": [0.9]}, {**EMPTY, "scores": []}], CLASSES)
    # 100 x 100 pixels are above 96 x 96: large. AP 1 is 101 precisions of 1 / (1 + eps).
    assert [found.ap, found.ap50, found.ap75, found.ap_large, found.ar1, found.ar_large] == pytest.approx([1] * 6)
    assert found.ap_small is found.ap_medium is found.ar_small is None
    assert found.voc07 == found.voc == 1
    assert (found.images, found.objects, found.detections) == (2, 1, 1)
    assert found.per_class[0][:3] == ("cat", 1, 1)
    assert found.per_class[1] == ("dog", 0, 0, None, None, None, None)


def test_iou_of_the_box_decides():
    pytest.importorskip("faster_coco_eval")
    # 80 of 100 columns: IoU 0.8, which passes 0.50, 0.55, ..., 0.80: 7 of the 10 thresholds.
    shifted = {"boxes": [[10, 10, 90, 110]], "labels": [1], "scores": [0.5]}
    found = evaluate_detections([SQUARE], [shifted], CLASSES)
    assert (found.ap, found.ap50, found.ap75, found.ar100) == pytest.approx((0.7, 1, 1, 0.7))


def test_nothing_is_found_or_nothing_is_there():
    pytest.importorskip("faster_coco_eval")
    found = evaluate_detections([SQUARE], [{**EMPTY, "scores": []}], CLASSES)
    assert (found.ap, found.ap50, found.ar100, found.voc07, found.voc) == (0, 0, 0, 0, 0)
    assert found.per_class[0].ap50 == 0 and len(found.curves[0].recall) == 0
    found = evaluate_detections([EMPTY], [{**SQUARE, "scores": [1]}], CLASSES)
    assert found.ap is found.ap50 is found.ar100 is found.voc07 is found.voc is None
    assert found.curves == () and found.detections == 1


def test_areas_of_the_annotations_are_used():
    pytest.importorskip("faster_coco_eval")
    truth = {**SQUARE, "area": [900.0]}  # the outline of a thin object in a large box
    found = evaluate_detections([truth], [{**SQUARE, "scores": [1]}], CLASSES)
    assert found.ap_small == pytest.approx(1) and found.ap_large is None


def test_nothing_is_printed(capfd):
    pytest.importorskip("faster_coco_eval")
    evaluate_detections([SQUARE], [{**SQUARE, "scores": [1]}], CLASSES)
    assert capfd.readouterr() == ("", "")


def test_without_the_extra(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(coco, "find_spec", lambda name: None if name == "faster_coco_eval" else real(name))
    with pytest.raises(InputError, match=r"faster-coco-eval.*pip install 'keras-deepnets\[detection\]'.*coco=False"):
        DetectionMetrics(CLASSES)
    found = evaluate_detections([SQUARE], [{**SQUARE, "scores": [1]}], CLASSES, coco=False)
    assert found.ap is None and found.ap50 == pytest.approx(1) and found.voc07 == 1
    assert found.table()[0] == ("class", "images", "objects", "AP50", "VOC07", "VOC")


def test_json_and_table():
    pytest.importorskip("faster_coco_eval")
    truths, detections = random_case(1)
    found = evaluate_detections(truths, detections, CLASSES)
    read = json.loads(json.dumps(found.to_dict()))
    assert read["ap"] == found.ap and read["per_class"][1]["voc07"] == found.per_class[1].voc07
    assert read["per_class"][3]["ap"] is None  # no yak
    assert list(read["curves"]) == ["cat", "dog", "owl"]
    assert np.mean(read["curves"]["dog"]) == pytest.approx(found.per_class[1].ap50, abs=1e-15)
    heading, *rows, total = found.table()
    assert heading == ("class", "images", "objects", "AP", "AP50", "VOC07", "VOC")
    assert [row[0] for row in rows] == list(CLASSES[1:]) and rows[3][1:] == ("0", "0", "–", "–", "–", "–")
    assert total == ("all", "8", str(found.objects), *(f"{100 * each:.1f}" for each in _means(found)))


def _means(found):
    return found.ap, found.ap50, found.voc07, found.voc


def test_images_in_parts_give_the_same_result():
    truths, detections = random_case(2)
    metrics = DetectionMetrics(CLASSES, coco=False)
    for at, pair in enumerate(zip(truths, detections, strict=True)):
        metrics.update(*pair)
        if at == 4:
            assert metrics.result() == evaluate_detections(truths[:5], detections[:5], CLASSES, coco=False)
    assert metrics.result() == evaluate_detections(truths, detections, CLASSES, coco=False)
