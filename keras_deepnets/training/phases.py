"""The phases of a run: first the classifier only, then all layers; or all layers from the start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_deepnets import layers, surgery
from keras_deepnets.data import memory
from keras_deepnets.errors import InputError
from keras_deepnets.training.recipe import Recipe

HEAD, ALL = "head", "all"
_WIDEST = 4096
"""Upper bound for a classifier's features. Whether to cache them is decided before the network is built."""
_SMALL_BATCH = 8
"""Batch size below which batch normalisation is too noisy to train. At 8 its statistics still help (docs/training.md)."""


@dataclass(frozen=True)
class Phase:
    """A range of epochs with one optimizer and one set of frozen layers. Epochs and steps count over the whole run.

    Attributes:
        name: `HEAD` or `ALL`.
        first_epoch: Number of epochs before the phase.
        last_epoch: Number of epochs at its end.
        first_step: Number of optimizer steps before the phase.
        steps: Optimizer steps of the phase.
        steps_per_epoch: Steps of a full epoch.
        cached: Whether the phase trains on features that are computed once.
    """

    name: str
    first_epoch: int
    last_epoch: int
    first_step: int
    steps: int
    steps_per_epoch: int
    cached: bool = False


def planned(recipe: Recipe, images: int) -> dict[str, Any]:
    """Return the lengths of a run's phases as plain JSON values.

    Args:
        recipe: Recipe with numbers for everything that depends on the data (`sizing.sized`).
        images: Number of training images.
    """
    steps_per_epoch = images // recipe.images_per_step
    cached = 4 * images * _WIDEST <= memory.share(8, 256 << 20, 8 << 30)
    head_steps = max(1, round(recipe.number("head_epochs") * steps_per_epoch)) if recipe.head_epochs else 0
    head = {"head": {"steps": head_steps, "cached": cached}} if head_steps else {}
    steps = 0 if recipe.head_only else recipe.total_steps(steps_per_epoch)
    return head | {"steps_per_epoch": steps_per_epoch, "steps": steps, "epochs": math.ceil(steps / steps_per_epoch)}


def of(resolved: Mapping[str, Any]) -> list[Phase]:
    """Return the phases of a run from its record."""
    per_epoch, found = resolved["steps_per_epoch"], []
    head = resolved.get("head")
    epochs = steps = 0
    if head:
        epochs, steps = math.ceil(head["steps"] / per_epoch), head["steps"]
        found.append(Phase(HEAD, 0, epochs, 0, steps, per_epoch, head["cached"]))
    if resolved["steps"]:
        found.append(Phase(ALL, epochs, epochs + resolved["epochs"], steps, resolved["steps"], per_epoch))
    return found


def check_early_stopping(recipe: Recipe, measured: bool) -> None:
    """Raise `InputError` if a recipe stops by validation accuracy without validation images."""
    if recipe.early_stopping is not None and not measured:
        raise InputError(
            f"early_stopping={recipe.early_stopping} needs validation images. Set validation=0.1, or omit early_stopping."
        )


class Freezing:
    """Freezes the layers of a network in each phase of a recipe, and remembers their original state.

    Args:
        model: A built network.
        recipe: Recipe with a number for `batch_size`.

    Raises:
        InputError: The recipe freezes a layer that does not exist.
    """

    def __init__(self, model: keras.Model, recipe: Recipe):
        self._model, self._recipe = model, recipe
        self._keeps_statistics = self._frozen_statistics()
        freezes = bool(recipe.head_epochs) or recipe.freeze is not None or self._keeps_statistics
        # Layers come before their inner layers, because setting a layer also sets its inner layers.
        self._before = [(layer, layer.trainable) for layer in _all_layers(model)] if freezes else []
        if recipe.freeze is not None:
            surgery.freeze(model, recipe.freeze)
            self.restore()

    def _frozen_statistics(self) -> bool:
        kind = self._recipe.batch_norm
        return kind == "frozen" or (kind == "auto" and self._recipe.images_per_step < _SMALL_BATCH)

    def restore(self) -> None:
        """Restore the original `trainable` state of every layer."""
        for layer, trainable in self._before:
            layer.trainable = trainable

    def enter(self, phase: Phase) -> None:
        """Freeze the layers that a phase does not train."""
        self.restore()
        if phase.name == HEAD:
            surgery.freeze(self._model)
            return
        if self._recipe.freeze is not None:
            surgery.freeze(self._model, self._recipe.freeze)
        if self._keeps_statistics:
            for layer in _all_layers(self._model):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.trainable = False


def _all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model, each followed by its inner layers."""
    found = []
    for layer in model.layers:
        found += [layer, *_parts(layer)]
        if isinstance(layer, keras.Model):
            found += _all_layers(layer)
    return found


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the inner layers of a layer that can be frozen separately."""
    if isinstance(layer, layers.Block):
        return list(layer.sublayers.values())
    return [layer.norm] if isinstance(getattr(layer, "norm", None), keras.layers.Layer) else []
