import pytest

from keras_deepnets.detection import data
from keras_deepnets.errors import InputError, NoSuchSplit
from tests.detection.data.folders import exif, plain, save, write_yolo

CONFIG = "path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
LINES = ["1 0.5 0.5 0.25 0.5", "0 0.25 0.25 0.5 0.5"]


@pytest.fixture
def folder(tmp_path):
    return write_yolo(tmp_path / "y", {"a": LINES, "b": [], "c": None}, config=CONFIG)


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_fractions_become_pixels(folder):
    train = data.load(folder)
    assert train.classes == ("background", "cat", "dog")
    assert plain(train.annotations[0]) == ([[24, 12, 40, 36], [0, 0, 32, 24]], [2, 1])
    assert [len(each) for each in train.annotations] == [2, 0, 0]
    assert [each.image_id for each in data.load(folder / "data.yaml").annotations] == ["a", "b", "c"]


def test_fractions_are_of_the_upright_image(tmp_path):
    folder = write_yolo(tmp_path / "y", {"a": LINES}, config=CONFIG)
    (folder / "images/train/a.png").unlink()
    save(folder / "images/train/a.jpg", exif=exif(6))
    assert plain(data.load(folder).annotations[0])[0][1] == [0, 0, 24, 32]


def test_layouts(folder, tmp_path):
    write_yolo(folder, {"d": LINES}, "val")
    assert len(data.load(folder, "validation")) == 1 and len(data.load(folder, "all")) == 4
    (folder / "data.yaml").write_text("train: ../images/train\nval: val.txt\nnames: [cat, dog]\n")
    (folder / "val.txt").write_text("./images/val/d.png\n")
    assert len(data.load(folder)) == 3 and len(data.load(folder, "val")) == 1
    with pytest.raises(NoSuchSplit, match=r"split 'test': .* has train, val, all"):
        data.load(folder, "test")
    (folder / "data.yaml").unlink()
    raises("does not name its classes", folder)
    assert data.load(folder, classes=["cat", "dog"]).classes == ("background", "cat", "dog")
    (folder / "classes.txt").write_text("cat\ndog\n")
    assert data.load(folder).classes == ("background", "cat", "dog")


def test_polygons_give_their_box(tmp_path):
    folder = write_yolo(tmp_path, {"a": ["0 0.25 0.5 0.5 0.25 0.75 0.75"]}, config=CONFIG)
    assert plain(data.load(folder).annotations[0])[0] == [[16, 12, 48, 36]]


def test_rounding_beyond_the_edge_is_not_counted(tmp_path):
    folder = write_yolo(tmp_path, {"a": ["0 0.500001 0.5 1.0 1.0", "0 0.9 0.5 0.5 0.5"]}, config=CONFIG)
    train = data.load(folder)
    assert train.annotations[0].boxes[0].tolist()[2:] == [64, 48] and train.dropped.clipped == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 32 24 10 10", "a.txt, line 2: 32 looks like pixels"),
        ("0 0.5 0.5 0.1", "line 2: 4 numbers"),
        ("cat 0.5 0.5 0.1 0.1", "line 2: 'cat 0.5 0.5 0.1 0.1' is not a row of numbers"),
        ("0.5 0.5 0.5 0.1 0.1", "line 2: class 0.5"),
        ("-1 0.5 0.5 0.1 0.1", "line 2: class -1"),
    ],
)
def test_damaged_lines(tmp_path, line, message):
    raises(message, write_yolo(tmp_path, {"a": [LINES[0], line]}, config=CONFIG))


def test_unknown_and_shifted_numbers(tmp_path):
    folder = write_yolo(tmp_path, {"a": ["0 0.5 0.5 0.1 0.1", "5 0.5 0.5 0.25 0.25"]}, config=CONFIG)
    assert data.load(folder).dropped.names == {"of an unknown class": ("a: 5 (0.375, 0.375, 0.625, 0.625)",)}
    (folder / "labels/train/a.txt").write_text("1 0.5 0.5 0.1 0.1\n2 0.5 0.5 0.1 0.1\n")
    raises("class numbers run from 1 to 2 for 2 classes, but YOLO counts from 0", folder)


def test_names_need_numbers(folder):
    (folder / "data.yaml").write_text("train: images/train\nnames: {cat: 0}\n")
    raises("names: must map the class numbers 0, 1, … to names; it has cat", folder)
    (folder / "data.yaml").write_text("names: [cat")
    raises("data.yaml cannot be read", folder / "data.yaml")


def test_missing_label_files(tmp_path):
    raises("a.txt is missing, and so is the text file of every image", write_yolo(tmp_path, {"a": None}, config=CONFIG))
