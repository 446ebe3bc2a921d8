"""How large the networks of a study are and about how long its runs take."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keras_deepnets import registry
from keras_deepnets.studies.definition import Study
from keras_deepnets.studies.plan import PlannedRun
from keras_deepnets.training import get_recipe
from keras_deepnets.training.sizing import sized

if TYPE_CHECKING:
    from keras_deepnets.training.feed import Sets

_BUILDING = 0.45
"""Seconds per layer to build, trace and save a network: ResNet20 takes 8 s, ResNet56 25 s and a network of 110 layers 50 s."""
_ELEMENT = 30
"""Multiply-adds that take as long as an element of a layer's output, written and read again. Fitted on two cores to eleven networks."""
_VALIDATION = 0.28
"""Time of an image in validation, relative to one in training. Measured with ResNeXt."""
_BATCH, _STEPS = 64, 8


class Images(NamedTuple):
    """Numbers of training images, of test images and of classes."""

    train: int
    test: int
    classes: int


@dataclass(frozen=True)
class Cost:
    """Size of a run's network, and the images that it sees.

    Attributes:
        parameters: Trainable parameters.
        multiply_adds: Multiply-adds of one image.
        elements: Elements of the outputs of all layers for one image.
        depth: Layers with weights.
        images: Training images, counted once for each epoch.
        validated: Test images, counted once for each epoch.
    """

    parameters: int
    multiply_adds: int
    elements: int
    depth: int
    images: int
    validated: int

    def seconds(self, rate: float) -> float:
        """Return the estimated time of the run.

        Args:
            rate: Work per second in training, of `training_rate`.
        """
        images = self.images + _VALIDATION * self.validated
        return _BUILDING * self.depth + images * _work(self.multiply_adds, self.elements) / rate


def _work(multiply_adds: int, elements: int) -> int:
    """Return the work of one image, in multiply-adds. Networks with many small layers wait for the memory."""
    return multiply_adds + _ELEMENT * elements


def costs(runs: Sequence[PlannedRun], images: Images) -> list[Cost]:
    """Return the cost of each run. Each network is built once."""
    from keras_deepnets import graphs, models

    known: dict[str, tuple[int, int, int]] = {}
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
        key = json.dumps([run.network, options, shape], sort_keys=True)
        if key not in known:
            model = registry.create_model(run.network, **options, input_shape=shape, classes=images.classes)
            known[key] = (
                models.trainable_parameters(model),
                models.multiply_adds(model),
                graphs.output_elements(model),
            )
        known_recipe = sized(recipe, images.train)
        batch = known_recipe.images_per_step
        steps_per_epoch = max(1, images.train // batch)
        steps = known_recipe.total_steps(steps_per_epoch, batch)
        validated = round(steps / steps_per_epoch * images.test)
        found.append(Cost(*known[key], spec.depth, steps * batch, validated))
    return found


def training_rate() -> float:
    """Measure the work per second of this machine in training, with a small residual network. It takes seconds."""
    import keras
    import numpy as np

    from keras_deepnets import graphs, models

    model = registry.create_model("resnet", depth=8, stem="cifar", input_shape=(32, 32, 3), classes=10)
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy")
    images, labels = np.zeros((_BATCH, 32, 32, 3), "float32"), np.zeros(_BATCH, "int32")
    times = []
    for _ in range(_STEPS + 1):
        begin = time.perf_counter()
        model.train_on_batch(images, labels)
        times.append(time.perf_counter() - begin)
    keras.backend.clear_session()
    return _BATCH * _work(models.multiply_adds(model), graphs.output_elements(model)) / min(times[1:])


def images_of(study: Study) -> Images:
    """Return how many images a study uses, without downloading a known data set."""
    from keras_deepnets.data import catalogue

    known = catalogue.KNOWN.get(study.data)
    if known is not None:
        train, test = known.sizes[known.train], known.sizes.get("test") or known.sizes["validation"]
        classes = {"cifar100": 100, "imagenet2012": 1000}.get(study.data, 10)
        return Images(min(train, study.limit or train), min(test, study.test or test), classes)
    from keras_deepnets.training import feed

    images = images_in(feed.load(study.data, None, 0, limit=study.limit))
    return images._replace(test=min(images.test, study.test or images.test))


def images_in(sets: Sets) -> Images:
    """Return how many images there are."""
    return Images(sets.train.size, sets.held.size if sets.held is not None else 0, len(sets.train.labels))


def duration(seconds: float) -> str:
    """Format a time for people, e.g. ``"about 12 min"``."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 60):
            return f"about {seconds / size:.0f} {unit}"
    return f"about {math.ceil(seconds)} s"
