import io

import numpy as np
import pytest
from PIL import Image

from keras_deepnets.detection import data
from keras_deepnets.errors import InputError, NoSuchSplit
from tests.detection.data.folders import exif, plain, save, write_voc, xml

IMAGES = {
    "a1": [("dog", 5, 7, 30, 40, "<difficult>1</difficult>"), ("cat", 1, 1, 64, 48)],
    "a2": [("cow", 2, 2, 9, 9, "<part><name>head</name></part>")],
    "a10": [],
}


@pytest.fixture
def folder(tmp_path):
    return write_voc(tmp_path / "voc", IMAGES, {"train": ["a1", "a10"], "val": ["a2"], "dog_train": ["a1"]})


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_boxes_count_from_zero_and_labels_from_one(folder):
    train = data.load(folder, "train")
    assert train.classes == ("background", "cat", "cow", "dog")
    assert [each.image_id for each in train.annotations] == ["a1", "a10"]
    assert plain(train.annotations[0]) == ([[4, 6, 30, 40], [0, 0, 64, 48]], [3, 1])
    assert train.annotations[0].difficult.tolist() == [True, False]
    assert train.annotations[0].crowd.tolist() == [False, False]
    assert train.annotations[0].area.tolist() == [26 * 34, 64 * 48]
    empty = train.annotations[1]
    assert empty.boxes.shape == (0, 4) and (empty.boxes.dtype, empty.labels.dtype) == (np.float32, np.int64)
    assert train.class_counts == (0, 1, 0, 1)
    assert plain(data.load(folder, "train", voc_offset=0).annotations[0])[0][0] == [5, 7, 30, 40]


def test_all_splits_have_the_same_classes(folder):
    validation = data.load(folder, "validation")
    assert validation.classes == data.load(folder).classes and plain(validation.annotations[0])[1] == [2]
    assert [each.image_id for each in data.load(folder, "all").annotations] == ["a1", "a2", "a10"]
    assert len(data.load(folder, "all", limit=2)) == 2


def test_the_official_classes_are_in_their_order():
    from keras_deepnets.detection.data import voc

    assert len(voc.CLASSES) == 20 and sorted(voc.CLASSES) == list(voc.CLASSES)


def test_nested_folders_and_ignored_files(tmp_path):
    root = write_voc(tmp_path / "x/VOCdevkit/VOC2007", IMAGES, {"train": ["a1"]})
    (root / "Annotations/._a1.xml").write_bytes(b"\0\5")
    (root / "JPEGImages/._a1.png").write_bytes(b"\0\5")
    (tmp_path / "x/__MACOSX").mkdir()
    for place in ("x", "x/VOCdevkit", "x/VOCdevkit/VOC2007"):
        assert len(data.load(tmp_path / place)) == 1
    write_voc(tmp_path / "x/VOCdevkit/VOC2012", IMAGES, {"train": ["a1"]})
    raises("holds VOC2007, VOC2012", tmp_path / "x")


def test_bad_boxes_are_named_and_counted(tmp_path):
    objects = [
        ("dog", 5, 7, 5, 7),
        ("dog", 70, 7, 90, 20),
        ("dog", "nan", 7, 90, 20),
        ("cat", 5, 7, 30, 40),
        ("dog", 50, 40, 90, 80),
        ("dog", 0, 5, 10, 10),
    ]
    folder = write_voc(tmp_path, {"a": objects}, {"train": ["a"]})
    found = data.load(folder, classes=["dog"])
    assert plain(found.annotations[0]) == ([[49, 39, 64, 48], [0, 4, 10, 10]], [1, 1])
    assert found.dropped.counts == {
        "not a number": 1,
        "without area": 1,
        "outside the image": 1,
        "of an unknown class": 1,
    }
    assert found.dropped.names["without area"] == ("a: dog (5, 7, 5, 7)",)
    assert found.dropped.names["of an unknown class"] == ("a: cat (5, 7, 30, 40)",)
    assert (found.dropped.total, found.dropped.boxes, found.dropped.clipped) == (4, 6, 2)
    assert "dropped 4 of 6 boxes: 1 not a number (a: dog (nan, 7, 90, 20))" in found.report()
    assert "\n" not in found.report()
    raises("bad boxes are 4 of 6 boxes.*on_bad_boxes='drop'", folder, classes=["dog"], on_bad_boxes="error")
    raises("on_bad_boxes='ignore'", folder, on_bad_boxes="ignore")


def test_a_clean_set_reports_it(folder):
    assert data.load(folder, on_bad_boxes="error").report() == f"{folder}, train: all 2 boxes kept"


def test_fractions_are_refused(tmp_path):
    folder = write_voc(tmp_path, {"a": [("dog", 0.1, 0.1, 0.5, 0.9)]}, {"train": ["a"]})
    raises("0.1, 0.1, 0.5, 0.9.*64x48 pixels, looks like fractions", folder)


def test_missing_and_damaged_files(folder):
    (folder / "Annotations/a10.xml").rename(folder / "a10")
    raises("Annotations/a10.xml is missing", folder)
    (folder / "Annotations/a10.xml").write_text("<annotation>")
    raises("a10.xml is not XML", folder)
    (folder / "Annotations/a10.xml").write_text(xml([("dog", "one", 1, 5, 5)]))
    raises("xmin is 'one'; write a number", folder)
    (folder / "Annotations/a10.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    raises("no <bndbox>", folder)
    (folder / "Annotations/a10.xml").write_text("<annotation><object><bndbox/></object></annotation>")
    raises("no <name>", folder)
    (folder / "Annotations/a10.xml").write_text(xml([]))
    (folder / "JPEGImages/a10.png").write_bytes(b"not an image")
    raises("a10.png is not an image", folder)
    (folder / "JPEGImages/a10.png").unlink()
    raises("JPEGImages/a10.jpg is missing", folder)


def test_sizes_must_agree(folder):
    save(folder / "JPEGImages/a1.png", 0, 60, 80)
    raises("a1.xml is for an image of 64x48 pixels, but .*a1.png has 80x60", folder)
    (folder / "Annotations/a1.xml").write_text(xml(IMAGES["a1"], 0, 0))  # some tools write zeros
    assert plain(data.load(folder).annotations[0])[0][0] == [4, 6, 30, 40]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_stored_image(tmp_path, orientation):
    """The annotation has the size of the stored image; the box must enclose the same white pixels."""
    folder = write_voc(tmp_path, {"a": [("dog", 11, 21, 30, 28)]}, {"train": ["a"]}, suffix="jpg")
    image = np.zeros((48, 64, 3), np.uint8)
    image[20:28, 10:30] = 255
    Image.fromarray(image).save(folder / "JPEGImages/a.jpg", quality=100, exif=exif(orientation))
    found = data.load(folder)
    upright = found.image(0)
    assert upright.shape == (found.annotations[0].height, found.annotations[0].width, 3)
    if orientation in (2, 3, 4):  # the sizes are equal, so the box belongs to the upright image
        assert plain(found.annotations[0])[0] == [[10, 20, 30, 28]]
        return
    rows, columns = np.nonzero(upright[..., 0] > 127)
    assert plain(found.annotations[0])[0] == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


def test_boxes_of_the_upright_image_stay(tmp_path):
    folder = write_voc(tmp_path, {"a": []}, {"train": ["a"]}, suffix="jpg")
    save(folder / "JPEGImages/a.jpg", exif=exif(6))
    (folder / "Annotations/a.xml").write_text(xml([("dog", 5, 7, 30, 60)], 48, 64))
    assert plain(data.load(folder).annotations[0])[0] == [[4, 6, 30, 60]]


def test_splits(folder, tmp_path):
    with pytest.raises(NoSuchSplit, match=r"split 'test': .* has train, val, all"):
        data.load(folder, "test")
    (folder / "ImageSets/Main/test.txt").write_text("\n")
    raises("split 'test' of .* has no images", folder, "test")
    raises("does not exist", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    raises("in no known format", tmp_path / "empty")
    raises("limit=0", folder, limit=0)
    raises("images=.* is not for VOC", folder, images="x")
    raises("voc_offset=2", folder, voc_offset=2)


def test_classes(folder):
    assert data.load(folder, classes=["background", "dog", "cat"]).classes == ("background", "dog", "cat")
    raises("classes='dog' is one text", folder, classes="dog")
    raises("repeats a name", folder, classes=["dog", "dog"])
    (folder / "Annotations/a2.xml").write_text(xml([("background", 1, 1, 5, 5)]))
    raises("label 0 is the background", folder)


def test_sizes_are_read_from_headers(tmp_path):
    """Every kind of file has the size of its decoded image."""
    from keras_deepnets.detection.data import images

    for suffix, options in {
        "jpg": {"progressive": True},
        "jpeg": {"exif": exif(6)},
        "png": {"exif": exif(8)},
        "bmp": {},
        "webp": {},
        "tif": {},
    }.items():
        file = io.BytesIO()
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(
            file, Image.registered_extensions()[f".{suffix}"], **options
        )
        path = tmp_path / f"x.{suffix}"
        path.write_bytes(b"before" + file.getvalue() + b"after")
        (size,) = images.sizes([data.ImageSource(str(path), 6, len(file.getvalue()))])
        assert (size.width, size.height) == ((48, 64) if "exif" in options else (64, 48)), suffix
        assert size.stored == (64, 48)
