"""Recipes of detectors: the schedule of a classifier's recipe, and the settings that only detectors have."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_deepnets.detection.data.detection_data import check_groups
from keras_deepnets.detection.sampling import Sampling
from keras_deepnets.errors import InputError
from keras_deepnets.training.recipe import Recipe

SHARED = (
    *("epochs", "steps", "examples", "batch_size", "accumulate", "learning_rate_batch"),
    *("optimizer", "learning_rate", "schedule", "milestones", "drop", "peak_at"),
    *("warmup", "warmup_learning_rate", "warmup_shape"),
    *("momentum", "nesterov", "weight_decay", "weight_decay_on", "rate_factors"),
    *("ema", "early_stopping", "keep", "precision", "batch_norm"),
)
"""Fields that have the meaning of a classifier's recipe. Accuracy is AP50 there."""

_POSITIVE = ("clip_norm", "validate_every", "anchors", "regions", "beta", "max_size")
_SHARES = ("anchor_high", "anchor_low", "anchor_share", "region_high", "region_low", "region_lowest", "region_share")


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe:
    """The settings of a training run of a detector.

    Attributes:
        base: Length, batch size, optimizer, schedule and precision. Only the fields in `SHARED` count.
        min_sizes: Lengths in pixels of the shorter side of a training image. One is drawn for each image. Empty: that of
            the network.
        max_size: Largest length of the longer side. `None`: that of the network.
        augmentation: Text of `detection.data.augmentation`, e.g. ``"flip"``.
        aspect_groups: Images of a batch have similar aspect ratios; see `DetectionData.batches`. `None`: any images.
        sampling: Anchors and regions that a step uses.
        clip_norm: Largest global norm of the gradients. `None`: no bound.
        freeze: Name of the last frozen layer of the backbone. ``"P2"`` freezes the stem and the first stage. `None`: no
            layer.
        validate_every: Epochs between two validations. The last epoch is always validated.
    """

    base: Recipe
    min_sizes: tuple[int, ...] = ()
    max_size: int | None = None
    augmentation: str | None = "flip"
    aspect_groups: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    clip_norm: float | None = None
    freeze: str | None = None
    validate_every: int = 1

    def __post_init__(self):
        """Check the own fields; raise `InputError` for a wrong value."""
        sizes = self.min_sizes
        sizes = (sizes,) if isinstance(sizes, int) and not isinstance(sizes, bool) else sizes
        if not isinstance(sizes, (tuple, list)) or not all(_is_count(size) for size in sizes):
            raise InputError(f"min_sizes={self.min_sizes!r} must be lengths in pixels, e.g. (640, 800).")
        object.__setattr__(self, "min_sizes", tuple(sizes))
        values: dict[str, Any] = {
            "clip_norm": self.clip_norm,
            "max_size": self.max_size,
            "validate_every": self.validate_every,
        }
        values |= {item.name: getattr(self.sampling, item.name) for item in dataclasses.fields(self.sampling)}
        for name, value in values.items():
            if name in _POSITIVE and value is not None and not (_is_number(value) and value > 0):
                raise InputError(f"{name}={value!r} must be a number above 0.")
            if name in _SHARES and not (value is not None and _is_number(value) and 0 <= value <= 1):
                raise InputError(f"{name}={value!r} must be a number in [0, 1].")
        if self.base.precision == "float64":
            raise InputError(
                "precision='float64' is for classifiers. Set float32, mixed_bfloat16, mixed_float16 or auto."
            )
        if self.base.batch_norm not in ("train", "synchronized"):
            raise InputError(f"batch_norm={self.base.batch_norm!r} must be 'train' or 'synchronized' for detectors.")
        for name in ("anchors", "regions", "validate_every"):
            if not _is_count(values[name]):
                raise InputError(f"{name}={values[name]!r} must be a whole number of at least 1.")
        if self.freeze is not None and not isinstance(self.freeze, str):
            raise InputError(f"freeze={self.freeze!r} must be the name of a layer, or P2 to P5.")
        check_groups(self.aspect_groups)
        if self.augmentation is not None:
            from keras_deepnets.detection.data import augmentation

            augmentation.get(self.augmentation)

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.base.name

    @property
    def source(self) -> str:
        """Paper and section that the numbers come from."""
        return self.base.source

    @property
    def use(self) -> str:
        """When to use the recipe, in one line."""
        return self.base.use

    @classmethod
    def fields(cls) -> list[str]:
        """The names of all settings."""
        own = [item.name for item in dataclasses.fields(cls) if item.name not in ("base", "sampling")]
        return [*SHARED, *own, *(item.name for item in dataclasses.fields(Sampling) if item.name != "seed")]

    def value(self, name: str) -> Any:
        """The value of a setting."""
        return getattr(next(part for part in (self, self.sampling, self.base) if hasattr(part, name)), name)

    def with_overrides(self, /, **overrides: Any) -> DetectionRecipe:
        """Return a copy with some settings changed.

        Raises:
            InputError: A name is not one of `fields`, or a value has the wrong type or range.
        """
        known = self.fields()
        for name in overrides:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"A recipe of a detector has no field {name!r}.{hint} Its fields are: {', '.join(known)}."
                )
        sampling = {item.name for item in dataclasses.fields(Sampling)}
        shared = {name: value for name, value in overrides.items() if name in SHARED}
        sampled = {name: value for name, value in overrides.items() if name in sampling}
        own = {name: value for name, value in overrides.items() if name not in shared and name not in sampled}
        return dataclasses.replace(
            self,
            base=self.base.with_overrides(**shared),
            sampling=dataclasses.replace(self.sampling, **sampled),
            **own,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        values = {name: self.value(name) for name in self.fields()}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"name": self.name, "source": self.source, "use": self.use} | values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DetectionRecipe:
        """Create a recipe from the result of `to_dict`; unknown or wrong values raise `InputError`."""
        own: dict[str, Any] = {name: values[name] for name in ("name", "source", "use") if name in values}
        base = Recipe(name=own.get("name", "custom"), source=own.get("source", ""), use=own.get("use", ""), epochs=1)
        return cls(base=base).with_overrides(**{name: value for name, value in values.items() if name not in own})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
