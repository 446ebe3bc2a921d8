import subprocess
import sys

import numpy as np
import pytest

from keras_deepnets.detection.metrics import DetectionMetrics, evaluate_detections
from keras_deepnets.errors import InputError

CLASSES = ("background", "cat", "dog")
TRUTH = {"boxes": [[10, 20, 50, 60]], "labels": [1]}
FOUND = {"boxes": [[12, 20, 50, 64]], "scores": [0.5], "labels": [1]}


def evaluated(truths, detections, classes=CLASSES):
    return evaluate_detections(truths, detections, classes, coco=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0]}, "truth of image 1: label 0 at 0 is the background; remove padding"),
        ({"labels": [3]}, "label 3 is beyond the classes; labels are 1 to 2"),
        ({"labels": [-1]}, "label -1 is beyond the classes"),
        ({"labels": [1.5]}, "label 1.5 is not a whole number"),
        ({"labels": [1, 2]}, r"labels has shape \[2\], and there are 1 boxes"),
        ({"labels": ["cat"]}, "labels are not numbers"),
        ({"boxes": [[10, 20, 50]]}, r"boxes have shape \[1, 3\]; give \[n, 4\]"),
        ({"boxes": [[10, np.nan, 50, 60]]}, "boxes has nan at 0; give finite numbers"),
        ({"boxes": [[50, 20, 10, 60]]}, r"box \[50, 20, 10, 60\] ends before it starts; give x1, y1, x2, y2"),
        ({"crowd": [2]}, "crowd has 2; give true or false"),
        ({"difficult": []}, "difficult has shape"),
        ({"area": [-1.0]}, "area has -1; an area is in square pixels"),
        ({"area": [np.inf]}, "area has inf at 0"),
    ],
)
def test_wrong_truths(change, message):
    with pytest.raises(InputError, match=message) as caught:
        evaluated([TRUTH, TRUTH | change], [FOUND, FOUND])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0]}, "detections of image 0: label 0 at 0 is the background"),
        ({"labels": [3]}, "label 3 is beyond the classes"),
        ({"scores": [np.nan]}, "scores has nan at 0"),
        ({"scores": 0.5}, r"scores has shape \[\], and there are 1 boxes"),
        ({"scores": []}, r"scores has shape \[0\], and there are 1 boxes"),
        ({"boxes": [[12, 20, 40, 4]]}, "not x, y, width, height"),
    ],
)
def test_wrong_detections(change, message):
    with pytest.raises(InputError, match=message):
        evaluated([TRUTH], [FOUND | change])


def test_missing_values():
    with pytest.raises(InputError, match="there is no 'scores' among boxes, labels; add it"):
        evaluated([TRUTH], [TRUTH])
    with pytest.raises(InputError, match="truth of image 0: list is not a mapping"):
        evaluated([[[0, 0, 1, 1]]], [FOUND])


def test_a_wrong_image_is_not_added():
    metrics = DetectionMetrics(CLASSES, coco=False)
    metrics.update(TRUTH, FOUND)
    with pytest.raises(InputError, match="image 1"):
        metrics.update(TRUTH, FOUND | {"labels": [7]})
    assert metrics.result() == evaluated([TRUTH], [FOUND])


def test_fractions():
    small = np.array([[0.1, 0.2, 0.5, 0.6]])
    with pytest.raises(
        InputError, match=r"true boxes look like fractions \(coordinates to 0.6, those of the detections to 64\)"
    ):
        evaluated([TRUTH | {"boxes": small}], [FOUND])
    with pytest.raises(
        InputError, match=r"detections look like fractions \(coordinates to 0.6, those of the true boxes to 60"
    ):
        evaluated([TRUTH], [FOUND | {"boxes": small}])
    with pytest.raises(InputError, match="true boxes look like fractions"):
        evaluated([TRUTH | {"boxes": small}], [FOUND | {"boxes": small}])
    # One small box among others in pixels is no fraction.
    tiny = TRUTH | {"boxes": [[0, 0, 1, 1]]}
    assert evaluated([TRUTH, tiny], [FOUND, FOUND]).objects == 2


def test_lengths_and_classes():
    with pytest.raises(InputError, match="There are 2 truths and 1 detections; give one of each per image"):
        evaluated([TRUTH, TRUTH], [FOUND])
    with pytest.raises(InputError, match="There are no images"):
        evaluated([], [])
    for classes in (("cat", "dog"), ("background",), "background"):
        with pytest.raises(InputError, match='give "background" first'):
            evaluated([TRUTH], [FOUND], classes)


def test_importing_the_metrics_imports_no_framework():
    code = (
        "import sys; import keras_deepnets.detection.metrics, keras_deepnets.detection.pictures; "
        "print([name for name in ('tensorflow', 'keras', 'matplotlib', 'PIL', 'faster_coco_eval') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
