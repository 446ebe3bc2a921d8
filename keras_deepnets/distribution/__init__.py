"""Training on several machines or devices: who the workers are, and how they communicate.

`keras_deepnets.training.train(distribute=…)` uses it. TensorFlow and JAX connect their workers only at the
start. A program that runs operations before it calls `train` must therefore call `start` first.
"""

from keras_deepnets.distribution.cluster import Cluster
from keras_deepnets.distribution.devices import Devices, mirrored
from keras_deepnets.distribution.groups import ALONE, Group
from keras_deepnets.distribution.jax_workers import JaxWorkers, OneProgram, one_program
from keras_deepnets.distribution.modes import MODES, gpus, mode_of
from keras_deepnets.distribution.workers import Workers, join, start, watched

__all__ = [
    "ALONE",
    "MODES",
    "Cluster",
    "Devices",
    "Group",
    "JaxWorkers",
    "OneProgram",
    "Workers",
    "gpus",
    "join",
    "mirrored",
    "mode_of",
    "one_program",
    "start",
    "watched",
]
