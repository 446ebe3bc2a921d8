"""Labelled image data sets and the input pipelines for training and evaluation.

`load` returns an `ImageData`. Its batches are uint8, as a model with ``include_preprocessing`` takes them. `write_shards` writes a
data set to TFRecord files: a few large files instead of many small ones. `transforms` defines how a file is decoded and how an
image becomes a network's input. `augmentation` defines how training images are varied. Importing this package does not import
TensorFlow.
"""

from keras_deepnets.data import augmentation, transforms
from keras_deepnets.data.image_data import ImageData
from keras_deepnets.data.shard_writing import write as write_shards
from keras_deepnets.data.sources import is_cut, load, training_split

__all__ = ["ImageData", "augmentation", "is_cut", "load", "training_split", "transforms", "write_shards"]
