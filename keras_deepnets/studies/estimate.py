"""How large the networks of a study are and about how long its runs take."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets import facts, registry
from keras_deepnets.studies.plan import PlannedRun
from keras_deepnets.training import get_recipe
from keras_deepnets.training.sizing import sized

if TYPE_CHECKING:
    from keras_deepnets.training.feed import Sets

_BUILDING = 0.45
"""Seconds per layer to build, trace and save a network: ResNet20 takes 8 s, ResNet56 25 s and a network of 110 layers 50 s."""
_SLOWER = {"DenseNet": 2.2}
"""Families that take longer per multiply-add than a residual network. DenseNetBC100_12 trains 25 G/s where ResNet20 trains 60 G/s."""
_BATCH, _STEPS = 64, 8


@dataclass(frozen=True)
class Cost:
    """Size of a run's network, and the images that its training sees.

    Attributes:
        parameters: Trainable parameters.
        multiply_adds: Multiply-adds of one image.
        depth: Layers with weights.
        images: Training images, counted once for each epoch.
        slower: Time per multiply-add, relative to a residual network.
    """

    parameters: int
    multiply_adds: int
    depth: int
    images: int
    slower: float = 1.0

    def seconds(self, rate: float) -> float:
        """Return the estimated time of the run.

        Args:
            rate: Multiply-adds per second in training, of `training_rate`.
        """
        return _BUILDING * self.depth + self.slower * self.images * self.multiply_adds / rate


def costs(runs: Sequence[PlannedRun], images: int, classes: int) -> list[Cost]:
    """Return the cost of each run, for a number of training images and classes."""
    known: dict[str, dict[str, int]] = {}
    found = []
    for run in runs:
        recipe = get_recipe(run.recipe).for_model(run.network).with_overrides(**run.settings)
        made = registry.constructor_of(run.network).facts
        options = {name: value for name, value in recipe.model_options.items() if name in made.options} | dict(
            run.options
        )
        spec = made.spec_with(options)
        height, width, channels = spec.domain.input_shape
        shape = (recipe.image_size or height, recipe.image_size or width, channels)
        key = json.dumps([run.network, options, shape, classes], sort_keys=True)
        if key not in known:
            known[key] = _size(run.network, options, shape, classes, spec.domain)
        known_recipe = sized(recipe, images)
        batch = known_recipe.images_per_step
        steps = known_recipe.total_steps(max(1, images // batch), batch)
        slower = _SLOWER.get(made.family.name, 1.0)
        found.append(Cost(known[key]["parameters"], known[key]["flops"], spec.depth, steps * batch, slower))
    return found


def _size(
    network: str, options: Mapping[str, Any], shape: tuple[int, int, int], classes: int, domain: Any
) -> dict[str, int]:
    if not options and (shape, classes) == (domain.input_shape, domain.classes) and network in registry.list_models():
        info = facts.model_info(network)
        return {"parameters": info.parameters, "flops": info.flops}
    return facts.count(network, **options, input_shape=shape, classes=classes)


def training_rate() -> float:
    """Measure the multiply-adds per second of this machine in training, with a small residual network. It takes seconds."""
    import keras
    import numpy as np

    from keras_deepnets import models

    model = registry.create_model("resnet", depth=8, stem="cifar", input_shape=(32, 32, 3), classes=10)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy")
    images, labels = np.zeros((_BATCH, 32, 32, 3), "float32"), np.zeros(_BATCH, "int32")
    times = []
    for _ in range(_STEPS + 1):
        begin = time.perf_counter()
        model.train_on_batch(images, labels)
        times.append(time.perf_counter() - begin)
    keras.backend.clear_session()
    return _BATCH * models.multiply_adds(model) / min(times[1:])


def number_of_images(data: str, limit: int | None, sets: Sets | None = None) -> tuple[int, int]:
    """Return the numbers of training images and of classes, without downloading a known data set.

    Args:
        data: Source of the images.
        limit: Largest number of training images.
        sets: The images, if they are loaded already.
    """
    from keras_deepnets.data import catalogue

    known = catalogue.KNOWN.get(data)
    if sets is None and known is not None:
        size = known.sizes[known.train]
        classes = {"cifar100": 100, "imagenet2012": 1000}.get(data, 10)
        return min(size, limit or size), classes
    if sets is None:
        from keras_deepnets.training import feed

        sets = feed.load(data, None, 0, limit=limit)
    return sets.train.size, len(sets.train.labels)


def duration(seconds: float) -> str:
    """Format a time for people, e.g. ``"about 12 min"``."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"about {seconds / size:.0f} {unit}"
    return f"about {math.ceil(seconds)} s"
