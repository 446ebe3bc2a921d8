import json
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from keras_deepnets.cli import main

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
# A network and a recipe as small as they come: 8 × 8 pixels, one block a stage, a few steps.
RECIPE = ("--set", "batch_size=16", "--epochs", "2", "--seed", "3", "--precision", "float32")
TINY = ("PlainNet", "--option", "depth=8", "--option", "stem=cifar", "--image-size", "8", *RECIPE)


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def error(self):
        """The one line of a bad input."""
        assert self.status == 2, (self.status, self.out, self.err)
        assert self.out == ""
        assert self.err.count("\n") == 1
        assert self.err.startswith("keras-deepnets: error: ")
        return self.err.removeprefix("keras-deepnets: error: ").rstrip("\n")


def paint(folder, colours, count, seed=0):
    """Noisy patches of a colour, a folder a colour."""
    random = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(random.normal(colour, 30, (12, 10, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture
def cli(capfd):
    def call(*words):
        capfd.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def patches(tmp_path_factory):
    """A folder of class folders: three colours, 20 images each."""
    return paint(tmp_path_factory.mktemp("patches") / "colours", COLOURS, 20)


@pytest.fixture(scope="session")
def trained(patches, tmp_path_factory):
    """The folder of a finished run, made by the command."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", *TINY[:1], str(patches), *TINY[1:], "--run-dir", str(folder), "--json"]) == 0
    return folder


@pytest.fixture(scope="session")
def exported(trained, patches, tmp_path_factory):
    """What the command makes of the run: format to path."""
    out = tmp_path_factory.mktemp("exported")
    assert main(["export", str(trained), str(out / "served"), "--format", "savedmodel"]) == 0
    assert main(["export", str(trained), str(out / "model.tflite"), "--format", "tflite"]) == 0
    return {"savedmodel": out / "served", "tflite": out / "model.tflite"}
