"""Training on several machines or devices: who the workers are, and how they communicate.

`keras_deepnets.training.train(distribute=…)` uses it. A program that runs TensorFlow operations before it calls `train` must call `start`
first, because TensorFlow connects its workers only at the start.
"""

from keras_deepnets.distribution.cluster import Cluster
from keras_deepnets.distribution.devices import Devices, mirrored
from keras_deepnets.distribution.modes import MODES, mode_of
from keras_deepnets.distribution.workers import ALONE, Group, Workers, join, start, watched

__all__ = [
    "ALONE",
    "MODES",
    "Cluster",
    "Devices",
    "Group",
    "Workers",
    "join",
    "mirrored",
    "mode_of",
    "start",
    "watched",
]
