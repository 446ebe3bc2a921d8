import json

import pytest

from keras_deepnets.detection import data
from keras_deepnets.errors import InputError, NoSuchSplit
from tests.detection.data.folders import plain, save, write_coco

IMAGES = {
    "one.png": [
        (3, 4, 6, 26, 34, {"iscrowd": 0, "area": 500.5}),
        (1, 20.5, 10.25, 30, 20, {"iscrowd": 1, "area": 600, "segmentation": {"counts": [1], "size": [48, 64]}}),
    ],
    "two.png": [],
}
NAMES = {3: "car", 1: "person", 18: "dog"}


@pytest.fixture
def folder(tmp_path):
    write_coco(tmp_path, "train", IMAGES, NAMES)
    return tmp_path


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)


def change(folder, edit):
    path = folder / "annotations/instances_train.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_labels_are_in_the_order_of_the_numbers(folder):
    train = data.load(folder)
    assert train.classes == ("background", "person", "car", "dog")
    first, second = train.annotations
    assert plain(first) == ([[4, 6, 30, 40], [20.5, 10.25, 50.5, 30.25]], [2, 1])
    assert first.crowd.tolist() == [False, True] and first.area.tolist() == [500.5, 600]
    assert (first.image_id, second.image_id, len(second)) == ("7", "8", 0)
    assert (train.image(1) == save(folder / "copy.png", 8)).all()


def test_the_category_numbers_as_labels(folder):
    train = data.load(folder, labels="category_id")
    assert train.classes[:4] == ("background", "person", "N/A", "car") and train.classes[18] == "dog"
    assert len(train.classes) == 19 and plain(train.annotations[0])[1] == [3, 1]
    raises("leave classes out", folder, labels="category_id", classes=["dog"])
    raises("labels='ids'", folder, labels="ids")
    change(folder, lambda values: values["categories"].append({"id": 0, "name": "cat"}))
    raises("number 0, but label 0 is the background", folder, labels="category_id")
    assert data.load(folder).classes == ("background", "cat", "person", "car", "dog")


def test_a_background_category_without_objects_is_left_out(folder):
    change(folder, lambda values: values["categories"].append({"id": 0, "name": "background"}))
    assert data.load(folder).classes == ("background", "person", "car", "dog")
    change(folder, lambda values: values["annotations"][0].update(category_id=0))
    raises("label 0 is the background", folder)


def test_places_of_files(folder, tmp_path):
    path = folder / "annotations/instances_train.json"
    assert len(data.load(path)) == len(data.load(str(path), images=folder / "train")) == 2
    (folder / "train").rename(folder / "train2017")
    path.rename(folder / "annotations/instances_train2017.json")
    assert len(data.load(folder)) == 2
    raises("image one.png is not in .*images=", folder, images=folder / "annotations")
    with pytest.raises(
        NoSuchSplit, match=r"no annotations/instances_val.json, only annotations/instances_train2017.json"
    ):
        data.load(folder, "val")
    other = tmp_path / "roboflow"
    (other / "valid").mkdir(parents=True)
    (folder / "annotations/instances_train2017.json").rename(other / "valid/_annotations.coco.json")
    for name in IMAGES:
        (folder / "train2017" / name).rename(other / "valid" / name)
    assert len(data.load(other, "val")) == 2


def test_an_unknown_category_is_dropped(folder):
    change(folder, lambda values: values["annotations"][0].update(category_id=99))
    train = data.load(folder)
    assert train.dropped.names == {"of an unknown class": ("7: 99 (4, 6, 30, 40)",)}
    assert plain(train.annotations[0])[1] == [1]


def test_zero_width_is_dropped(folder):
    change(folder, lambda values: values["annotations"][0].update(bbox=[4, 6, 0, 5]))
    assert data.load(folder).dropped.counts == {"without area": 1}


def test_bad_input(folder):
    change(folder, lambda values: values["images"][0].update(width=640))
    raises("instances_train.json is for an image of 640x48 pixels, but .*one.png has 64x48", folder)
    change(folder, lambda values: values["images"][0].update(width=64, id=8))
    raises("several images have the same id", folder)
    change(folder, lambda values: values["images"][0].update(id=9))
    raises("an annotation belongs to image 7", folder)
    change(folder, lambda values: values["images"][0].update(id=7))
    (folder / "train/two.png").unlink()
    raises("two.png cannot be read", folder)
    assert len(data.load(folder, limit=1)) == 1
    change(folder, lambda values: [item.update(bbox=[0.1, 0.1, 0.5, 0.5]) for item in values["annotations"]])
    raises("looks like fractions", folder, limit=1)
    change(folder, lambda values: values["annotations"][0].pop("bbox"))
    raises("annotation 0 of image 7 has no bbox", folder, limit=1)
    change(folder, lambda values: values["annotations"][0].update(bbox=["left", 1, 2, 3]))
    raises("is not in COCO's format", folder, limit=1)
    change(folder, lambda values: values["annotations"][0].pop("image_id"))
    raises("an entry has no 'image_id'", folder, limit=1)
    path = folder / "annotations/instances_train.json"
    path.write_text("{")
    raises("is not JSON", folder)
    path.write_text("{}")
    raises("has no list of images, annotations, categories", folder)
    raises("does not exist", folder / "x.json")
