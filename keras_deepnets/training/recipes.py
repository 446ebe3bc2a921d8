"""Training recipes as data: a row holds the numbers of one paper, and says where they stand."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from keras_deepnets.data import augmentation as augmentations
from keras_deepnets.errors import InputError

SCHEDULES = ("constant", "piecewise", "one_cycle", "cosine", "plateau")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
_CHOICES = {
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "optimizer": ("sgd",),
    "weight_decay_on": ("all", "kernels"),
    "warmup_shape": ("linear", "constant"),
}
_BELOW_ONE = ("momentum", "label_smoothing", "ema", "peak_at", "drop")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. Exactly one of `epochs` and `steps` is set.

    Attributes:
        name: the recipe's name.
        source: paper and section that the numbers come from.
        epochs: length of the run in passes over the training images; may be fractional.
        steps: length of the run in optimiser steps ("iterations").
        batch_size: images a step. Fewer training images than that make one step of them all.
        image_size: side in pixels that images are brought to; `None`: what the network takes.
        optimizer: `"sgd"`, gradient descent with momentum.
        learning_rate: the highest (one-cycle, cosine) or first (piecewise, plateau) learning rate.
        schedule: `"constant"`; `"piecewise"`: times `drop` at each of `milestones`; `"one_cycle"`: up to `peak_at`, then
            down to zero; `"cosine"`: half a cosine to zero; `"plateau"`: times `drop` when the error stalls.
        milestones: where the rate drops, as fractions of the run, so that they hold when its length is changed.
        drop: the factor of a drop.
        peak_at: where a one-cycle run has its highest rate, as a fraction of the run.
        patience: epochs without a lower error before a `"plateau"` schedule drops.
        warmup_steps: steps of warm-up before the schedule takes over.
        warmup_learning_rate: the learning rate at the start of the warm-up.
        warmup_shape: `"linear"` up to the schedule, or `"constant"`.
        momentum: of the gradient; 0 for none.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: coupled L2 penalty: `weight_decay * w` is added to the gradient, before momentum.
        weight_decay_on: `"all"` trainable variables, or `"kernels"` (not biases, scales, offsets).
        label_smoothing: share of the target's mass that is spread evenly over all classes.
        augmentation: name of a policy of `keras_deepnets.data.augmentation`; `"auto"`: the one that suits the images
            (`feed.suitable_augmentation`).
        ema: decay a step of the running average of the weights that is measured and kept; `None` for no average.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or `"auto"`.
        exceptions: fields that the paper sets otherwise for a named network, by registry name.
    """

    name: str
    source: str
    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 128
    image_size: int | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "piecewise"
    milestones: tuple[float, ...] = ()
    drop: float = 0.1
    peak_at: float = 0.25
    patience: int = 5
    warmup_steps: int = 0
    warmup_learning_rate: float = 0.0
    warmup_shape: str = "linear"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    weight_decay_on: str = "all"
    label_smoothing: float = 0.0
    augmentation: str | None = None
    ema: float | None = None
    precision: str = "float32"
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        """Checks every field; wrong ones raise `InputError`."""
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), hints[item.name]))
        if (self.epochs is None) == (self.steps is None):
            raise InputError(f"Recipe {self.name!r}: set exactly one of epochs={self.epochs} and steps={self.steps}.")
        if self.schedule == "plateau" and self.warmup_steps:
            raise InputError(f"warmup_steps={self.warmup_steps}: a plateau schedule has no warm-up; set it to 0.")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < at < 1 for at in self.milestones):
            raise InputError(f"milestones={self.milestones} must be rising fractions of the run, between 0 and 1.")

    def total_steps(self, steps_per_epoch: int) -> int:
        """The length of the run in optimiser steps, at least 1."""
        return self.steps if self.steps is not None else max(1, round(self.epochs * steps_per_epoch))

    def with_overrides(self, /, **overrides: Any) -> Recipe:
        """A copy with some fields changed; `epochs` and `steps` replace each other.

        Raises:
            InputError: if a field is not one of `Recipe`, or its value has the wrong type or range.
        """
        known = [item.name for item in fields(self) if item.name not in ("name", "source", "exceptions")]
        for name in overrides:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"A recipe has no field {name!r}.{hint} Its fields are: {', '.join(known)}.")
        for given, other in (("epochs", "steps"), ("steps", "epochs")):
            if overrides.get(given) is not None and other not in overrides:
                overrides[other] = None
        return replace(self, **overrides)

    def for_model(self, name: str | None) -> Recipe:
        """The recipe with what the paper does otherwise for the network called `name`."""
        values = self.exceptions.get(name or "", {})
        return replace(self, exceptions={}).with_overrides(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self) | {"milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`; unknown or wrong values raise `InputError`."""
        base = cls(name=values.get("name", "custom"), source=values.get("source", ""), epochs=1)
        exceptions = values.get("exceptions", {})
        rest = {key: value for key, value in values.items() if key not in ("name", "source", "exceptions")}
        return replace(base.with_overrides(**rest), exceptions=exceptions)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """`value` in the field's type (whole numbers pass as floats, lists as tuples), or `InputError`."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, _UNION) else (hint,)
    if value is None and type(None) in options:
        return None
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, _CHOICES[name]))}.")
        return value
    if name == "augmentation":
        return value if value == "auto" else augmentations.get(value).name
    if name == "milestones" and isinstance(value, (list, tuple)):
        return tuple(_checked("milestone", at, float) for at in value)
    if name == "exceptions" and isinstance(value, Mapping):
        return dict(value)
    kind = options[0]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(kind, type) or not isinstance(value, kind) or wrong_bool:
        raise InputError(f"{name}={value!r} must be {_PHRASES.get(kind, 'a list of numbers')}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(name, value)
    return value


def _check_range(name: str, value: float) -> None:
    """Raises `InputError` unless the number makes sense for the field."""
    if not 0 <= value < float("inf"):  # also refuses NaN
        raise InputError(f"{name}={value!r} must not be negative or infinite.")
    if value == 0 and name in ("epochs", "steps", "batch_size", "image_size", "learning_rate", "drop", "patience"):
        raise InputError(f"{name}={value!r} must be positive.")
    if name in _BELOW_ONE and value >= 1:
        raise InputError(f"{name}={value!r} must be below 1.")


_UNION = type(int | None)
_PHRASES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}

_HE2015 = {
    "learning_rate": 0.1,
    "schedule": "piecewise",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "weight_decay_on": "all",
}

_ROWS = (
    Recipe(
        name="fast",
        source="one-cycle: Smith & Topin 2017, Super-Convergence, section 3; label smoothing: Szegedy et al. 2015, section 7",
        epochs=20,
        batch_size=128,
        learning_rate=0.2,
        schedule="one_cycle",
        peak_at=0.25,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        weight_decay_on="kernels",
        label_smoothing=0.1,
        augmentation="auto",
    ),
    Recipe(
        name="he2015_cifar",
        source="He et al. 2015, Deep Residual Learning, section 4.2",
        steps=64_000,
        batch_size=128,
        milestones=(0.5, 0.75),  # 32k and 48k of 64k iterations
        augmentation="pad_crop_flip",
        # "we use 0.01 to warm up the training until the training error is below 80% (about 400 iterations)"
        exceptions={"resnet110": {"warmup_steps": 400, "warmup_learning_rate": 0.01, "warmup_shape": "constant"}},
        **_HE2015,
    ),
    Recipe(
        name="he2015_imagenet",
        source="He et al. 2015, Deep Residual Learning, section 3.4",
        steps=600_000,
        batch_size=256,
        augmentation="random_resized_crop_flip",
        **(_HE2015 | {"schedule": "plateau"}),
    ),
    Recipe(
        name="huang2017_cifar",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2",
        epochs=300,
        batch_size=64,
        learning_rate=0.1,
        schedule="piecewise",
        milestones=(0.5, 0.75),
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        weight_decay_on="all",
        augmentation="pad_crop_flip",
    ),
)
_RECIPES = {row.name: row for row in _ROWS}


def recipes() -> list[str]:
    """The names of the recipes."""
    return list(_RECIPES)


def get_recipe(name: str | Recipe, /, **overrides: Any) -> Recipe:
    """The recipe called `name` (a `Recipe` passes through), with some fields changed.

    Raises:
        InputError: if there is no such recipe or field, or a value is wrong.
    """
    if not isinstance(name, Recipe):
        if name not in _RECIPES:
            near = difflib.get_close_matches(str(name), _RECIPES, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"There is no recipe {name!r}.{hint} Recipes are: {', '.join(_RECIPES)}.")
        name = _RECIPES[name]
    return name.with_overrides(**overrides) if overrides else name
