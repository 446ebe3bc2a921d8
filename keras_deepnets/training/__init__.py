"""Training: recipes, optimizer pieces, callbacks, the run, evaluation.

Importing this package imports neither TensorFlow nor Keras; the first use of what needs them does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_deepnets.training.errors import TrainingError
from keras_deepnets.training.evaluation import Evaluation, evaluate
from keras_deepnets.training.recipes import Recipe, get_recipe, recipes
from keras_deepnets.training.run import Run, RunFolder, read_metrics

if TYPE_CHECKING:
    from keras_deepnets.training.callbacks import (
        AveragedWeights,
        MetricsFile,
        PlateauRate,
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
        "MetricsFile",
        "PlateauRate",
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
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AveragedWeights",
    "Checkpoint",
    "CheckpointStore",
    "CoupledSGD",
    "Evaluation",
    "HalfCosine",
    "MetricsFile",
    "OneCycle",
    "PiecewiseDrops",
    "PlateauRate",
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


def __getattr__(name: str) -> Any:
    """Imports the module of a name that needs Keras when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
