import pytest

from keras_deepnets.detection.metrics import image_score, ranked_images

CLASSES = ("background", "cat", "dog")


def scored(objects, found, scores, image=0, **flags):
    """Score an image with squares of 10 pixels at these left edges."""

    def squares(lefts):
        return {"boxes": [[left, 0, left + 10, 10] for left in lefts], "labels": [1] * len(lefts)}

    return image_score(squares(objects) | flags, squares(found) | {"scores": scores}, CLASSES, image=image)


def test_f1_by_hand():
    # Of three objects, one is found, one is found with a low score, one is missed. One detection is false.
    score = scored((0, 100, 200), (0, 100, 50), (0.9, 0.4, 0.6))
    assert score == (0, pytest.approx(2 / (2 + 1 + 2)), 1, 1, 2)


def test_difficult_objects_and_empty_images():
    assert scored((0, 100), (0, 100), (0.9, 0.9), difficult=[False, True])[1:] == (1, 1, 0, 0)
    assert scored((0,), (), (), difficult=[True]).f1 is None
    assert scored((), (), ()).f1 is None
    assert scored((), (0,), (0.9,))[1:] == (0, 0, 1, 0)


def test_ranks():
    scores = [
        scored((0,), (0,), (0.9,), image=0),  # right
        scored((), (), (), image=1),  # nothing to see
        scored((0, 100), (0, 100), (0.9, 0.9), image=2),  # right, two objects
        scored((0, 100), (50,), (0.9,), image=3),  # wrong, three errors
        scored((0,), (), (), image=4),  # wrong, one error
    ]
    assert [score.image for score in ranked_images(scores)] == [2, 0, 4, 3]
