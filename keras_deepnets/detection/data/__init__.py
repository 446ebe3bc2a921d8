"""Images with boxes: loading, augmentation and the input pipeline of detector training.

`load` reads Pascal VOC, COCO and YOLO folders, TensorFlow Datasets and shards, and returns a `DetectionData`.
`from_arrays` takes arrays. `write_shards` writes TFRecord shards. `augmentation` defines how training images and their boxes are
varied. Importing this package does not import TensorFlow.
"""

from keras_deepnets.detection.data import augmentation
from keras_deepnets.detection.data.annotations import Annotation, Dropped
from keras_deepnets.detection.data.arrays import from_arrays
from keras_deepnets.detection.data.detection_data import DetectionData
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.detection.data.shard_writing import write as write_shards
from keras_deepnets.detection.data.shards import verify as verify_shards
from keras_deepnets.detection.data.sources import load

__all__ = [
    "Annotation",
    "DetectionData",
    "Dropped",
    "ImageSource",
    "augmentation",
    "from_arrays",
    "load",
    "verify_shards",
    "write_shards",
]
