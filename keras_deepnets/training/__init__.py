"""Training: recipes, optimizers, callbacks, runs and evaluation.

Importing this package does not import TensorFlow or Keras. They are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets.lazy import lazy_names
from keras_deepnets.training.errors import DivergedError, TrainingError
from keras_deepnets.training.evaluation import Evaluation, evaluate
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.recipes import get_recipe, recipes
from keras_deepnets.training.run import Run, RunFolder, read_metrics

if TYPE_CHECKING:
    from keras_deepnets.training.averaging import AveragedWeights
    from keras_deepnets.training.callbacks import (
        InputGrid,
        MetricsFile,
        PlateauRate,
        Profile,
        StopAtStep,
        StopOnNonFinite,
        TensorBoardScalars,
    )
    from keras_deepnets.training.checkpoints import Checkpoint, CheckpointStore
    from keras_deepnets.training.feed import Sets
    from keras_deepnets.training.fit import Curves
    from keras_deepnets.training.loop import train
    from keras_deepnets.training.losses import BinaryCrossentropy, SmoothedCrossentropy, TopAccuracy
    from keras_deepnets.training.muon import Muon
    from keras_deepnets.training.optimizers import AdamW, CoupledSGD, Lamb, optimizer
    from keras_deepnets.training.precision import prepare_gpus
    from keras_deepnets.training.preemption import Preempted
    from keras_deepnets.training.progress import progress_callback
    from keras_deepnets.training.schedules import (
        ExponentialFall,
        HalfCosine,
        OneCycle,
        PiecewiseDrops,
        WarmUp,
        learning_rate,
    )

_MODULES = {
    "averaging": ("AveragedWeights",),
    "callbacks": (
        "InputGrid",
        "MetricsFile",
        "PlateauRate",
        "Profile",
        "StopAtStep",
        "StopOnNonFinite",
        "TensorBoardScalars",
    ),
    "checkpoints": ("Checkpoint", "CheckpointStore"),
    "feed": ("Sets",),
    "fit": ("Curves",),
    "loop": ("train",),
    "losses": ("BinaryCrossentropy", "SmoothedCrossentropy", "TopAccuracy"),
    "muon": ("Muon",),
    "optimizers": ("AdamW", "CoupledSGD", "Lamb", "optimizer"),
    "precision": ("prepare_gpus",),
    "preemption": ("Preempted",),
    "progress": ("progress_callback",),
    "schedules": ("ExponentialFall", "HalfCosine", "OneCycle", "PiecewiseDrops", "WarmUp", "learning_rate"),
}

__all__ = [
    "AdamW",
    "AveragedWeights",
    "BinaryCrossentropy",
    "Checkpoint",
    "CheckpointStore",
    "CoupledSGD",
    "Curves",
    "DivergedError",
    "Evaluation",
    "ExponentialFall",
    "HalfCosine",
    "InputGrid",
    "Lamb",
    "MetricsFile",
    "Muon",
    "OneCycle",
    "PiecewiseDrops",
    "PlateauRate",
    "Preempted",
    "Profile",
    "Recipe",
    "Run",
    "RunFolder",
    "Sets",
    "SmoothedCrossentropy",
    "StopAtStep",
    "StopOnNonFinite",
    "TensorBoardScalars",
    "TopAccuracy",
    "TrainingError",
    "WarmUp",
    "evaluate",
    "get_recipe",
    "learning_rate",
    "optimizer",
    "prepare_gpus",
    "progress_callback",
    "read_metrics",
    "recipes",
    "train",
]


__getattr__, __dir__ = lazy_names(__name__, _MODULES, first="keras")
