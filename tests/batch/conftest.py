"""A tiny network, and images that it does not take for the same."""

import numpy as np
import pytest
from PIL import Image

import keras_deepnets as kd

LABELS = ("blue", "green", "red", "white")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A saved network of eight layers for 8 × 8 pixels, with names of its classes."""
    net = kd.PlainNet(classes=4, depth=8, stem="cifar", input_shape=(8, 8, 3), include_preprocessing=True)
    rng = np.random.default_rng(1)
    for weight in net.weights:
        if weight.name == "kernel":
            weight.assign(weight.numpy() + rng.normal(0, 0.05, weight.shape))
    net.labels = LABELS
    path = tmp_path_factory.mktemp("model") / "model.keras"
    net.save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Twelve noisy images in two folders: PNG and JPEG, one of them turned by its EXIF block, one grey."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        (folder / f"part{number % 2}").mkdir(exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (14, 11, 3), "uint8"))
        exif = Image.Exif()
        if number == 5:
            exif[274] = 6
        if number == 6:
            image = image.convert("L")
        image.save(folder / f"part{number % 2}" / f"{number:02}.{'png' if number % 3 else 'jpg'}", exif=exif)
    return folder
