"""What a run says when it diverges or learns nothing."""

import math

import numpy as np
import pytest

from keras_deepnets.data import ImageData
from keras_deepnets.training.choosing import stalled
from keras_deepnets.training.watching import Diverging, diverging, troubles


def images(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageData.from_arrays(np.zeros((len(labels), 4, 4, 1), "uint8"), labels, tuple("abcd"[: len(counts)]))


def row(epoch, accuracy, loss=1.0):
    return {"epoch": epoch, "accuracy": accuracy, "val_accuracy": accuracy, "val_loss": loss}


def test_diverging():
    guess = math.log(3)
    assert diverging(row(4, 0.5, 5 * guess), 3) is None
    found = diverging(row(4, 0.5, 3541.0), 3)
    assert "the validation loss is 3,541.0 after epoch 4, and random guessing has 1.10" in found
    assert "--set learning_rate" in found and "--set batch_size" in found
    assert diverging({"epoch": 1}, 3) is None


def test_said_once_and_not_before_the_middle():
    history, said = [], []
    callback = Diverging(history, 3, said.append)
    callback.set_params({"epochs": 6})
    for epoch in range(6):
        history.append(row(epoch + 1, 0.3, 900.0))
        callback.on_epoch_end(epoch)
        assert len(said) == (epoch >= 3)


@pytest.mark.parametrize(
    ("counts", "accuracy", "said"),
    [
        ((20, 20, 20), 0.35, True),  # a guess: 33 %, two standard errors: 12 points
        ((20, 20, 20), 0.60, False),
        ((50, 5, 5), 0.85, True),  # all images taken for the largest class
        ((1, 1), 0.5, False),  # too few images to tell
    ],
)
def test_no_better_than_a_guess(counts, accuracy, said):
    data = images(counts)
    found = troubles([row(1, accuracy / 2), row(2, accuracy)], data, data)
    assert bool(found) == said
    if said:
        share = max(counts) / sum(counts)
        assert f"the validation accuracy of {accuracy:.1%} is no better than guessing ({share:.1%}" in found[0]
        assert "--weights imagenet" in found[0]


def test_without_validation_the_training_accuracy_counts():
    data = images((30, 30))
    found = troubles([{"epoch": 1, "accuracy": 0.5, "loss": 0.7}], data, None)
    assert "the training accuracy of 50.0%" in found[0]
    assert troubles([], data, None) == ()


def test_stalled():
    rows = [{"val_accuracy": value} for value in (0.1, 0.5, 0.4, 0.5)]
    assert stalled(rows, 2) and not stalled(rows, 3) and not stalled(rows[:2], 2)
