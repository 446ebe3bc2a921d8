"""Training recipes as data: a row holds the numbers of one paper, and says where they stand."""

from __future__ import annotations

import difflib
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from keras_deepnets.data import augmentation as augmentations
from keras_deepnets.errors import InputError
from keras_deepnets.training import durations

SCHEDULES = ("constant", "piecewise", "one_cycle", "cosine", "plateau", "exponential")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
_CHOICES = {
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
_SIZED = ("epochs", "head_epochs", "batch_size")
_LENGTHS = ("epochs", "steps", "examples")
_OWN = ("name", "source", "use")
"""What a recipe says of itself: no settings."""
_POSITIVE = (
    *_LENGTHS,
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
_BELOW_ONE = ("momentum", "label_smoothing", "ema", "peak_at", "drop")


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
            `"auto"`: frozen where a batch has fewer than 16 images.
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
        if sum(getattr(self, name) is not None for name in _LENGTHS) != 1:
            given = ", ".join(f"{name}={getattr(self, name)}" for name in _LENGTHS)
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
        known = [item.name for item in fields(self) if item.name not in (*_OWN, "exceptions")]
        for name in overrides:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"A recipe has no field {name!r}.{hint} Its fields are: {', '.join(known)}.")
        if any(overrides.get(length) is not None for length in _LENGTHS):
            overrides = dict.fromkeys(_LENGTHS) | overrides
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
        own = {"name": "custom", "source": ""} | {key: values[key] for key in _OWN if key in values}
        base = cls(**own, epochs=1)
        exceptions = values.get("exceptions", {})
        rest = {key: value for key, value in values.items() if key not in (*_OWN, "exceptions")}
        return replace(base.with_overrides(**rest), exceptions=exceptions)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """`value` in the field's type (whole numbers pass as floats, numbers written as text, lists as tuples), or `InputError`."""
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
        return tuple(_duration(at) if isinstance(at, str) else _checked("milestone", at, float) for at in value)
    if name == "warmup" and isinstance(value, str):
        return _duration(value)
    if name in ("exceptions", "model_options"):
        if not isinstance(value, Mapping):
            raise InputError(f"{name}={value!r} must map names to values, e.g. {_MAPPINGS[name]}.")
        return dict(value)
    if name in _SIZED and value == AUTO:
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
        auto = " or 'auto'" if name in _SIZED else ""
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
    if value == 0 and name in _POSITIVE:
        raise InputError(f"{name}={value!r} must be positive.")
    if name == "crop_fraction" and value > 1:
        raise InputError(f"{name}={value!r} must be at most 1; 0.875 keeps 224 of 256 pixels, 1 keeps all.")
    if name in _BELOW_ONE and value >= 1:
        raise InputError(f"{name}={value!r} must be below 1.")


_UNION = type(int | None)
_MAPPINGS = {"exceptions": "{'resnet110': {'warmup': 1}}", "model_options": "{'dropout': 0.2}"}
_PHRASES = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}

_SGD = {"schedule": "piecewise", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "weight_decay_on": "all"}
_NESTEROV = _SGD | {"nesterov": True}
_COLOURS = "random_resized_crop_flip+color_jitter(0.4)+lighting(0.1)"  # fb.resnet.torch, which these papers refer to
_IMAGENETTE = {
    "source": "the task of fast.ai's Imagenette leaderboard, 128 pixels; Muon: Jordan et al. 2024; the numbers are ours, measured "
    "(docs/training.md)",
    "batch_size": 64,
    "image_size": 128,
    "optimizer": "muon",
    "schedule": "one_cycle",
    "peak_at": 0.25,
    "momentum": 0.95,
    "weight_decay": 0.05,
    "weight_decay_on": "kernels",
    "label_smoothing": 0.1,
    "precision": "auto",
}
_RESNET_D = {"shortcut": "D", "deep_stem": [32, 32, 64], "zero_init_residual": True}
_1202_LAYERS = {
    "epochs": 300,
    "batch_size": 64,
    "warmup": "10 epochs",
    "warmup_learning_rate": 0.01,
    "warmup_shape": "constant",
}
_HUANG2017_CIFAR = _NESTEROV | {"epochs": 300, "batch_size": 64, "milestones": (0.5, 0.75)}
_WIGHTMAN2021 = {
    "batch_size": 2048,
    "crop_fraction": 0.95,
    "optimizer": "lamb",
    "loss": "binary_crossentropy",
    "schedule": "cosine",
    "warmup": "5 epochs",
    "weight_decay_on": "kernels",
    "precision": "auto",
}

_ROWS = (
    Recipe(
        name="fast",
        use="Your own images from scratch, or a first look at a network. The default without weights.",
        source="one-cycle: Smith & Topin 2017, Super-Convergence, section 3; label smoothing: Szegedy et al. 2015, section 7; "
        "averaged weights: Polyak & Juditsky 1992",
        epochs=AUTO,
        batch_size=AUTO,
        learning_rate=0.2,
        learning_rate_batch=128,
        schedule="one_cycle",
        peak_at=0.25,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        weight_decay_on="kernels",
        label_smoothing=0.1,
        augmentation="auto",
        ema=0.99,
        precision="auto",
    ),
    Recipe(
        name="fine_tune",
        use="Pretrained weights and your own images, from tens to tens of thousands. The default with weights.",
        source="classifier first, then all layers: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features, section 3; "
        "the numbers are ours, measured (docs/training.md)",
        epochs=AUTO,
        batch_size=AUTO,
        head_epochs=AUTO,
        optimizer="muon",
        learning_rate=4e-3,
        relative_rate=True,
        schedule="cosine",
        warmup="10 %",
        momentum=0.95,
        weight_decay=0.05,
        weight_decay_on="kernels",
        batch_norm="auto",
        keep="best",
        label_smoothing=0.1,
        augmentation="auto",
        precision="auto",
    ),
    Recipe(
        name="imagenette_5",
        use="Photographs from scratch in five epochs, at 128 pixels; Muon learns more from each image.",
        epochs=5,
        learning_rate=4e-3,
        augmentation="random_resized_crop_flip(0.35)",
        model_options=_RESNET_D,
        **_IMAGENETTE,
    ),
    Recipe(
        name="imagenette_20",
        use="Photographs from scratch in twenty epochs, at 128 pixels.",
        epochs=20,
        augmentation="random_resized_crop_flip(0.35)+color_jitter(0.3)+mixup(0.2)",
        learning_rate=6e-3,
        ema=0.99,
        model_options=_RESNET_D | {"antialias": "blur"},
        **_IMAGENETTE,
    ),
    Recipe(
        name="he2015_cifar",
        use="The ResNet paper's CIFAR-10 results: resnet20 to resnet110, plainnet20 to plainnet110.",
        source="He et al. 2015, Deep Residual Learning, section 4.2",
        steps=64_000,
        batch_size=128,
        milestones=(0.5, 0.75),  # 32k and 48k of 64k iterations
        augmentation="pad_crop_flip",
        # "we use 0.01 to warm up the training until the training error is below 80% (about 400 iterations)"
        exceptions={"resnet110": {"warmup": "400 steps", "warmup_learning_rate": 0.01, "warmup_shape": "constant"}},
        **_SGD,
    ),
    Recipe(
        name="he2015_imagenet",
        use="The ResNet paper's ImageNet results: resnet18 to resnet152, plainnet18 and plainnet34.",
        source="He et al. 2015, Deep Residual Learning, section 3.4; its standard colour augmentation: Krizhevsky et al. 2012, section 4.1",
        steps=600_000,
        batch_size=256,
        augmentation="scale_crop_flip(256, 480)+lighting(0.1)",
        **(_SGD | {"schedule": "plateau"}),
    ),
    Recipe(
        name="he2016_cifar",
        use="The pre-activation paper's CIFAR results: preactresnet110 to preactresnet1001.",
        source="He et al. 2016, Identity Mappings, appendix: implementation details",
        steps=64_000,
        batch_size=128,
        milestones=(0.5, 0.75),
        warmup="400 steps",
        warmup_learning_rate=0.01,
        warmup_shape="constant",
        augmentation="pad_crop_flip",
        **_SGD,
    ),
    Recipe(
        name="huang2016_stochastic_depth",
        use="The stochastic depth paper's CIFAR results: stochasticdepthresnet110 and stochasticdepthresnet1202.",
        source="Huang et al. 2016, Deep Networks with Stochastic Depth, section 4; Nesterov's momentum: the authors' code; the numbers "
        "of 1202 layers were not checked against the print",
        epochs=500,
        batch_size=128,
        milestones=(0.5, 0.75),  # epochs 250 and 375; of 1202 layers 150 and 225
        augmentation="pad_crop_flip",
        exceptions=dict.fromkeys(("stochasticdepthresnet1202", "resnet1202"), _1202_LAYERS),
        **_NESTEROV,
    ),
    Recipe(
        name="zagoruyko2016",
        use="The Wide ResNet paper's CIFAR results: wideresnet16_4 to wideresnet40_4.",
        source="Zagoruyko & Komodakis 2016, Wide Residual Networks, section 3",
        epochs=200,
        batch_size=128,
        milestones=(0.3, 0.6, 0.8),  # epochs 60, 120 and 160
        drop=0.2,
        augmentation="reflect_crop_flip",
        **(_NESTEROV | {"weight_decay": 5e-4}),
    ),
    Recipe(
        name="xie2016_cifar",
        use="The ResNeXt paper's CIFAR results: resnext29_8x64d and resnext29_16x64d.",
        source="Xie et al. 2016, Aggregated Residual Transformations, section 5.3; Nesterov's momentum: the authors' code",
        epochs=300,
        batch_size=128,
        milestones=(0.5, 0.75),  # epochs 150 and 225
        augmentation="pad_crop_flip",
        **(_NESTEROV | {"weight_decay": 5e-4}),
    ),
    Recipe(
        name="xie2016_imagenet",
        use="The ResNeXt paper's ImageNet results: resnext50_32x4d to resnext101_64x4d.",
        source="Xie et al. 2016, Aggregated Residual Transformations, section 4 (three drops, 30 epochs apart, of fb.resnet.torch); "
        "length and Nesterov's momentum: the authors' code",
        epochs=120,
        batch_size=256,
        milestones=("30 epochs", "60 epochs", "90 epochs"),
        augmentation=_COLOURS,
        **_NESTEROV,
    ),
    Recipe(
        name="huang2017_cifar",
        use="The DenseNet paper's CIFAR results with augmentation: densenet40_12 to densenetbc190_40.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (C10+, C100+)",
        augmentation="pad_crop_flip",
        **_HUANG2017_CIFAR,
    ),
    Recipe(
        name="huang2017_cifar_plain",
        use="The DenseNet paper's CIFAR results without augmentation, with dropout.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (C10, C100: no augmentation, dropout)",
        model_options={"dropout": 0.2},
        **_HUANG2017_CIFAR,
    ),
    Recipe(
        name="huang2017_svhn",
        use="The DenseNet paper's SVHN results, with dropout.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (SVHN; values divided by 255: section 4.1)",
        model_options={"dropout": 0.2},
        input_scaling="unit",
        **(_HUANG2017_CIFAR | {"epochs": 40}),
    ),
    Recipe(
        name="huang2017_imagenet",
        use="The DenseNet paper's ImageNet results: densenet121 to densenet264.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (ImageNet; DenseNet-161, too large for 256 images "
        "on the authors' GPUs, takes 128 and 100 epochs)",
        epochs=90,
        batch_size=256,
        milestones=("30 epochs", "60 epochs"),
        augmentation=_COLOURS,
        exceptions={
            "densenet161": {"epochs": 100, "batch_size": 128, "milestones": ("30 epochs", "60 epochs", "90 epochs")}
        },
        **_NESTEROV,
    ),
    Recipe(
        name="srivastava2015_mnist",
        use="The highway paper's MNIST results: highwaymlp10 to highwaymlp100 and their plain twins.",
        source="Srivastava et al. 2015, Training Very Deep Networks, section 3.1: momentum and an exponentially falling rate, found by "
        "random search and not printed; the numbers are ours",
        epochs=400,
        batch_size=128,
        learning_rate=0.01,
        schedule="exponential",
        drop=0.01,
        momentum=0.9,
    ),
    Recipe(
        name="srivastava2015_cifar",
        use="The highway paper's CIFAR-10 results: highway1 to highway4.",
        source="Srivastava et al. 2015, Training Very Deep Networks, section 3.3; the numbers: the authors' code (Caffe, 19 layers), "
        "whose biases learn twice as fast and whose last layer decays ten times as much, not here; it normalises the contrast of "
        "each image (section 3.3.2), this recipe each channel of all",
        steps=200_000,
        batch_size=100,
        learning_rate=0.025,
        schedule="piecewise",
        milestones=(0.5, 0.75, 0.875),  # 100k, 150k and 175k iterations
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        weight_decay_on="kernels",
        augmentation="pad_crop_flip(8)",
    ),
    Recipe(
        name="wightman2021_a1",
        use="The best accuracy on ImageNet with today's training methods, in 600 epochs.",
        source="Wightman et al. 2021, ResNet strikes back, Table 2 (A1)",
        epochs=600,
        learning_rate=5e-3,
        weight_decay=0.01,
        label_smoothing=0.1,
        augmentation="random_resized_crop_flip+rand_augment(magnitude=7,probability=0.5,deviation=0.5)+mixup(0.2)+cutmix(1.0)",
        repeated_augmentation=3,
        model_options={"stochastic_depth": 0.05},
        **_WIGHTMAN2021,
    ),
    Recipe(
        name="wightman2021_a2",
        use="Nearly the accuracy of wightman2021_a1 in half its epochs.",
        source="Wightman et al. 2021, ResNet strikes back, Table 2 (A2)",
        epochs=300,
        learning_rate=5e-3,
        weight_decay=0.02,
        augmentation="random_resized_crop_flip+rand_augment(magnitude=7,probability=0.5,deviation=0.5)+mixup(0.1)+cutmix(1.0)",
        repeated_augmentation=3,
        model_options={"stochastic_depth": 0.05},
        **_WIGHTMAN2021,
    ),
    Recipe(
        name="wightman2021_a3",
        use="A short training on ImageNet with today's methods: 100 epochs at 160 pixels.",
        source="Wightman et al. 2021, ResNet strikes back, Table 2 (A3); the paper measures on 224 pixels, a run here on the 160 of "
        "its training",
        epochs=100,
        learning_rate=8e-3,
        weight_decay=0.02,
        image_size=160,
        augmentation="random_resized_crop_flip+rand_augment(magnitude=6,probability=0.5,deviation=0.5)+mixup(0.1)+cutmix(1.0)",
        **_WIGHTMAN2021,
    ),
)
_RECIPES = {row.name: row for row in _ROWS}


def recipes() -> list[str]:
    """The names of the recipes."""
    return list(_RECIPES)


def get_recipe(name: str | os.PathLike | Recipe, /, **overrides: Any) -> Recipe:
    """The recipe called `name` (a `Recipe` passes through), or written in a YAML or JSON file, with some fields changed.

    A file holds fields of `Recipe`; with ``base: he2015_cifar`` the others are that recipe's.

    Raises:
        InputError: if there is no such recipe, file or field, or a value is wrong.
    """
    if not isinstance(name, Recipe):
        if str(name).endswith((".yaml", ".yml", ".json")):
            return read_recipe(name).with_overrides(**overrides)
        if name not in _RECIPES:
            near = difflib.get_close_matches(str(name), _RECIPES, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"There is no recipe {name!r}.{hint} Recipes are: {', '.join(_RECIPES)}; or give a .yaml file of its fields."
            )
        name = _RECIPES[name]
    return name.with_overrides(**overrides) if overrides else name


def read_recipe(path: str | os.PathLike) -> Recipe:
    """The recipe that a YAML or JSON file holds; see `get_recipe`."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read recipe {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"Recipe {path} must hold fields, e.g. 'base: fast' and 'learning_rate: 0.05', a line each.")
    base = values.pop("base", None)
    own = {"name": Path(path).stem, "source": str(path), "use": ""}
    own = {name: values.pop(name, usual) for name, usual in own.items()}
    try:
        if base is not None:
            return replace(get_recipe(base).with_overrides(**values), **own)
        if not any(values.get(length) for length in _LENGTHS):
            raise InputError(f"it has no length: give one of {', '.join(_LENGTHS)}, or a base, e.g. 'base: fast'.")
        return Recipe.from_dict(own | values)
    except InputError as error:
        raise InputError(f"Recipe {path}: {error}") from None
