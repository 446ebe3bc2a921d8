import numpy as np
import pytest

from keras_deepnets.data import splits
from keras_deepnets.errors import InputError


def test_shuffled_is_fixed_for_ever():
    # Written down: an order that changed with a library's version would mix test and training images.
    assert splits.shuffled("abcdefgh", 0) == [3, 5, 7, 2, 4, 6, 0, 1]


def test_a_new_name_moves_no_other():
    names = [f"{number}.png" for number in range(50)]
    before = [names[index] for index in splits.shuffled(names, 3)]
    more = [*names, "new.png"]
    after = [more[index] for index in splits.shuffled(more, 3)]
    assert [name for name in after if name != "new.png"] == before
    assert splits.shuffled(names, 4) != splits.shuffled(names, 3)


def test_proportional_adds_up():
    assert splits.proportional([100, 50, 50], 20) == [10, 5, 5]
    assert splits.proportional([178, 182, 177, 183, 181, 182, 181, 179, 174, 180], 360) == [
        36, 37, 35, 37, 36, 36, 36, 36, 35, 36,
    ]  # fmt: skip
    assert splits.proportional([5, 1, 1], 4) == [4, 0, 0]
    assert splits.proportional([5, 1, 1], 5) == [3, 1, 1]
    assert splits.proportional([0, 3, 0], 3) == [0, 3, 0]


def test_stratified_takes_each_class_in_proportion():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    chosen = splits.stratified(labels, [str(index) for index in range(100)], 20, 1)
    assert np.bincount(labels[chosen]).tolist() == [12, 6, 2]


@pytest.mark.parametrize(("size", "count"), [(0.1, 10), (25, 25), (0, 0), (0.0, 0), (np.int64(3), 3), (5.0, 5)])
def test_cut_size(size, count):
    assert splits.cut_size(size, 100) == count


@pytest.mark.parametrize("size", [-1, 100, 1000, 1.5, -0.1, 0.001, "10%", True, float("nan"), float("inf")])
def test_cut_size_names_the_range(size):
    with pytest.raises(InputError, match="below 100"):
        splits.cut_size(size, 100)
