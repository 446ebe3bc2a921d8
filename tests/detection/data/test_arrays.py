import numpy as np
import pytest

from keras_deepnets.detection import data
from keras_deepnets.errors import InputError
from tests.data.conftest import picture

IMAGES = [picture(0, 48, 64), picture(1, 50, 40)]
BOXES = [np.array([[4, 6, 30, 40], [9, 9, 9, 20]]), np.zeros((0, 4))]
LABELS = [np.array([2, 1]), np.array([], np.int64)]


def make(images=IMAGES, boxes=BOXES, labels=LABELS, classes=("cat", "dog"), **options):
    return data.from_arrays(images, boxes, labels, classes, **options)


def test_arrays():
    train = make(crowd=[[True, False], []])
    assert train.classes == ("background", "cat", "dog") == make(classes=("background", "cat", "dog")).classes
    first, second = train.annotations
    assert (first.boxes.tolist(), first.labels.tolist(), first.crowd.tolist()) == ([[4, 6, 30, 40]], [2], [True])
    assert len(second) == 0 and (second.width, second.height) == (40, 50)
    assert train.dropped.names == {"without area": ("000000: cat (9, 9, 9, 20)",)}
    for index, example in enumerate(train.examples().as_numpy_iterator()):
        np.testing.assert_array_equal(example["image"], IMAGES[index])
        np.testing.assert_array_equal(train.image(index), IMAGES[index])


def test_arrays_as_shards(tmp_path):
    data.write_shards(make(), tmp_path / "shards")
    stored = data.load(tmp_path / "shards", "all")
    for index, annotation in enumerate(stored.annotations):
        np.testing.assert_array_equal(stored.image(index), IMAGES[int(annotation.image_id)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [np.array([0, 1]), []]}, "image 0: label 0; objects have labels from 1 to 2"),
        ({"labels": [np.array([1, 3]), []]}, "label 3"),
        ({"labels": [np.array([1.0, 2.0]), []]}, "labels are float64"),
        ({"labels": [np.array([1]), []]}, r"boxes are \(2, 4\) for labels \(1,\)"),
        ({"boxes": BOXES[:1]}, "2 images but boxes of 1"),
        ({"boxes": [np.array([[0.1, 0.1, 0.5, 0.5]] * 2), BOXES[1]]}, "looks like fractions"),
        ({"images": [image / 255 for image in IMAGES]}, "image 0 is float64"),
        ({"images": [], "boxes": [], "labels": []}, "no images"),
        ({"classes": ()}, "no classes"),
        ({"classes": ("cat", "background")}, "label 0 is the background"),
        ({"on_bad_boxes": "error"}, "bad boxes are 1 of 2 boxes"),
    ],
)
def test_bad_arrays(change, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**change)
    assert "\n" not in str(caught.value)
