import numpy as np
import pytest
import tensorflow_datasets as tfds

from keras_deepnets.detection import data
from keras_deepnets.detection.data import records
from keras_deepnets.errors import InputError, NoSuchSplit
from tests.data.conftest import picture
from tests.detection.data.folders import plain


class Coco(tfds.core.GeneratorBasedBuilder):
    """COCO's features."""

    VERSION = tfds.core.Version("1.0.0")
    NAMES = tuple(f"class {number}" for number in range(80))

    def _info(self):
        objects = {
            "area": np.int64,
            "bbox": tfds.features.BBoxFeature(),
            "id": np.int64,
            "is_crowd": np.bool_,
            "label": tfds.features.ClassLabel(names=self.NAMES),
        }
        features = {
            "image": tfds.features.Image(encoding_format="png"),
            "image/filename": tfds.features.Text(),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(objects),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(6), "validation": self._generate_examples(2)}

    def _generate_examples(self, count):
        for index in range(count):
            box = tfds.features.BBox(ymin=0.25, xmin=0.5, ymax=0.75, xmax=1.0)
            item = {"area": 99, "bbox": box, "id": 1, "is_crowd": True, "label": 10 + index}
            yield (
                index,
                {
                    "image": picture(index, 48, 64),
                    "image/filename": f"{index}.png",
                    "image/id": 100 + index,
                    "objects": [item] * (index % 3),
                },
            )


class Voc(tfds.core.GeneratorBasedBuilder):
    """VOC's features."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(),
            "is_difficult": np.bool_,
            "label": tfds.features.ClassLabel(names=["aeroplane", "bicycle"]),
        }
        features = {
            "image": tfds.features.Image(),
            "image/filename": tfds.features.Text(),
            "objects": tfds.features.Sequence(objects),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        # VOC's numbers 17, 13, 48, 36 as fractions.
        box = tfds.features.BBox(ymin=13 / 48, xmin=17 / 64, ymax=36 / 48, xmax=48 / 64)
        objects = [{"bbox": box, "is_difficult": True, "label": 1}]
        yield 0, {"image": picture(0, 48, 64), "image/filename": "000012.jpg", "objects": objects}


class KdNoBoxes(tfds.core.GeneratorBasedBuilder):
    """No detection data."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"image": tfds.features.Image()}))

    def _split_generators(self, manager):
        return {}

    def _generate_examples(self):
        yield from ()


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that gives the prepared builder of a name, as `tfds.builder` would."""
    folder = tmp_path_factory.mktemp("tfds")
    made = {name: kind(data_dir=folder) for name, kind in {"coco": Coco, "voc": Voc, "kd_no_boxes": KdNoBoxes}.items()}
    for name in ("coco", "voc"):
        made[name].download_and_prepare()
    return lambda name, **_: made[name.partition("/")[0]]


@pytest.fixture(autouse=True)
def fake(opened, monkeypatch):
    monkeypatch.setattr(tfds, "builder", opened)


def test_fractions_become_pixels():
    train = data.load("coco/2017")
    assert train.classes == ("background", *Coco.NAMES) and train.size == 6
    by_name = {each.image_id: each for each in train.annotations}
    for index in range(6):
        annotation = by_name[str(100 + index)]
        assert plain(annotation) == ([[32, 12, 64, 36]] * (index % 3), [11 + index] * (index % 3))
        assert annotation.crowd.all() and annotation.area.tolist() == [99] * (index % 3)
        position = train.annotations.index(annotation)
        np.testing.assert_array_equal(train.image(position), picture(index, 48, 64))
    for example, annotation in zip(train.examples().as_numpy_iterator(), train.annotations, strict=True):
        np.testing.assert_array_equal(example["image"], picture(int(annotation.image_id) - 100, 48, 64))
    assert len(data.load("coco", "val")) == 2 and len(data.load("coco", limit=3)) == 3


def test_parts_of_a_split():
    whole = [each.image_id for each in data.load("coco").annotations]
    assert [each.image_id for each in data.load("coco", "train[2:5]").annotations] == whole[2:5]


def test_the_numbers_of_the_categories():
    assert len(records.COCO_NUMBERS) == 80 and records.COCO_NUMBERS[-1] == 90 and 12 not in records.COCO_NUMBERS
    train = data.load("coco", labels="category_id")
    assert len(train.classes) == 91 and train.classes[12] == "N/A" and train.classes[13] == "class 11"
    labels = {each.image_id: set(each.labels.tolist()) for each in train.annotations}
    assert labels["101"] == {13} and labels["102"] == {14}
    with pytest.raises(InputError, match="voc has no category numbers"):
        data.load("voc", labels="category_id")


def test_voc_counts_from_one():
    train = data.load("voc/2007")
    np.testing.assert_allclose(train.annotations[0].boxes, [[16, 12, 48, 36]], atol=1e-4)
    assert train.annotations[0].difficult.tolist() == [True] and train.annotations[0].image_id == "000012"
    np.testing.assert_allclose(data.load("voc", voc_offset=0).annotations[0].boxes, [[17, 13, 48, 36]], atol=1e-4)


def test_bad_names():
    with pytest.raises(NoSuchSplit, match="split 'test': coco has train, validation"):
        data.load("coco", "test")
    with pytest.raises(InputError, match=r"images=.* is not for TFDS"):
        data.load("coco", images="x")
    with pytest.raises(InputError, match="no image and objects with bbox and label"):
        records.parse("kd_no_boxes", "train")
