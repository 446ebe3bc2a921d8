"""The phases of a run: the classifier alone, then all layers; or all layers from the start."""

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
"""Features that a classifier has at most: whether they are kept is decided before the network is built."""
_SMALL_BATCH = 8
"""Images: batch normalisation learns from noise in smaller batches. At 8 its statistics still help (docs/training.md)."""


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one optimizer and one set of frozen layers. Epochs and steps count over the whole run.

    Attributes:
        name: `HEAD` or `ALL`.
        first_epoch: epochs of the run before it.
        last_epoch: epochs of the run at its end.
        first_step: optimiser steps before it.
        steps: its own optimiser steps.
        steps_per_epoch: of a whole epoch.
        cached: whether it trains on features that are computed once.
    """

    name: str
    first_epoch: int
    last_epoch: int
    first_step: int
    steps: int
    steps_per_epoch: int
    cached: bool = False


def planned(recipe: Recipe, images: int) -> dict[str, Any]:
    """The lengths of a run's phases as plain JSON values.

    Args:
        recipe: with numbers for what depends on the data (`sizing.sized`).
        images: training images.
    """
    steps_per_epoch = images // recipe.batch_size
    cached = 4 * images * _WIDEST <= memory.share(8, 256 << 20, 8 << 30)
    head_steps = max(1, round(recipe.head_epochs * steps_per_epoch)) if recipe.head_epochs else 0
    head = {"head": {"steps": head_steps, "cached": cached}} if head_steps else {}
    steps = 0 if recipe.head_only else recipe.total_steps(steps_per_epoch, recipe.batch_size)
    return head | {"steps_per_epoch": steps_per_epoch, "steps": steps, "epochs": math.ceil(steps / steps_per_epoch)}


def of(resolved: Mapping[str, Any]) -> list[Phase]:
    """The phases of a run whose record says so much."""
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
    """Raises `InputError` where a recipe stops by validation and there is nothing to measure on."""
    if recipe.early_stopping is not None and not measured:
        raise InputError(
            f"early_stopping={recipe.early_stopping} needs validation images; give validation=0.1, or leave it out."
        )


class Freezing:
    """Which layers of a network are trained in which phase of a recipe; remembers how it was before.

    Args:
        model: a built network.
        recipe: with a number for `batch_size`.

    Raises:
        InputError: the recipe freezes a layer that is not there.
    """

    def __init__(self, model: keras.Model, recipe: Recipe):
        self._model, self._recipe = model, recipe
        self._keeps_statistics = self._frozen_statistics()
        freezes = bool(recipe.head_epochs) or recipe.freeze is not None or self._keeps_statistics
        # Layers before their parts: setting a layer sets its parts too.
        self._before = [(layer, layer.trainable) for layer in _all_layers(model)] if freezes else []
        if recipe.freeze is not None:
            surgery.freeze(model, recipe.freeze)
            self.restore()

    def _frozen_statistics(self) -> bool:
        kind, batch = self._recipe.batch_norm, self._recipe.batch_size
        return kind == "frozen" or (kind == "auto" and batch < _SMALL_BATCH)

    def restore(self) -> None:
        """Makes every layer as trainable as it was."""
        for layer, trainable in self._before:
            layer.trainable = trainable

    def enter(self, phase: Phase) -> None:
        """Freezes what stands still in a phase."""
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
    """The layers of a model, each followed by those inside of it."""
    found = []
    for layer in model.layers:
        found += [layer, *_parts(layer)]
        if isinstance(layer, keras.Model):
            found += _all_layers(layer)
    return found


def _parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers inside of a layer that can be frozen by themselves."""
    if isinstance(layer, layers.Block):
        return list(layer.sublayers.values())
    return [layer.norm] if isinstance(getattr(layer, "norm", None), keras.layers.Layer) else []
