"""Augmentation of images with boxes, written like the classification policies: ``"flip+scale_jitter(0.8, 1.25)+colour_jitter(0.4)"``.

keras-cv's RandomFlip moves images and boxes right under Keras 3.15, as a test shows, and its results equal ours. Its layers are not used:
they draw from a generator with a state. So an image would depend on those before it, and a run could not resume.
"""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from keras_deepnets.detection.data import geometry
from keras_deepnets.detection.data.geometry import Sample
from keras_deepnets.errors import InputError


@dataclass(frozen=True)
class Policy:
    """An augmentation policy.

    Attributes:
        name: The text from which `get` makes the policy.
        draws: Number of uniform random numbers in [0, 1) per image.
        apply: Maps a sample (see `geometry`) and draws float32 ``[draws]`` to a sample.
        size: Side of the square to which the policy crops. The pipeline then pads to it and does not resize. None: it resizes.
        factor: Largest factor by which the policy multiplies the size of the resized image.
        crops: Whether the policy may change the aspect ratio of the image.
        source: Origin of the policy.
    """

    name: str
    draws: int = 0
    apply: Callable[[Sample, Any], Sample] = lambda sample, draws: sample
    size: int | None = None
    factor: float = 1.0
    crops: bool = False
    source: str = ""


def _flip(probability: float = 0.5) -> Policy:
    _check_share("flip", probability=probability)

    def apply(sample: Sample, draws: Any) -> Sample:
        import tensorflow as tf

        return tf.cond(draws[0] < probability, lambda: geometry.flip(sample), lambda: sample)

    return Policy("flip", 1, apply, source="Girshick 2015, Fast R-CNN, section 2.3")


def _scale_jitter(low: float = 0.8, high: float = 1.25) -> Policy:
    _check_range("scale_jitter", low, high)

    def apply(sample: Sample, draws: Any) -> Sample:
        import tensorflow as tf

        return sample | {"factor": sample["factor"] * tf.cast(low + (high - low) * draws[0], tf.float64)}

    return Policy(
        "scale_jitter", 1, apply, factor=high, source="Du et al. 2021, Simple training strategies, section 3.1"
    )


def _large_scale_jitter(low: float = 0.1, high: float = 2.0, size: float = 1024) -> Policy:
    _check_range("large_scale_jitter", low, high)
    if size != int(size) or size < 1:
        raise InputError(f"large_scale_jitter: size={size:g} must be a whole number of pixels.")
    side = int(size)
    return Policy(
        "large_scale_jitter",
        3,
        lambda sample, draws: geometry.large_scale_jitter(sample, draws, low, high, side),
        size=side,
        crops=True,
        source="Ghiasi et al. 2021, Simple Copy-Paste, section 3",
    )


def _crop(smallest: float = 0.5, visible: float = 0.25) -> Policy:
    _check_share("crop", smallest=smallest, visible=visible)
    return Policy(
        "crop",
        4,
        lambda sample, draws: geometry.visible_crop(sample, draws, smallest, visible),
        crops=True,
        source="sides of a random share; objects stay if enough of them is visible",
    )


def _iou_crop() -> Policy:
    return Policy("iou_crop", 3, geometry.overlap_crop, crops=True, source="Liu et al. 2016, SSD, section 2.2")


def _colour_jitter(strength: float = 0.4) -> Policy:
    def apply(sample: Sample, draws: Any) -> Sample:
        from keras_deepnets.data import colour

        return sample | {"image": colour.jitter(sample["image"][None], draws[None], strength)[0]}

    return Policy("colour_jitter", 4, apply, source="brightness, contrast and saturation, as for classification")


_POLICIES: dict[str, Callable[..., Policy]] = {
    "flip": _flip,
    "scale_jitter": _scale_jitter,
    "large_scale_jitter": _large_scale_jitter,
    "crop": _crop,
    "iou_crop": _iou_crop,
    "colour_jitter": _colour_jitter,
    "color_jitter": _colour_jitter,  # the name among the classification policies
}
_NONE = Policy("none")
_WRITTEN = re.compile(r"\s*(?P<name>[a-z0-9_]+)\s*(\((?P<arguments>.*)\))?\s*", re.DOTALL)


def policies() -> list[str]:
    """The names of the augmentation policies."""
    return list(_POLICIES)


def get(policy: str | Policy | None) -> Policy:
    """The policy of a text such as ``"flip+crop(0.6)"``. A `Policy` is returned unchanged; None and "none" mean no augmentation.

    Raises:
        InputError: A name is unknown, its numbers are invalid, or the policies cannot be combined.
    """
    if isinstance(policy, Policy):
        return policy
    if policy is None or policy == _NONE.name:
        return _NONE
    return joined([_part(text, str(policy)) for text in str(policy).split("+")])


def joined(parts: list[Policy]) -> Policy:
    """Combine policies into one that applies them in order.

    Raises:
        InputError: Two of them choose the size of the image.
    """
    sizing = [part.name for part in parts if part.size is not None or part.factor != 1]
    if len(sizing) > 1:
        raise InputError(f"augmentation: {' and '.join(sizing)} both choose the size of the image; use one of them.")

    def apply(sample: Sample, draws: Any) -> Sample:
        start = 0
        for part in parts:
            sample = part.apply(sample, draws[start : start + part.draws])
            start += part.draws
        return sample

    return Policy(
        "+".join(part.name for part in parts),
        sum(part.draws for part in parts),
        apply,
        next((part.size for part in parts if part.size is not None), None),
        math.prod(part.factor for part in parts),
        any(part.crops for part in parts),
        "; ".join(part.source for part in parts),
    )


def _part(text: str, whole: str) -> Policy:
    """One policy of a text."""
    match = _WRITTEN.fullmatch(text)
    if match is None or match["name"] not in _POLICIES:
        raise InputError(
            f"augmentation={whole!r} is unknown; choose None or one of {', '.join(_POLICIES)}, with numbers as in "
            "scale_jitter(0.8, 1.25), or several joined by +."
        )
    make = _POLICIES[match["name"]]
    parameters = inspect.signature(make).parameters.values()
    try:
        call = ast.parse(f"f({match['arguments'] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError  # such as 1)*(2
        named: dict[Any, Any] = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        bound = inspect.signature(make).bind(*map(ast.literal_eval, call.args), **named).arguments
    except (SyntaxError, ValueError, TypeError):
        known = ", ".join(f"{one.name}={one.default}" for one in parameters)
        raise InputError(f"augmentation={text.strip()!r}: write it as {match['name']}({known}).") from None
    for argument, value in bound.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InputError(f"augmentation={text.strip()!r}: {argument}={value!r} must be a non-negative number.")
    changed = ", ".join(f"{argument}={value:g}" for argument, value in bound.items())
    made = make(**bound)
    return replace(made, name=f"{made.name}({changed})") if changed else made


def _check_range(name: str, low: float, high: float) -> None:
    if not 0 < low <= high:
        raise InputError(f"{name}: low={low:g} must be above 0 and must not exceed high={high:g}.")


def _check_share(name: str, **values: float) -> None:
    for argument, value in values.items():
        if not 0 < value <= 1:
            raise InputError(f"{name}: {argument}={value:g} must be above 0 and at most 1.")
