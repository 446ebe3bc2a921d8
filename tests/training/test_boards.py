import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorflow.python.summary.summary_iterator import summary_iterator

import keras_deepnets as kd
from keras_deepnets.training.boards import hyperparameters

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (24, 8, 8, 3), np.uint8), np.arange(24) % 3
    data = kd.data.ImageData.from_arrays(images, labels, ("a", "b", "c"))
    options = {"depth": 8, "stem": "cifar"}
    folder = tmp_path_factory.mktemp("boards") / "run"
    return kd.training.train(
        "plainnet",
        data,
        "fast",
        folder,
        validation=6,
        epochs=1,
        batch_size=6,
        image_size=8,
        model_options=options,
        verbose=0,
    )


def events(run, folder):
    for file in (run.path / "tensorboard" / folder).glob("events*"):
        for event in summary_iterator(str(file)):
            for value in event.summary.value:
                yield event.step, value


def test_hyperparameters(run):
    (value,) = [value for _, value in events(run, "") if "session_start_info" in value.tag]
    data = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
    found = data.session_start_info.hparams
    assert found["network"].string_value == "plainnet" and found["network.depth"].number_value == 8
    assert found["recipe.batch_size"].number_value == 6
    assert (
        found["recipe.optimizer"].string_value
        == json.loads((run.path / "config.json").read_text())["recipe"]["optimizer"]
    )
    assert data.session_start_info.group_name


def test_the_pictures_at_the_end(run):
    pictures = {
        value.tag: (step, value)
        for step, value in events(run, "validation")
        if value.metadata.plugin_data.plugin_name == "images"
    }
    assert set(pictures) <= {"confusion", "errors"}
    step, value = pictures["confusion"]
    assert step == run.metrics["steps"]
    with Image.open(run.path / "confusion.png") as picture:
        width, height = (int(text) for text in value.tensor.string_val[:2])
        assert (width, height) == picture.size


def test_values_are_plain():
    config = {
        "model": {"name": "resnet", "options": {"blocks": [1, 2], "shortcut": None}},
        "data": {"name": "/somewhere/photos"},
        "recipe": {"source": "paper", "epochs": 5.0, "batch_size": None, "milestones": [], "precision": "auto"},
        "resolved": {"batch_size": 32, "precision": "float32"},
        "seed": 0,
    }
    assert hyperparameters(config) == {
        "network": "resnet",
        "data": "photos",
        "seed": 0,
        "network.blocks": "[1, 2]",
        "recipe.epochs": 5.0,
        "recipe.batch_size": 32,
        "recipe.precision": "float32",
    }
