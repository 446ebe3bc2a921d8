"""Training: recipes, optimizer pieces, callbacks, the run, evaluation.

Importing this package imports neither TensorFlow nor Keras; the first use of what needs them does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets._lazy import lazy_names
from keras_deepnets.training.errors import TrainingError
from keras_deepnets.training.evaluation import Evaluation, evaluate
from keras_deepnets.training.recipes import Recipe, get_recipe, recipes
from keras_deepnets.training.run import Run, RunFolder, read_metrics

if TYPE_CHECKING:
    from keras_deepnets.training.callbacks import (
        AveragedWeights,
        InputGrid,
        MetricsFile,
        PlateauRate,
        Profile,
        StopAtStep,
        StopOnNonFinite,
        TensorBoardScalars,
    )
    from keras_deepnets.training.checkpoints import Checkpoint, CheckpointStore
    from keras_deepnets.training.loop import train
    from keras_deepnets.training.losses import SmoothedCrossentropy
    from keras_deepnets.training.optimizers import CoupledSGD
    from keras_deepnets.training.progress import progress_callback
    from keras_deepnets.training.schedules import HalfCosine, OneCycle, PiecewiseDrops, WarmUp

_MODULES = {
    "callbacks": (
        "AveragedWeights",
        "InputGrid",
        "MetricsFile",
        "PlateauRate",
        "Profile",
        "StopAtStep",
        "StopOnNonFinite",
        "TensorBoardScalars",
    ),
    "checkpoints": ("Checkpoint", "CheckpointStore"),
    "loop": ("train",),
    "losses": ("SmoothedCrossentropy",),
    "optimizers": ("CoupledSGD",),
    "progress": ("progress_callback",),
    "schedules": ("HalfCosine", "OneCycle", "PiecewiseDrops", "WarmUp"),
}

__all__ = [
    "AveragedWeights",
    "Checkpoint",
    "CheckpointStore",
    "CoupledSGD",
    "Evaluation",
    "HalfCosine",
    "InputGrid",
    "MetricsFile",
    "OneCycle",
    "PiecewiseDrops",
    "PlateauRate",
    "Profile",
    "Recipe",
    "Run",
    "RunFolder",
    "SmoothedCrossentropy",
    "StopAtStep",
    "StopOnNonFinite",
    "TensorBoardScalars",
    "TrainingError",
    "WarmUp",
    "evaluate",
    "get_recipe",
    "progress_callback",
    "read_metrics",
    "recipes",
    "train",
]


__getattr__, __dir__ = lazy_names(__name__, _MODULES)
