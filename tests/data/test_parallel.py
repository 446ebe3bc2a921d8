"""No pipeline is autotuned: deleting an autotuned iterator may block for a minute (TensorFlow 2.21)."""

import os

import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import data
from keras_deepnets.data import parallel
from keras_deepnets.training import feed, get_recipe, heads
from tests.data.conftest import write_class_folders


@pytest.fixture(scope="module", params=["memory", "files", "shards"])
def images(request, tmp_path_factory):
    """The same kind of images from each kind of store."""
    if request.param == "memory":
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (12, 40, 40, 3), np.uint8)
        return data.ImageData.from_arrays(pixels, np.arange(12) % 2, ("a", "b"), "noise")
    folder = write_class_folders(
        tmp_path_factory.mktemp("images"), {"a": 6, "b": 6}, size=lambda index: (40, 44 + index)
    )
    found = data.load(folder, "all")
    if request.param == "files":
        return found
    target = tmp_path_factory.mktemp("shards") / "data"
    data.write_shards(folder, target)
    return data.load(target, "all")


def fixed(dataset: tf.data.Dataset) -> bool:
    """Whether the iterators of a dataset start no tuning thread."""
    return dataset.options().autotune.enabled is False


def test_examples_and_batches(images):
    datasets = [
        images.examples(),
        images.batches(4, (32, 32)),
        images.batches(4, (32, 32), training=True, augment="pad_crop_flip"),
    ]
    assert [fixed(dataset) for dataset in datasets] == [True] * 3


def test_what_training_and_evaluation_read(images):
    network = kd.ResNet18(weights=None, classes=2, input_shape=(32, 32, 3))
    recipe = get_recipe("fast").with_overrides(batch_size=4)
    training = feed.training(network, images, recipe, "pad_crop_flip", 0, 0, class_weight=[1.0, 2.0])
    datasets = [training, feed.evaluation(network, images, 4), feed.ten_crops(network, images, 20)]
    assert [fixed(dataset) for dataset in datasets] == [True] * 3


def test_what_the_training_of_a_classifier_on_features_reads():
    known = heads.Features(np.zeros((8, 3), np.float32), np.arange(8) % 2)
    assert fixed(heads.training(known, 4, 0, 0)) and fixed(heads.evaluation(known, 4))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot restrict a process to processors")
def test_calls_follow_the_processors_of_the_process():
    usable = os.sched_getaffinity(0)
    assert parallel.calls() == len(usable)
    os.sched_setaffinity(0, {min(usable)})
    try:
        assert parallel.calls() == 1
    finally:
        os.sched_setaffinity(0, usable)
