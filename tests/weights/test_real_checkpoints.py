"""The comparison with torch that `real_checkpoints` makes, on few images."""

from pathlib import Path

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.weights import naming_tables
from tests.weights import real_checkpoints
from tests.weights.common import fill, peer_tensors

PUBLISHED = sorted((Path(__file__).parents[2].parent / "shared" / "weights").glob("resnet*-*.th"))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (16, 32, 32, 3)).astype("uint8")


def check(checkpoint, images):
    found = real_checkpoints.compared(checkpoint, images, np.zeros(len(images), int))
    assert found["same"] == found["images"] == len(images)
    # The target is 1e-4 where logits are of the order of ten.
    assert found["difference"] < real_checkpoints.TOLERANCE * max(1, found["largest"] / 10)


def test_random_weights(tmp_path, images):
    torch = pytest.importorskip("torch")
    model = fill(kd.ResNet20(shortcut="A"))
    tensors = peer_tensors(model, naming_tables.PLAIN_CIFAR_RESNET, prefix="module.")
    path = tmp_path / "resnet20-00000000.th"
    torch.save({"state_dict": {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}}, path)
    check(path, images)


@pytest.mark.parametrize("checkpoint", [pytest.param(path, id=path.name) for path in PUBLISHED])
def test_published_checkpoints(checkpoint, images):
    pytest.importorskip("torch")
    check(checkpoint, images)


def test_the_folder_of_images(tmp_path):
    from PIL import Image

    for number, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((32, 32, 3), number, "uint8")).save(tmp_path / name / "x.png")
    pixels, labels = real_checkpoints.images_of(tmp_path)
    assert pixels.shape == (2, 32, 32, 3) and pixels[:, 0, 0, 0].tolist() == labels.tolist() == [0, 1]
