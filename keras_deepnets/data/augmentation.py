"""Augmentation policies for training images, looked up by name and joined by ``+``.

A policy is a pure function of the image and of a few uniform random numbers. The pipeline draws these numbers from (seed, epoch).
The same numbers give the same image on any machine and in any order of execution.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Policy:
    """An augmentation policy.

    Attributes:
        name: The name under which `get` finds the policy.
        draws: Number of uniform random numbers in [0, 1) per image.
        window: Maps height, width (int32 scalars) and draws (float32 ``[draws]``) to a window of the original image: top, left,
            height, width. The pipeline resizes this window to the network's input size. None: the evaluation view of the whole image.
        image: Maps one such image, uint8 ``[h, w, c]`` of the network's input size, and its draws to an image of the same shape and
            dtype. Only for policies with a window. None: no change.
        batch: Maps images uint8 ``[b, h, w, c]`` and draws float32 ``[b, draws]`` to images of the same shape and dtype. The images
            already have the network's input size. None: no change.
        mix: Maps such images, targets float32 ``[b, classes]`` and draws to mixed images and targets. None: no mixing.
        of_mean: For a policy that depends on the data's mean: maps the mean of each channel of the training images (0–255) to the
            policy. None: the policy does not depend on it.
        source: Origin of the policy.
        one_by_one: Whether `batch` treats each image by itself and is faster on batches of one. Behind a policy with a window, it is
            then applied to each image before the batch is made.
    """

    name: str
    draws: int = 0
    window: Callable[[Any, Any, Any], tuple[Any, Any, Any, Any]] | None = None
    image: Callable[[Any, Any], Any] | None = None
    batch: Callable[[Any, Any], Any] | None = None
    mix: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None
    of_mean: Callable[[Sequence[float]], Policy] | None = None
    source: str = ""
    one_by_one: bool = False

    def __post_init__(self) -> None:
        """Check that a function of single images comes with a window."""
        if self.image is not None and self.window is None:
            raise InputError(
                f"Policy {self.name!r} has `image` but no `window`; give its function of whole batches as `batch`."
            )


def crop_and_flip(
    images: tf.Tensor,
    draws: tf.Tensor,
    padding: int = 4,
    flip: bool = True,
    mode: str = "CONSTANT",
    fill: float | Sequence[float] = 0,
) -> tf.Tensor:
    """Pad the images, crop them at random to the original size, and mirror half of them.

    Args:
        images: ``[b, h, w, c]``.
        draws: float32 ``[b, 3]`` in [0, 1): vertical offset, horizontal offset, mirroring.
        padding: Pixels on each side.
        flip: Whether to mirror.
        mode: Padding mode, as in `tf.pad`: ``"CONSTANT"`` (`fill`) or ``"REFLECT"``.
        fill: Padding value: one number, or one per channel. Rounded if the images are integers.
    """
    import tensorflow as tf

    from keras_deepnets.data.channels import to_dtype

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    offsets = tf.cast(draws[:, :2] * (2 * padding + 1), tf.int32)
    rows = offsets[:, :1] + tf.range(height)
    columns = tf.range(width)
    if flip:
        columns = tf.where(draws[:, 2:3] < 0.5, columns, width - 1 - columns)
    columns = offsets[:, 1:2] + columns
    # tf.pad accepts a single number. So subtract the fill, pad with zeros and add the fill again; uint8 wraps around and back.
    fill = to_dtype(tf.constant(fill, tf.float32), images.dtype)
    padded = tf.pad(images - fill, [[0, 0], [padding, padding], [padding, padding], [0, 0]], mode)
    cropped = tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
    return tf.ensure_shape(cropped + fill, images.shape)


def flip(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Mirror an image ``[h, w, c]`` if its last draw is at least one half."""
    import tensorflow as tf

    # This op has fast code for three channels, and returns the image itself if nothing is to be reversed. Mirroring in batches by
    # `tf.where` takes 25 times as long.
    mirrored = tf.raw_ops.Reverse(tensor=image, dims=tf.stack([False, draws[-1] >= 0.5, False]))
    return tf.ensure_shape(mirrored, image.shape)


def shift_and_rotate(images: tf.Tensor, draws: tf.Tensor, pixels: float = 2, degrees: float = 10) -> tf.Tensor:
    """Shift images by up to ``pixels`` and rotate them by up to ``degrees`` around the centre; new pixels are black.

    Args:
        images: ``[b, h, w, c]``.
        draws: float32 ``[b, 3]`` in [0, 1): vertical shift, horizontal shift, angle.
        pixels: Largest shift.
        degrees: Largest angle.
    """
    import tensorflow as tf

    from keras_deepnets.data.channels import to_dtype

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    spread = 2 * draws - 1
    down, right, angle = pixels * spread[:, 0], pixels * spread[:, 1], math.radians(degrees) * spread[:, 2]
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle_y, middle_x = tf.cast(height - 1, tf.float32) / 2, tf.cast(width - 1, tf.float32) / 2
    # The op maps output coordinates to input coordinates: rotate about the centre, then add the shift.
    shift_x = middle_x - cosine * middle_x + sine * middle_y + right
    shift_y = middle_y - sine * middle_x - cosine * middle_y + down
    zeros = tf.zeros_like(angle)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack([cosine, -sine, shift_x, sine, cosine, shift_y, zeros, zeros], axis=1),
        output_shape=tf.stack([height, width]),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    return tf.ensure_shape(to_dtype(moved, images.dtype), images.shape)


def random_resized_window(
    height: Any, width: Any, draws: Any, tries: int = 10, area: float = 0.08
) -> tuple[Any, Any, Any, Any]:
    """A random window of `area` (8 %) to 100 % of the image area, with an aspect ratio from 3:4 to 4:3 (log-uniform).

    This is the scheme of Inception's training and of torchvision's RandomResizedCrop. The first of ten random windows that fits is
    used. If none fits, the window is the central one whose aspect ratio is the nearest allowed.

    Args:
        height: Height of the image, int32 scalar.
        width: Width of the image, int32 scalar.
        draws: float32 ``[2]`` or more in [0, 1).
        tries: Number of windows to try.
        area: Smallest window area as a fraction of the image area.

    Returns:
        top, left, height, width as int32 scalars.
    """
    import tensorflow as tf

    seed = tf.cast(draws[:2] * 2.0**24, tf.int32)
    numbers = tf.random.stateless_uniform([tries, 4], seed, alg="philox")
    size = tf.cast(tf.stack([height, width]), tf.float32)
    areas = size[0] * size[1] * (area + (1.0 - area) * numbers[:, 0])
    ratio = tf.exp(math.log(4 / 3) * (2 * numbers[:, 1] - 1))
    windows = tf.round(tf.sqrt(tf.stack([areas / ratio, areas * ratio], axis=1)))
    fits = tf.reduce_all((windows >= 1) & (windows <= size), axis=1)
    first = tf.argmax(fits, output_type=tf.int32)
    fallback = tf.stack(
        [tf.minimum(size[0], tf.round(size[1] * 4 / 3)), tf.minimum(size[1], tf.round(size[0] * 4 / 3))]
    )
    any_fits = fits[first]
    window = tf.where(any_fits, windows[first], fallback)
    places = tf.where(any_fits, numbers[first, 2:], 0.5)
    corner = tf.cast(tf.floor(places * (size - window + tf.cast(any_fits, tf.float32))), tf.int32)
    window = tf.cast(window, tf.int32)
    return corner[0], corner[1], window[0], window[1]


def scaled_window(
    height: Any, width: Any, draws: Any, low: float = 256, high: float = 480, size: float = 224
) -> tuple[Any, Any, Any, Any]:
    """A random square window that matches a ``size`` crop after the shorter side is resized to ``low`` to ``high`` pixels.

    He et al. 2015 resize the image until its shorter side is a random whole number of pixels, uniform from ``low`` to ``high``. They
    then crop a random square of ``size`` pixels. Here the same square is cropped before the resizing, which decodes and resizes fewer
    pixels.

    Args:
        height: Height of the image, int32 scalar.
        width: Width of the image, int32 scalar.
        draws: float32 ``[3]`` or more in [0, 1): shorter side, vertical position, horizontal position.
        low: Fewest pixels of the shorter side.
        high: Most pixels of the shorter side.
        size: Side of the square at that scale.

    Returns:
        top, left, height, width as int32 scalars.
    """
    import tensorflow as tf

    shorter = low + tf.floor(draws[0] * (high - low + 1))
    side = tf.round(size / shorter * tf.cast(tf.minimum(height, width), tf.float32))
    side = tf.maximum(tf.cast(side, tf.int32), 1)
    rest = tf.stack([height, width]) - side
    corner = tf.cast(tf.floor(draws[1:3] * tf.cast(rest + 1, tf.float32)), tf.int32)
    return corner[0], corner[1], side, side


def _pad_crop_flip(padding: int = 4, fill: float | str = "mean") -> Policy:
    """Pad with `fill`: a value from 0 to 255, or the mean of the images, which normalisation maps to zero."""

    def filled(colour: float | Sequence[float]) -> Policy:
        def batch(images: Any, draws: Any) -> Any:
            own = colour
            # Grey images converted to RGB, and RGB images converted to grey, use the mean over the channels.
            if not isinstance(colour, (int, float)) and len(colour) != images.shape[-1]:
                own = sum(colour) / len(colour)
            return crop_and_flip(images, draws, padding, fill=own)

        return Policy("pad_crop_flip", 3, batch=batch, source=source)

    source = "CIFAR: He et al. 2015, section 4.2; padded after normalisation, so with the mean: fb.resnet.torch"
    if fill == "mean":
        return replace(filled(0.0), of_mean=filled)
    if isinstance(fill, str) or fill > 255:
        raise InputError(f"pad_crop_flip: fill={fill!r} must be 'mean' or a number from 0 to 255.")
    return filled(float(fill))


def _reflect_crop_flip(padding: int = 4) -> Policy:
    return Policy(
        "reflect_crop_flip",
        3,
        batch=lambda images, draws: crop_and_flip(images, draws, padding, mode="REFLECT"),
        source="CIFAR: Zagoruyko & Komodakis 2016, section 3",
    )


def _shift(pixels: float = 2, degrees: float = 10) -> Policy:
    return Policy(
        "shift",
        3,
        batch=lambda images, draws: shift_and_rotate(images, draws, pixels, degrees),
        source="digits: no mirroring, small moves and turns",
    )


def _random_resized_crop_flip(area: float = 0.08) -> Policy:
    if not 0 < area <= 1:
        raise InputError(
            f"random_resized_crop_flip: area={area:g} must be a share of the image, above 0 and at most 1."
        )
    return Policy(
        "random_resized_crop_flip",
        3,
        window=functools.partial(random_resized_window, area=area),
        image=flip,
        source="ImageNet: Szegedy et al. 2014, section 6; the scheme of fb.resnet.torch and torchvision",
    )


def _scale_crop_flip(low: float = 256, high: float = 480, size: float = 224) -> Policy:
    if not 0 < size <= low <= high:
        raise InputError(
            f"scale_crop_flip: low={low:g} must not exceed high={high:g}, and size={size:g} must not exceed low."
        )
    return Policy(
        "scale_crop_flip",
        4,
        window=lambda height, width, draws: scaled_window(height, width, draws, low, high, size),
        image=flip,
        source="ImageNet: Simonyan & Zisserman 2014, section 3.1 (multi-scale); He et al. 2015, section 3.4",
    )


def _color_jitter(strength: float = 0.4) -> Policy:
    from keras_deepnets.data import colour

    return Policy(
        "color_jitter",
        colour.JITTER_DRAWS,
        batch=lambda images, draws: colour.jitter(images, draws, strength),
        source="brightness, contrast and saturation in random order: fb.resnet.torch; Howard 2013, section 2",
        one_by_one=True,
    )


def _lighting(deviation: float = 0.1) -> Policy:
    from keras_deepnets.data import colour

    return Policy(
        "lighting",
        2,
        batch=lambda images, draws: colour.lighting(images, draws, deviation),
        source="shifts along the principal components of ImageNet's colours: Krizhevsky et al. 2012, section 4.1",
    )


def _rand_augment(
    magnitude: float = 9, operations: int = 2, probability: float = 1.0, deviation: float = 0.0
) -> Policy:
    from keras_deepnets.data import rand_augment

    rand_augment.check(magnitude, operations, probability)
    return Policy(
        "rand_augment",
        2,
        batch=lambda images, draws: rand_augment.batch(images, draws, magnitude, operations, probability, deviation),
        source="Cubuk et al. 2019, RandAugment",
    )


def _random_erasing(probability: float = 0.25) -> Policy:
    from keras_deepnets.data import mixing

    return Policy(
        "random_erasing",
        mixing.ERASING_DRAWS,
        batch=lambda images, draws: mixing.erase(images, draws, probability),
        source="Zhong et al. 2017, Random Erasing",
    )


def _mixup(alpha: float = 0.2) -> Policy:
    from keras_deepnets.data import mixing

    return Policy(
        "mixup",
        2,
        mix=lambda images, targets, draws: mixing.mixup(images, targets, draws, alpha),
        source="Zhang et al. 2017, mixup",
    )


def _cutmix(alpha: float = 1.0) -> Policy:
    from keras_deepnets.data import mixing

    return Policy(
        "cutmix",
        2,
        mix=lambda images, targets, draws: mixing.cutmix(images, targets, draws, alpha),
        source="Yun et al. 2019, CutMix",
    )


_POLICIES: dict[str, Callable[..., Policy]] = {
    "pad_crop_flip": _pad_crop_flip,
    "reflect_crop_flip": _reflect_crop_flip,
    "shift": _shift,
    "random_resized_crop_flip": _random_resized_crop_flip,
    "scale_crop_flip": _scale_crop_flip,
    "color_jitter": _color_jitter,
    "lighting": _lighting,
    "rand_augment": _rand_augment,
    "random_erasing": _random_erasing,
    "mixup": _mixup,
    "cutmix": _cutmix,
}
_NONE = Policy("none")
_WRITTEN = re.compile(r"\s*(?P<name>[a-z0-9_]+)\s*(\((?P<arguments>.*)\))?\s*", re.DOTALL)


def policies() -> list[str]:
    """The names of the augmentation policies."""
    return list(_POLICIES)


def register(policy: Policy) -> Policy:
    """Add a policy under its name; raise `InputError` if the name is taken."""
    if policy.name in _POLICIES or policy.name == _NONE.name:
        raise InputError(f"augmentation policy {policy.name!r} is already registered; give it another name.")
    if not re.fullmatch(r"[a-z0-9_]+", policy.name):
        raise InputError(f"augmentation policy {policy.name!r}: a name consists of a-z, 0-9 and _.")
    _POLICIES[policy.name] = lambda: policy
    return policy


def get(policy: str | Policy | None) -> Policy:
    """The policy with a given name. A `Policy` is returned unchanged; None and "none" mean no augmentation.

    A name may carry numbers: ``"mixup(0.1)"`` or ``"rand_augment(magnitude=7)"``. Policies joined by ``+`` are applied in order:
    ``"random_resized_crop_flip+rand_augment(7)+mixup(0.1)+cutmix(1.0)"``. If several policies mix images (mixup, cutmix), one of them
    is chosen at random for each batch.

    Raises:
        InputError: The name is unknown, its numbers are invalid, or the policies cannot be combined.
    """
    if isinstance(policy, Policy):
        return policy
    if policy is None or policy == _NONE.name:
        return _NONE
    return joined([_part(text, policy) for text in str(policy).split("+")])


def _part(text: str, whole: str) -> Policy:
    match = _WRITTEN.fullmatch(text)
    if match is None or match["name"] not in _POLICIES:
        raise InputError(
            f"augment={whole!r} is unknown; choose None or one of {', '.join(_POLICIES)}, with numbers as in mixup(0.2), "
            "or several joined by +."
        )
    name = match["name"]
    make = _POLICIES[name]
    try:
        call = ast.parse(f"f({match['arguments'] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError  # such as 1)*(2
        values = [ast.literal_eval(value) for value in call.args]
        named: dict[Any, Any] = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        bound = inspect.signature(make).bind(*values, **named).arguments
    except (SyntaxError, ValueError, TypeError):
        known = ", ".join(f"{one.name}={one.default}" for one in inspect.signature(make).parameters.values())
        raise InputError(f"augment={text.strip()!r}: write it as {name}({known}).") from None
    for argument, value in bound.items():
        if isinstance(value, str) and isinstance(inspect.signature(make).parameters[argument].default, str):
            continue  # the policy checks its own strings
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise InputError(f"augment={text.strip()!r}: {argument}={value!r} must be a non-negative number.")
    made = make(**bound)
    changed = ", ".join(
        f"{argument}={value!r}" if isinstance(value, str) else f"{argument}={value:g}"
        for argument, value in bound.items()
    )
    return replace(made, name=f"{name}({changed})") if changed else made


def joined(parts: Sequence[Policy]) -> Policy:
    """Combine policies into one that applies them in order.

    Raises:
        InputError: A policy that chooses a window is not the first.
    """
    if len(parts) == 1:
        return parts[0]
    for part in parts[1:]:
        if part.window is not None:
            raise InputError(f"augment: {part.name} cuts a window out of the original image and must come first.")
    ends = list(itertools.accumulate(part.draws for part in parts))
    places = [slice(end - part.draws, end) for part, end in zip(parts, ends, strict=True)]
    first, cut = parts[0], parts[0].window
    # How many of the next parts work on single images. There are none if the first part has to change whole batches before them.
    alone = 0 if cut is None or first.batch else len(list(itertools.takewhile(lambda part: part.one_by_one, parts[1:])))
    single = [(first.image, places[0])] if first.image else []
    single += [
        (_of_one(part.batch), place)
        for part, place in zip(parts[1 : 1 + alone], places[1:], strict=False)
        if part.batch
    ]
    later = [0, *range(1 + alone, len(parts))]
    varied = [(vary, places[at]) for at in later if (vary := parts[at].batch)]
    mixed = [(part.mix, place) for part, place in zip(parts, places, strict=True) if part.mix]

    def image(image: Any, draws: Any) -> Any:
        for vary, place in single:
            image = vary(image, draws[place])
        return image

    def batch(images: Any, draws: Any) -> Any:
        for vary, place in varied:
            images = vary(images, draws[:, place])
        return images

    def mix(images: Any, targets: Any, draws: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        chosen = tf.cast(draws[0, -1] * len(mixed), tf.int32)
        branches = [lambda each=each, place=place: each(images, targets, draws[:, place]) for each, place in mixed]
        return tf.switch_case(chosen, branches)

    def of_mean(mean: Sequence[float]) -> Policy:
        return joined([part.of_mean(mean) if part.of_mean else part for part in parts])

    window = cut and (lambda height, width, draws: cut(height, width, draws[: first.draws]))
    return Policy(
        "+".join(part.name for part in parts),
        ends[-1] + (len(mixed) > 1),
        window,
        image if single else None,
        batch if varied else None,
        (mix if len(mixed) > 1 else lambda images, targets, draws: mixed[0][0](images, targets, draws[:, mixed[0][1]]))
        if mixed
        else None,
        of_mean if any(part.of_mean for part in parts) else None,
        "; ".join(part.source for part in parts if part.source),
    )


def _of_one(batch: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A function of batches as one of a single image."""
    return lambda image, draws: batch(image[None], draws[None])[0]
