"""Training recipes: the fields and their allowed values."""

from __future__ import annotations

import difflib
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from keras_deepnets.data import augmentation as augmentations
from keras_deepnets.errors import InputError
from keras_deepnets.training import durations

SCHEDULES = ("constant", "piecewise", "one_cycle", "cosine", "plateau", "exponential", "linear")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "float64", "auto")
CHOICES = {
    "schedule": SCHEDULES,
    "precision": PRECISIONS,
    "optimizer": ("sgd", "lamb", "adamw", "muon"),
    "loss": ("crossentropy", "binary_crossentropy", "squared_hinge"),
    "weight_decay_on": ("all", "kernels"),
    "warmup_shape": ("linear", "constant"),
    "input_scaling": ("statistics", "unit", "gcn", "zca"),
    "batch_norm": ("train", "frozen", "auto", "synchronized"),
    "keep": ("last", "best", "auto"),
}
AUTO = "auto"
"""Value of `epochs`, `head_epochs` or `batch_size` that is chosen from the number of training images (`training.sizing`)."""
SIZED_FIELDS = ("epochs", "head_epochs", "batch_size")
LENGTHS = ("epochs", "steps", "examples")
OWN = ("name", "source", "use")
"""Fields that describe a recipe and are not settings."""
POSITIVE = (
    *LENGTHS,
    "batch_size",
    "accumulate",
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
BELOW_ONE = ("momentum", "momentum_start", "label_smoothing", "ema", "peak_at", "drop")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run. Set exactly one of `epochs`, `steps` and `examples`.

    A duration is a string with a unit: ``"5 epochs"``, ``"400 steps"``, ``"50000 examples"`` or ``"2 %"`` of the run.

    Attributes:
        name: Name of the recipe.
        source: Paper and section that the numbers come from.
        use: When to use the recipe, in one line.
        epochs: Length of the run in epochs, which may be fractional. `"auto"`: chosen from the number of training
            images (`training.sizing`).
        steps: Length of the run in optimizer steps ("iterations").
        examples: Length of the run in training images seen.
        batch_size: Images per step. If there are fewer training images, each epoch is one step over all of them.
            `"auto"`: chosen from the number of training images.
        accumulate: Parts in which a batch is computed, one after the other, to save memory. Gradients are those of the
            whole batch. Batch normalisation uses the statistics of each part. Each part of a detector's batch counts its own
            sampled anchors and regions.
        learning_rate_batch: Batch size that `learning_rate` refers to. The rate scales linearly with the actual batch
            size. `None`: no scaling. Overriding `learning_rate` also turns scaling off.
        image_size: Side in pixels that images are resized to. `None`: the network's input size.
        crop_fraction: Fraction of the shorter side that a named network sees at test time (`Scaling.crop_fraction`).
            `None`: 0.875 (224 of 256 pixels) for inputs above 64 pixels, otherwise 1. A given model keeps its own
            value.
        input_scaling: Input scaling of a named network. `"statistics"`: each channel has mean 0 and standard deviation
            1 over the training images. `"unit"`: values are divided by 255. `"gcn"`: global contrast normalisation of
            each image. `"zca"`: the same, then ZCA whitening fitted to the training images.
        optimizer: `"sgd"`: gradient descent with momentum. `"adamw"`: Loshchilov & Hutter 2017. `"lamb"`: You et al.
            2019. `"muon"`: Jordan et al. 2024.
        loss: `"crossentropy"`, or `"binary_crossentropy"`: one binary decision per class, and classes with a share of
            at least 0.2 in a mixed image are full targets. `"squared_hinge"`: one margin per class, the loss of a linear
            support vector machine.
        learning_rate: Peak learning rate (one-cycle, cosine) or initial learning rate (other schedules).
        schedule: Learning-rate schedule. `"constant"`: no change. `"piecewise"`: multiplied by `drop` at each milestone.
            `"one_cycle"`: rises until `peak_at`, then falls to zero. `"cosine"`: half a cosine to zero. `"plateau"`:
            multiplied by `drop` when the error stops falling. `"exponential"`: decays exponentially to `drop` times the
            initial rate. `"linear"`: falls linearly to `drop` times the initial rate.
        milestones: Points at which the rate drops. Each is a duration or a fraction of the run. Fractions still hold
            when the length of the run changes.
        drop: Factor by which the learning rate drops.
        peak_at: Point of a one-cycle run with the highest rate, as a fraction of the run.
        patience: Epochs without a lower error before a `"plateau"` schedule drops the rate.
        warmup: Length of the warm-up that precedes the schedule: a number of steps or a duration.
        warmup_learning_rate: Learning rate at the start of the warm-up.
        warmup_shape: `"linear"`: the rate rises linearly to that of the schedule. `"constant"`: the rate stays the
            same.
        momentum: Momentum of the gradient. 0: no momentum.
        momentum_ramp: Length of a linear rise of the momentum from `momentum_start`: a number of steps or a duration. For
            SGD only.
        momentum_start: Momentum at the start of that rise.
        rate_factors: Factor of the learning rate for some weights, by a regular expression that is found in the
            weight's path, e.g. `{"conv.*kernel": 0.05}`. For SGD only. The first that fits applies.
        nesterov: Whether to use Nesterov momentum.
        relative_rate: For Muon only. Whether the learning rate is relative to the root mean square of each kernel
            (`training.Muon`).
        weight_decay: For SGD, a coupled L2 penalty: `weight_decay * w` is added to the gradient before momentum. For
            the other optimizers, decoupled weight decay.
        weight_decay_on: `"all"` trainable variables, or `"kernels"` only (no biases, scales or offsets).
        label_smoothing: Share of the target that is spread evenly over all classes.
        augmentation: Name of a policy of `keras_deepnets.data.augmentation`, or several joined by `+`. `"auto"`: the
            policy that suits the images (`feed.suitable_augmentation`).
        repeated_augmentation: Number of times an image appears in a batch, each time with a different augmentation.
        head_epochs: Epochs at the start of the run that train only the classifier, on frozen features. 0: no such
            epochs. `epochs`, `steps` or `examples` give the length of the rest. `"auto"`: chosen from the number of
            training images.
        head_learning_rate: Peak learning rate of the epochs that train only the classifier. They use AdamW and half a
            cosine.
        head_only: Whether the run ends after the epochs that train only the classifier.
        freeze: Name of the last layer that stays frozen after `head_epochs`, e.g. `"conv4_block6_out"`. `None`: no
            layer.
        batch_norm: Batch normalisation after `head_epochs`. `"train"`: it is trained. `"frozen"`: it keeps its
            statistics, scales and offsets. `"auto"`: frozen if a batch has fewer than 8 images.
            `"synchronized"`: it is trained, with the statistics of the images of all workers and devices.
        early_stopping: Epochs without a better validation accuracy after which the run ends. `None`: no early stopping.
        keep: Weights of the trained model: those of the `"last"` epoch, or of the epoch with the `"best"` validation
            accuracy. `"auto"`: those of the last epoch, unless the best one is better by more than two standard errors.
        ema: Decay per step of the exponential moving average of the weights, which is validated and saved. `None`: no
            average.
        auxiliary_fade: Whether the weights of auxiliary losses fall linearly to zero over the epochs that train all
            layers. It applies to networks with auxiliary classifiers (`model_options={"auxiliary": True}`).
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or `"auto"`. `"float64"` is slow, and serves to
            compare runs without rounding errors. It needs the TensorFlow backend.
        model_options: Network options that the paper uses with this training, e.g. `{"dropout": 0.2}`. They apply to a
            named network that has the option, unless the caller sets it.
        exceptions: Fields that the paper sets differently for some networks, by registry name.
    """

    name: str
    source: str
    use: str = ""
    epochs: float | str | None = None
    steps: int | None = None
    examples: int | None = None
    batch_size: int | str = 128
    accumulate: int = 1
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
    momentum_ramp: int | str = 0
    momentum_start: float = 0.5
    rate_factors: Mapping[str, float] = field(default_factory=dict)
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
    auxiliary_fade: bool = False
    precision: str = "float32"
    model_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    exceptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        """Check every field; raise `InputError` for a wrong value."""
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
                f"milestones={self.milestones} must be rising fractions of the run, between 0 and 1, or durations such as '30 epochs'."
            )
        if (self.momentum_ramp or self.rate_factors) and self.optimizer != "sgd":
            raise InputError(
                f"momentum_ramp and rate_factors are for optimizer='sgd', not {self.optimizer!r}; leave them out."
            )
        if self.relative_rate and self.optimizer != "muon":
            raise InputError(f"relative_rate=True is for optimizer='muon', not {self.optimizer!r}; leave it out.")
        if self.head_only and not self.head_epochs:
            raise InputError(
                "head_only=True needs head_epochs. Set e.g. head_epochs='auto', or use the recipe fine_tune."
            )

    def total_steps(self, steps_per_epoch: int, batch_size: int | None = None) -> int:
        """Return the length of the run in optimizer steps, at least 1.

        Args:
            steps_per_epoch: Optimizer steps per epoch.
            batch_size: Images per step. `None`: that of the recipe.
        """
        if self.steps is not None:
            return self.steps
        if self.examples is not None:
            return max(1, math.ceil(self.examples / (batch_size or self.images_per_step)))
        return max(1, round(self.number("epochs") * steps_per_epoch))

    @property
    def images_per_step(self) -> int:
        """Return `batch_size` as a number; raise `InputError` if it is `"auto"`."""
        return int(self.number("batch_size"))

    def number(self, name: str) -> float:
        """Return a field that may be `"auto"` as a number; raise `InputError` if it is `"auto"`."""
        value = getattr(self, name)
        if isinstance(value, str):
            raise InputError(
                f"{name}={value!r} needs the data. Call keras_deepnets.training.sizing.sized(recipe, images) to get a number."
            )
        return value

    def with_overrides(self, /, **overrides: Any) -> Recipe:
        """Return a copy with some fields changed.

        The new values apply to every network, including those in `exceptions`. Setting one of `epochs`, `steps` and
        `examples` replaces the others.

        Raises:
            InputError: A field is not one of `Recipe`, or its value has the wrong type or range.
        """
        known = [item.name for item in fields(self) if item.name not in (*OWN, "exceptions")]
        for name in overrides:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"A recipe has no field {name!r}.{hint} Its fields are: {', '.join(known)}.")
        if any(overrides.get(length) is not None for length in LENGTHS):
            overrides = dict.fromkeys(LENGTHS) | overrides
        if "learning_rate" in overrides:  # a rate from the caller is not scaled
            overrides = {"learning_rate_batch": None} | overrides
        # An override applies to every network, so it removes the exceptions.
        kept = {
            model: {name: value for name, value in values.items() if name not in overrides}
            for model, values in self.exceptions.items()
        }
        return replace(self, exceptions={model: values for model, values in kept.items() if values}, **overrides)

    def for_model(self, name: str | None) -> Recipe:
        """Return the recipe with the exceptions that the paper makes for the network `name`."""
        values = self.exceptions.get(name or "", {})
        return replace(self, exceptions={}).with_overrides(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self) | {"milestones": list(self.milestones)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Create a recipe from the result of `to_dict`; unknown or wrong values raise `InputError`."""
        own: dict[str, Any] = {"name": "custom", "source": ""} | {key: values[key] for key in OWN if key in values}
        base = cls(**own, epochs=1)
        exceptions = values.get("exceptions", {})
        rest = {key: value for key, value in values.items() if key not in (*OWN, "exceptions")}
        return replace(base.with_overrides(**rest), exceptions=exceptions)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return `value` in the type of the field, or raise `InputError`.

    Whole numbers are accepted as floats, strings of digits as numbers and lists as tuples.
    """
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
    if name in ("warmup", "momentum_ramp") and isinstance(value, str):
        return _duration(value)
    if name == "rate_factors" and isinstance(value, Mapping):
        return {_pattern(key): _checked(f"rate_factors[{key!r}]", number, float) for key, number in value.items()}
    if name in _MAPPINGS:
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
    """Convert a string to a number if possible: YAML reads `5e-4`, which has no decimal point, as a string."""
    try:
        return float(text)
    except ValueError:
        return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise InputError(f"rate_factors: {text!r} is not a regular expression ({error}).") from None
    return text


def _duration(text: str) -> str:
    durations.parse(text)
    return text


def _check_range(name: str, value: float) -> None:
    """Raise `InputError` unless the number is valid for the field."""
    if not 0 <= value < float("inf"):  # also refuses NaN
        raise InputError(f"{name}={value!r} must not be negative or infinite.")
    if value == 0 and name in POSITIVE:
        raise InputError(f"{name}={value!r} must be positive.")
    if name == "crop_fraction" and value > 1:
        raise InputError(f"{name}={value!r} must be at most 1; 0.875 keeps 224 of 256 pixels, 1 keeps all.")
    if name in BELOW_ONE and value >= 1:
        raise InputError(f"{name}={value!r} must be below 1.")


_UNION = type(int | None)
_MAPPINGS = {
    "exceptions": "{'resnet110': {'warmup': 1}}",
    "model_options": "{'dropout': 0.2}",
    "rate_factors": "{'conv.*kernel': 0.05}",
}
_PHRASES = {float: "a number", int: "a whole number", bool: "True or False", str: "a string"}
