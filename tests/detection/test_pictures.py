import json

import numpy as np
import pytest
from PIL import Image

from keras_deepnets.detection import curves, pictures
from keras_deepnets.detection.marks import GREY, Mark, colour_of, draw_marks
from keras_deepnets.detection.metrics import evaluate_detections
from keras_deepnets.errors import InputError

CLASSES = ("background", "cat", "dog", "owl")


def image(height=240, width=320, value=128):
    return np.full((height, width, 3), value, np.uint8)


def row(*boxes, label=1, **more):
    return {"boxes": np.array(boxes, float).reshape(-1, 4), "labels": [label] * len(boxes), **more}


def read(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def count(pixels, colour):
    return int((pixels == np.array(colour, np.uint8)).all(axis=-1).sum())


def test_a_box_is_where_it_should_be():
    drawn = pictures.draw_boxes(image(), [[100, 80, 200, 180]], [1], classes=CLASSES)
    assert drawn.shape == (240, 320, 3) and drawn.dtype == np.uint8
    colour = colour_of(1)
    # Edges 100 and 200: the first and last pixels are 100 and 199, in a line of two pixels.
    for x, y in ((100, 130), (101, 130), (198, 130), (199, 130), (150, 178), (150, 179)):
        assert tuple(drawn[y, x]) == colour
    assert (drawn[84:175, 104:195] == 128).all()  # nothing inside
    assert (drawn[:, :98] == 128).all() and (drawn[182:] == 128).all()
    assert count(drawn[60:80, 100:140], colour) > 100  # the tag is above


def test_small_and_grey_images_are_enlarged_and_coloured():
    grey = np.zeros((28, 20, 1), np.uint8)
    drawn = pictures.draw_boxes(grey, [[5, 10, 15, 20]], [2], [0.5])
    assert drawn.shape == (28 * 11, 20 * 11, 3)  # 320 // 28
    assert tuple(drawn[150, 55]) == tuple(drawn[150, 164]) == colour_of(2)
    assert pictures.draw_boxes(image(161, 161), [], []).shape == (161, 161, 3)


def test_the_image_is_not_changed_and_boxes_outside_are_clipped():
    before = image()
    drawn = pictures.draw_boxes(before, [[-50, -50, 1000, 1000]], [1], [0.9], CLASSES)
    assert (before == 128).all()
    assert tuple(drawn[120, 0]) == tuple(drawn[120, 319]) == tuple(drawn[239, 160]) == colour_of(1)


def test_colours_depend_only_on_the_label():
    colours = [colour_of(label) for label in range(1, 91)]
    assert len(set(colours)) == 90
    assert min(np.dot(colour, (0.299, 0.587, 0.114)) for colour in colours) > 90
    first = np.array(colours[:12], int)
    apart = np.abs(first[:, None] - first[None]).sum(-1) + 999 * np.eye(12, dtype=int)
    assert apart.min() >= 70


def test_tags_do_not_cover_each_other():
    picture = Image.fromarray(image(200, 400))
    marks = [Mark((150, 100, 200, 150), colour_of(label), "cat 0.50", "0.50") for label in (1, 2, 3)]
    draw_marks(picture, marks)
    pixels = np.asarray(picture)
    areas = [count(pixels, colour_of(label)) for label in (1, 2, 3)]
    # The three tags are of one size. All are visible: above, inside and below.
    assert min(areas) > 0.6 * max(areas)


def test_crowded_pictures_have_short_tags_or_none():
    def covered(boxes):
        picture = Image.fromarray(image(200, 200))
        draw_marks(picture, [Mark((10, 10, 12, 12), (1, 2, 3), "a long name 0.50", "0.50")] * boxes)
        return count(np.asarray(picture), (1, 2, 3))

    # Long tags cover 12 % at most with two boxes, short ones with five.
    assert covered(2) > covered(5) / 2 > 100
    assert covered(100) < 20


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": np.zeros((4, 4, 3))}, r"image is float64 \[4, 4, 3\]; give uint8"),
        ({"image": np.zeros((4, 4), np.uint8)}, "give uint8"),
        ({"boxes": [[1, 2, 3]]}, "boxes have shape"),
        ({"labels": [4]}, "label 4 is beyond the classes"),
        ({"scores": [np.nan]}, "scores has nan"),
        ({"classes": ("cat",)}, 'give "background" first'),
    ],
)
def test_wrong_input_of_draw_boxes(wrong, message):
    given = {"image": image(), "boxes": [[1, 2, 30, 40]], "labels": [1], "scores": [0.5], "classes": CLASSES}
    with pytest.raises(InputError, match=message):
        pictures.draw_boxes(**given | wrong)


def test_grid_of_detections(tmp_path):
    # 360 pixels of the picture are 180 of the image: the scale is 2.
    truth = row([20, 20, 80, 80], [100, 100, 160, 160])
    found = row([20, 20, 80, 80], [110, 20, 160, 60], scores=[0.9, 0.4])
    path = pictures.save_detections(tmp_path / "grid.png", [image(180, 180)], [found], [truth], CLASSES)
    drawn = read(path)
    left, top = 14, 14 + 19 + 4 + 19 + 6  # margin, key and legend
    assert drawn.shape == (top + 360 + 14, 14 + 360 + 14, 3)
    cell = drawn[top : top + 360, left : left + 360]
    white = [count(part, (255, 255, 255)) for part in (cell[30:170, 30:170], cell[190:, 190:])]
    assert white[0] > 150 and white[1] == 0  # dashes: white if found
    assert count(cell[195:330, 195:330], colour_of(1)) > 300  # in the colour of the class if missed
    assert count(cell[30:130, 215:330], (128, 128, 128)) > 0.99 * 100 * 115  # the score 0.4 is too low
    # With min_score 0.4, it is drawn.
    pictures.save_detections(path, [image(180, 180)], [found], [truth], CLASSES, min_score=0.4)
    assert count(read(path)[top : top + 360, left : left + 360][30:130, 215:330], colour_of(1)) > 300
    assert [each.name for each in tmp_path.iterdir()] == ["grid.png"]


def test_objects_that_do_not_count_are_grey(tmp_path):
    path = tmp_path / "grid.png"
    truth = row([20, 20, 80, 80], [100, 20, 160, 80], difficult=[True, False], crowd=[False, True])
    pictures.save_detections(path, [image(180, 180)], [row(scores=[])], [truth], CLASSES)
    drawn = read(path)[62:]
    assert count(drawn, GREY) > 300 and count(drawn, colour_of(1)) == 0


def test_grids_without_truths_boxes_or_names(tmp_path):
    path = tmp_path / "grid.png"
    pictures.save_detections(path, [image()] * 30, [row(scores=[])] * 30)
    assert read(path).shape[:2] == (
        14 + 19 + 4 + 5 * (270 + 12) - 12 + 14,
        28 + 5 * 372 - 12,
    )  # 24 images in five columns
    pictures.save_detections(path, [image(90, 60)], [row([1, 1, 40, 40], label=70, scores=[1])], captions=["a" * 200])
    assert count(read(path), colour_of(70)) > 300


def test_best_and_worst_images(tmp_path):
    right, wrong = row([20, 20, 80, 80], scores=[0.9]), row([200, 120, 250, 160], scores=[0.9])
    truth = row([20, 20, 80, 80])
    images = [image(value=value) for value in (10, 50, 90, 130, 170)]
    truths = [truth, truth, row(), truth, truth]
    detections = [wrong, right, row(scores=[]), right, row(scores=[])]
    path = tmp_path / "images.png"
    assert pictures.best_and_worst(path, images, truths, detections, CLASSES, count=2) == path
    drawn = read(path)
    values = [value for value in (10, 50, 90, 130, 170) if count(drawn, (value,) * 3) > 30_000]
    assert values == [10, 50, 130, 170]  # image 2 has nothing to find
    places = {value: np.argwhere((drawn == value).all(-1)).mean(axis=0) for value in values}
    # Best: 1, then 3. Worst: 0, which misses an object and has a false detection, then 4.
    assert places[50][1] < places[130][1] and places[10][1] < places[170][1]
    assert places[50][0] == pytest.approx(places[130][0], abs=9) and places[50][0] < places[10][0] - 250


def test_best_and_worst_draw_an_image_once(tmp_path):
    path = tmp_path / "images.png"
    truth, found = row([20, 20, 80, 80]), row([20, 20, 80, 80], scores=[0.9])
    pictures.best_and_worst(path, [image()], [truth], [found], CLASSES)
    one = read(path)
    assert one.shape[0] < 400 and count(one, (128, 128, 128)) < 360 * 270
    assert pictures.best_and_worst(tmp_path / "none.png", [image()], [row()], [row(scores=[])], CLASSES) is None
    assert not (tmp_path / "none.png").exists()


def test_wrong_input_of_grids(tmp_path):
    found, path = row([1, 2, 30, 40], scores=[0.5]), tmp_path / "grid.png"
    with pytest.raises(InputError, match="There are 2 images and 1 detections; give one per image"):
        pictures.save_detections(path, [image()] * 2, [found])
    with pytest.raises(InputError, match="There are no images to draw"):
        pictures.save_detections(path, [], [])
    with pytest.raises(InputError, match=r"must end in \.png"):
        pictures.save_detections(tmp_path / "grid.jpg", [image()], [found])
    with pytest.raises(InputError, match="1 images, 2 truths and 1 detections"):
        pictures.best_and_worst(path, [image()], [found] * 2, [found], CLASSES)
    with pytest.raises(InputError, match="count is 13; give 1 to 12"):
        pictures.best_and_worst(path, [image()], [found], [found], CLASSES, count=13)
    assert not list(tmp_path.iterdir())


def evaluation(classes):
    """An object of each class; the first half is found. A false detection comes second."""
    names = ("background", *(f"class {at}" for at in range(1, classes + 1)))
    found = np.arange(1, classes // 2 + 1)
    boxes = [[20 * label, 0, 20 * label + 10, 10] for label in range(1, classes + 1)]
    truth = {"boxes": boxes, "labels": np.arange(1, classes + 1)}
    detection = {"boxes": boxes[: len(found)], "labels": found, "scores": np.full(len(found), 0.9)}
    return evaluate_detections([truth], [detection], names, coco=False)


def test_corners_of_a_curve():
    truth = row(*([at, 0, at + 10, 10] for at in (0, 100, 200)))
    found = row(*([at, 0, at + 10, 10] for at in (0, 50, 100)), scores=[0.9, 0.8, 0.7])
    result = evaluate_detections([truth], [found], CLASSES, coco=False)
    recall, precision = curves._steps(result.curves[0])
    assert recall == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert precision == pytest.approx([1, 1, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 0])


def test_precision_recall_curves(tmp_path):
    result = evaluation(4)
    figure = curves._figure(result, "Title")
    axes = figure.axes[0]
    assert axes.get_title("left") == "Title: AP50 50.0 % of 4 objects in 1 image"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["class 1 100.0", "class 2 100.0", "class 3 0.0", "class 4 0.0", "mean 50.0"]
    assert pictures.precision_recall(result, tmp_path / "curves.png").exists()
    assert pictures.precision_recall(result, tmp_path / "curves.svg").read_text().count("<svg") == 1
    assert read(tmp_path / "curves.png").shape == (720, 1140, 3)
    json.dumps(result.to_dict())


def test_of_many_classes_twelve_are_named():
    figure = curves._figure(evaluation(40), None)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == 14 and texts[-2:] == ["mean 50.0", "28 other classes"]
    assert len({line.get_color() for line in figure.axes[0].lines}) == 6 + 2


def test_curves_need_objects_and_a_suffix(tmp_path):
    empty = evaluate_detections([row()], [row(scores=[])], CLASSES, coco=False)
    with pytest.raises(InputError, match="No class has objects"):
        pictures.precision_recall(empty, tmp_path / "curves.png")
    with pytest.raises(InputError, match="must end in"):
        pictures.precision_recall(evaluation(2), tmp_path / "curves.txt")


def test_names_in_a_script_without_a_font_are_escaped(monkeypatch):
    from keras_deepnets.insight import lettering

    monkeypatch.setattr(lettering, "installed", lambda: [])
    image, box = np.full((200, 300, 3), 90, np.uint8), np.array([[40.0, 60, 200, 150]], np.float32)
    drawn = [
        pictures.draw_boxes(image, box, np.array([1]), np.array([0.5]), ("background", name))
        for name in ("猫", r"\u732b")
    ]
    np.testing.assert_array_equal(*drawn)
