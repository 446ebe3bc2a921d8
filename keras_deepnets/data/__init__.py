"""Labelled sets of images and the pipelines that feed networks with them.

`load` gives an `ImageData`; its batches are uint8, what a model with ``include_preprocessing`` takes. `write_shards` puts a set into
TFRecord files: a few large ones in place of very many. `transforms` defines how a file becomes an image and an image a network's
input, `augmentation` how training images are varied. Importing this package does not import TensorFlow.
"""

from keras_deepnets.data import augmentation, transforms
from keras_deepnets.data.image_data import ImageData
from keras_deepnets.data.shard_writing import write as write_shards
from keras_deepnets.data.sources import is_cut, load, training_split

__all__ = ["ImageData", "augmentation", "is_cut", "load", "training_split", "transforms", "write_shards"]
