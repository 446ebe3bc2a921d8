"""Training of detectors: recipes, runs, validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets.lazy import lazy_names

if TYPE_CHECKING:
    from keras_deepnets.detection.training.fitting import train
    from keras_deepnets.detection.training.recipe import DetectionRecipe
    from keras_deepnets.detection.training.recipes import get_recipe, recipes

__all__ = ["DetectionRecipe", "get_recipe", "recipes", "train"]

__getattr__, __dir__ = lazy_names(
    __name__, {"fitting": ("train",), "recipe": ("DetectionRecipe",), "recipes": ("get_recipe", "recipes")}
)
