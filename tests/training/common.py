"""A small learnable problem, and a network that has everything that a resume must bring back."""

import keras
import numpy as np

from keras_deepnets.data import ImageData


def images(size=96, seed=0, classes=4, split="train", noise=60):
    """Grey images 8×8; the class is the quadrant that is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, size)
    pixels = rng.integers(0, noise, (size, 8, 8, 1)).astype("uint8")
    for image, label in zip(pixels, labels, strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[top : top + 4, left : left + 4] += 150
    return ImageData.from_arrays(
        pixels, labels, ("north-west", "north-east", "south-west", "south-east"), "quadrants", split
    )


def network(seed=3, activation="softmax", dropout=0.2, size=8):
    """A convolution, batch normalisation and dropout: weights, moving statistics, a random generator."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(4, activation=activation, dtype="float32"),
        ]
    )
