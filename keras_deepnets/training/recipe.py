"""A training recipe: its fields, and what each may be."""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from keras_deepnets.data import augmentation as augmentations
from keras_deepnets.errors import InputError
from keras_deepnets.training import durations

SCHEDULES = ("constant", "piecewise", "one_cycle", "cosine", "plateau", "exponential")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
CHOICES = {
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "optimizer": ("sgd", "lamb", "adamw", "muon"),
    "loss": ("crossentropy", "binary_crossentropy"),
    "weight_decay_on": ("all", "kernels"),
    "warmup_shape": ("linear", "constant"),
    "input_scaling": ("statistics", "unit"),
    "batch_norm": ("train", "frozen", "auto"),
    "keep": ("last", "best"),
}
AUTO = "auto"
"""Of `epochs`, `head_epochs` and `batch_size`: chosen from the number of training images (`training.sizing`)."""
SIZED_FIELDS = ("epochs", "head_epochs", "batch_size")
LENGTHS = ("epochs", "steps", "examples")
OWN = ("name", "source", "use")
"""What a recipe says of itself: no settings."""
POSITIVE = (
    *LENGTHS,
    "batch_size",
    "image_size",
    "crop_fraction",
    "learning_rate",
    "drop",
    "patience",
    "repeated_augmentation",
    "learning_rate_batch",
    "head_learning_rate",
    "early_stopping",
)
BELOW_ONE = ("momentum", "label_smoothing", "ema", "peak_at", "drop")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. Exactly one of `epochs`, `steps` and `examples` is set.

    A duration within the run is a text, ``"5 epochs"``, ``"400 steps"``, ``"50000 examples"``, ``"2 %"``.

    Attributes:
        name: the recipe's name.
        source: paper and section that the numbers come from.
        use: when to use it, in one line.
        epochs: length of the run in passes over the training images; may be fractional. `"auto"`: chosen from the number of
            training images (`training.sizing`).
        steps: length of the run in optimiser steps ("iterations").
        examples: length of the run in training images seen.
        batch_size: images a step. Fewer training images than that make one step of them all. `"auto"`: chosen from the number
            of training images.
        learning_rate_batch: the batch size that `learning_rate` is for. The rate scales linearly with the batch size of the
            run. `None`: no scaling; so where `learning_rate` is set by the caller.
        image_size: side in pixels that images are brought to; `None`: what the network takes.
        crop_fraction: part of the shorter side that a named network sees at test time (`Scaling.crop_fraction`); `None`: 0.875
            (224 of 256 pixels) of networks of images above 64 pixels, 1 of others. A given model has its own.
        input_scaling: of a named network: `"statistics"`, each channel to mean 0 and standard deviation 1 over the training
            images; `"unit"`, values divided by 255.
        optimizer: `"sgd"`, gradient descent with momentum; `"adamw"` (Loshchilov & Hutter 2017); `"lamb"` (You et al. 2019); or `"muon"`
            (Jordan et al. 2024).
        loss: `"crossentropy"`; or `"binary_crossentropy"`: every class by itself, targets of mixed images counting whole.
        learning_rate: the highest (one-cycle, cosine) or first (piecewise, plateau) learning rate.
        schedule: `"constant"`; `"piecewise"`: times `drop` at each of `milestones`; `"one_cycle"`: up to `peak_at`, then
            down to zero; `"cosine"`: half a cosine to zero; `"plateau"`: times `drop` when the error stalls; `"exponential"`:
            evenly down to `drop` times the first at the end.
        milestones: where the rate drops: fractions of the run, which hold when its length is changed, or durations.
        drop: the factor of a drop.
        peak_at: where a one-cycle run has its highest rate, as a fraction of the run.
        patience: epochs without a lower error before a `"plateau"` schedule drops.
        warmup: how long the warm-up is before the schedule takes over: a number of steps or a duration.
        warmup_learning_rate: the learning rate at the start of the warm-up.
        warmup_shape: `"linear"` up to the schedule, or `"constant"`.
        momentum: of the gradient; 0 for none.
        nesterov: whether the momentum is Nesterov's.
        relative_rate: Muon alone: the learning rate is a share of each kernel's root mean square (`training.Muon`).
        weight_decay: of SGD a coupled L2 penalty: `weight_decay * w` is added to the gradient, before momentum; of the others
            decoupled.
        weight_decay_on: `"all"` trainable variables, or `"kernels"` (not biases, scales, offsets).
        label_smoothing: share of the target's mass that is spread evenly over all classes.
        augmentation: name of a policy of `keras_deepnets.data.augmentation`, or several joined by `+`; `"auto"`: the one that
            suits the images (`feed.suitable_augmentation`).
        repeated_augmentation: how often an image is seen in a batch, each time augmented differently.
        head_epochs: epochs at the start of the run that train the classifier alone, on frozen features; 0 for none. `epochs`,
            `steps` or `examples` count the rest of the run. `"auto"`: chosen from the number of training images.
        head_learning_rate: the highest learning rate of these epochs. Their optimizer is AdamW, their schedule half a cosine.
        head_only: whether the run ends after these epochs.
        freeze: name of the last layer that stays frozen in the rest of the run, e.g. `"conv4_block6_out"`; `None`: none.
        batch_norm: in the rest of the run: `"train"`; `"frozen"`: batch normalisation keeps its statistics, scales and offsets;
            `"auto"`: frozen where a batch has fewer than 8 images.
        early_stopping: epochs without a better validation accuracy before the run ends; `None`: it never ends early.
        keep: which weights the trained model has: of the `"last"` epoch, or of the one with the `"best"` validation accuracy.
        ema: decay a step of the running average of the weights that is measured and kept; `None` for no average.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or `"auto"`.
        model_options: what the paper sets in the network with this training, e.g. `{"dropout": 0.2}`; of a named network, if it has
            such an option and the caller does not give it.
        exceptions: fields that the paper sets otherwise for a named network, by registry name.
    """

    name: str
    source: str
    use: str = ""
    epochs: float | str | None = None
    steps: int | None = None
    examples: int | None = None
    batch_size: int | str = 128
    learning_rate_batch: int | None = None
    image_size: int | None = None
    crop_fraction: float | None = None
    input_scaling: str = "statistics"
    optimizer: str = "sgd"
    loss: str = "crossentropy"
    learning_rate: float = 0.1
    schedule: str = "piecewise"
    milestones: tuple[float | str, ...] = ()
    drop: float = 0.1
    peak_at: float = 0.25
    patience: int = 5
    warmup: int | str = 0
    warmup_learning_rate: float = 0.0
    warmup_shape: str = "linear"
    momentum: float = 0.9
    nesterov: bool = False
    relative_rate: bool = False
    weight_decay: float = 0.0
    weight_decay_on: str = "all"
    label_smoothing: float = 0.0
    augmentation: str | None = None
    repeated_augmentation: int = 1
    head_epochs: float | str = 0
    head_learning_rate: float = 2e-3
    head_only: bool = False
    freeze: str | None = None
    batch_norm: str = "train"
    early_stopping: int | None = None
    keep: str = "last"
    ema: float | None = None
    precision: str = "float32"
    model_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        """Checks every field; wrong ones raise `InputError`."""
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), hints[item.name]))
        exceptions = {
            model: {
                name: _checked(name, value, hints[name]) if name in hints else value for name, value in values.items()
            }
            for model, values in self.exceptions.items()
        }
        object.__setattr__(self, "exceptions", exceptions)
        if sum(getattr(self, name) is not None for name in LENGTHS) != 1:
            given = ", ".join(f"{name}={getattr(self, name)}" for name in LENGTHS)
            raise InputError(f"Recipe {self.name!r}: set exactly one of {given}.")
        if self.schedule == "plateau" and self.warmup:
            raise InputError(f"warmup={self.warmup!r}: a plateau schedule has no warm-up; set it to 0.")
        fractions = [at for at in self.milestones if not isinstance(at, str)]
        if fractions != sorted(fractions) or not all(0 < at < 1 for at in fractions):
            raise InputError(
                f"milestones={self.milestones} must be rising fractions of the run, between 0 and 1, or durations like '30 epochs'."
            )
        if self.relative_rate and self.optimizer != "muon":
            raise InputError(f"relative_rate=True is for optimizer='muon', not {self.optimizer!r}; leave it out.")
        if self.head_only and not self.head_epochs:
            raise InputError("head_only=True needs head_epochs, e.g. head_epochs='auto', or the recipe fine_tune.")

    def total_steps(self, steps_per_epoch: int, batch_size: int | None = None) -> int:
        """The length of the run in optimiser steps, at least 1; `batch_size` images each, by default the recipe's."""
        if self.steps is not None:
            return self.steps
        if self.examples is not None:
            return max(1, math.ceil(self.examples / (batch_size or self.batch_size)))
        return max(1, round(self._number("epochs") * steps_per_epoch))

    def _number(self, name: str) -> float:
        """A field that may be `"auto"`, as a number."""
        value = getattr(self, name)
        if isinstance(value, str):
            raise InputError(
                f"{name}={value!r} needs the data: keras_deepnets.training.sized(recipe, images) chooses it."
            )
        return value

    def with_overrides(self, /, **overrides: Any) -> Recipe:
        """A copy with some fields changed, for every network; `epochs`, `steps` and `examples` replace each other.

        Raises:
            InputError: if a field is not one of `Recipe`, or its value has the wrong type or range.
        """
        known = [item.name for item in fields(self) if item.name not in (*OWN, "exceptions")]
        for name in overrides:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"A recipe has no field {name!r}.{hint} Its fields are: {', '.join(known)}.")
        if any(overrides.get(length) is not None for length in LENGTHS):
            overrides = dict.fromkeys(LENGTHS) | overrides
        if "learning_rate" in overrides:  # what the caller asks for is not scaled
            overrides = {"learning_rate_batch": None} | overrides
        # What the caller asks for holds of every network.
        kept = {
            model: {name: value for name, value in values.items() if name not in overrides}
            for model, values in self.exceptions.items()
        }
        return replace(self, exceptions={model: values for model, values in kept.items() if values}, **overrides)

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
        own = {"name": "custom", "source": ""} | {key: values[key] for key in OWN if key in values}
        base = cls(**own, epochs=1)
        exceptions = values.get("exceptions", {})
        rest = {key: value for key, value in values.items() if key not in (*OWN, "exceptions")}
        return replace(base.with_overrides(**rest), exceptions=exceptions)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """`value` in the field's type (whole numbers pass as floats, numbers written as text, lists as tuples), or `InputError`."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, _UNION) else (hint,)
    if value is None and type(None) in options:
        return None
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, CHOICES[name]))}.")
        return value
    if name == "augmentation":
        return value if value == "auto" else augmentations.get(value).name
    if name == "milestones" and isinstance(value, (list, tuple)):
        return tuple(_duration(at) if isinstance(at, str) else _checked("milestone", at, float) for at in value)
    if name == "warmup" and isinstance(value, str):
        return _duration(value)
    if name in ("exceptions", "model_options"):
        if not isinstance(value, Mapping):
            raise InputError(f"{name}={value!r} must map names to values, e.g. {_MAPPINGS[name]}.")
        return dict(value)
    if name in SIZED_FIELDS and value == AUTO:
        return value
    kind = options[0]
    if kind in (float, int) and isinstance(value, str):
        value = _number(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(kind, type) or not isinstance(value, kind) or wrong_bool:
        auto = " or 'auto'" if name in SIZED_FIELDS else ""
        raise InputError(f"{name}={value!r} must be {_PHRASES.get(kind, 'a list of numbers')}{auto}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(name, value)
    return value


def _number(text: str) -> float | str:
    """The number that a text is: YAML reads `5e-4`, without a point, as a text."""
    try:
        return float(text)
    except ValueError:
        return text


def _duration(text: str) -> str:
    durations.parse(text)
    return text


def _check_range(name: str, value: float) -> None:
    """Raises `InputError` unless the number makes sense for the field."""
    if not 0 <= value < float("inf"):  # also refuses NaN
        raise InputError(f"{name}={value!r} must not be negative or infinite.")
    if value == 0 and name in POSITIVE:
        raise InputError(f"{name}={value!r} must be positive.")
    if name == "crop_fraction" and value > 1:
        raise InputError(f"{name}={value!r} must be at most 1; 0.875 keeps 224 of 256 pixels, 1 keeps all.")
    if name in BELOW_ONE and value >= 1:
        raise InputError(f"{name}={value!r} must be below 1.")


_UNION = type(int | None)
_MAPPINGS = {"exceptions": "{'resnet110': {'warmup': 1}}", "model_options": "{'dropout': 0.2}"}
_PHRASES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}
