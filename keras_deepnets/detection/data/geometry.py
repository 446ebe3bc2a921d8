"""Change an image and its boxes together: flip, crop, resize. TensorFlow operations on one sample.

A sample is a dictionary: ``image`` ``[h, w, 3]``, ``boxes`` float32 ``[n, 4]``, ``labels`` int64 ``[n]``, ``crowd`` and ``difficult``
bool ``[n]``, and ``factor`` float64. The size of the resized image is multiplied by the factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

Sample = dict[str, Any]

OBJECTS = ("boxes", "labels", "crowd", "difficult")
"""The keys of a sample that have one row per object."""

OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Least overlaps of a window with an object in SSD's random crop. 1.0 keeps the whole image."""

_TRIES = 40


def sides(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width, int32."""
    import tensorflow as tf

    shape = tf.shape(image)
    return shape[0], shape[1]


def flip(sample: Sample) -> Sample:
    """Mirror the image, and x of the boxes to width - x."""
    import tensorflow as tf

    width = tf.cast(sides(sample["image"])[1], tf.float32)
    x1, y1, x2, y2 = tf.unstack(sample["boxes"], axis=1)
    boxes = tf.stack([width - x2, y1, width - x1, y2], axis=1)
    # Several times as fast as a slice with a negative step.
    return sample | {"image": tf.reverse(sample["image"], [1]), "boxes": boxes}


def target_size(sample: Sample, min_size: Any, max_size: Any) -> tf.Tensor:
    """Height and width after `resize`, int32 ``[2]``.

    The shorter side becomes ``min_size``, unless the longer one would exceed ``max_size``; the sample's factor multiplies both. Sides are
    rounded down, in double precision as in torchvision. None: the image's own size.
    """
    import tensorflow as tf

    shape = tf.cast(tf.shape(sample["image"])[:2], tf.float64)
    scale = sample["factor"]
    limits = [(min_size, tf.reduce_min), (max_size, tf.reduce_max)]
    ratios = [tf.cast(limit, tf.float64) / side(shape) for limit, side in limits if limit is not None]
    if ratios:
        scale = scale * tf.reduce_min(tf.stack(ratios))
    return tf.maximum(tf.cast(tf.floor(shape * scale), tf.int32), 1)


def resize(sample: Sample, size: tf.Tensor) -> Sample:
    """Resize the image to float32 (bilinear, half-pixel centres, no antialiasing) and the boxes by the ratio of each axis.

    Args:
        sample: The sample.
        size: Height and width, int32 ``[2]``.
    """
    import tensorflow as tf

    ratios = tf.cast(size, tf.float32) / tf.cast(tf.shape(sample["image"])[:2], tf.float32)
    image = tf.image.resize(tf.cast(sample["image"], tf.float32), size, "bilinear", antialias=False)
    boxes = sample["boxes"] * tf.stack([ratios[1], ratios[0], ratios[1], ratios[0]])
    return sample | {"image": tf.ensure_shape(image, [None, None, 3]), "boxes": boxes}


def clipped(boxes: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """The part of each box inside a window, in pixels of the window.

    Args:
        boxes: float32 ``[n, 4]``.
        window: Top, left, height, width, int32 ``[4]``.
    """
    import tensorflow as tf

    top, left, height, width = tf.unstack(tf.cast(window, tf.float32))
    x = tf.clip_by_value(boxes[:, ::2] - left, 0.0, width)
    y = tf.clip_by_value(boxes[:, 1::2] - top, 0.0, height)
    return tf.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Area of each box."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def crop(sample: Sample, window: tf.Tensor, keep: tf.Tensor) -> Sample:
    """Cut a window out of the image. Boxes are clipped to it. Objects of which no area remains are dropped.

    Args:
        sample: The sample.
        window: Top, left, height, width, int32 ``[4]``.
        keep: bool ``[n]``: the objects to keep if any of their area remains.
    """
    import tensorflow as tf

    top, left, height, width = tf.unstack(window)
    boxes = clipped(sample["boxes"], window)
    keep = keep & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    objects = {key: tf.boolean_mask(sample[key], keep) for key in OBJECTS if key != "boxes"}
    image = sample["image"][top : top + height, left : left + width]
    return sample | {"image": image, "boxes": tf.boolean_mask(boxes, keep)} | objects


def random_window(image: tf.Tensor, draws: tf.Tensor, smallest: float) -> tf.Tensor:
    """A window whose sides are `smallest` to 1 of the image's, at a random place: top, left, height, width, int32 ``[4]``.

    Args:
        image: ``[h, w, c]``.
        draws: float32 ``[4]`` in [0, 1): height, width, vertical and horizontal place.
        smallest: Smallest share of each side.
    """
    import tensorflow as tf

    shape = tf.shape(image)[:2]
    shares = smallest + (1.0 - smallest) * draws[:2]
    size = tf.clip_by_value(tf.cast(tf.round(shares * tf.cast(shape, tf.float32)), tf.int32), 1, shape)
    return tf.concat([place(shape - size, draws[2:4]), size], 0)


def place(rest: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """A random corner from 0 to ``rest``, both included, int32 ``[2]``."""
    import tensorflow as tf

    return tf.minimum(tf.cast(tf.floor(draws * tf.cast(rest + 1, tf.float32)), tf.int32), rest)


def visible_crop(sample: Sample, draws: tf.Tensor, smallest: float, visible: float) -> Sample:
    """Crop at random. Objects of which less than the share ``visible`` remains are dropped.

    If an image has objects and would lose all of them, it stays whole.

    Args:
        sample: The sample.
        draws: float32 ``[4]`` in [0, 1).
        smallest: Smallest share of each side.
        visible: Least share of a kept object's area.
    """
    import tensorflow as tf

    window = random_window(sample["image"], draws, smallest)
    shares = area(clipped(sample["boxes"], window)) / area(sample["boxes"])
    keep = (shares >= visible) & (shares > 0)
    whole = tf.concat([[0, 0], tf.shape(sample["image"])[:2]], 0)
    useful = tf.reduce_any(keep) | (tf.size(keep) == 0)
    return crop(sample, tf.where(useful, window, whole), keep | ~useful)


def overlap_crop(sample: Sample, draws: tf.Tensor) -> Sample:
    """SSD's random crop: a window that overlaps an object by at least a random IoU of `OVERLAPS`.

    Of forty random windows with sides of 0.3 to 1 of the image's and an aspect ratio of 0.5 to 2 the first valid one is used. It must hold
    the centre of an object; objects whose centre is outside are dropped. If no window is valid, the image stays whole.

    Args:
        sample: The sample.
        draws: float32 ``[3]`` in [0, 1): the least overlap, and the seed of the windows.
    """
    import tensorflow as tf

    height, width = sides(sample["image"])
    seed = tf.cast(draws[1:3] * 2.0**24, tf.int32)
    windows, fits = _tries(height, width, tf.random.stateless_uniform([_TRIES, 4], seed, alg="philox"))
    least = tf.gather(tf.constant(OVERLAPS), tf.cast(draws[0] * len(OVERLAPS), tf.int32))
    inside = _centres_inside(sample["boxes"], windows)
    overlaps = tf.where(inside, _overlaps(windows, sample["boxes"]), 0.0)
    valid = fits & tf.reduce_any(inside, axis=1) & (tf.reduce_max(overlaps, axis=1) >= least)
    first = tf.argmax(tf.cast(valid, tf.int32), output_type=tf.int32)
    useful = (least < 1.0) & valid[first]
    whole = tf.stack([0, 0, height, width])
    return crop(sample, tf.where(useful, windows[first], whole), inside[first] | ~useful)


def _tries(height: tf.Tensor, width: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Random windows int32 ``[n, 4]``, and whether their aspect ratio is allowed."""
    import tensorflow as tf

    shape = tf.stack([height, width])
    size = tf.maximum(tf.cast((0.3 + 0.7 * draws[:, :2]) * tf.cast(shape, tf.float32), tf.int32), 1)
    ratio = tf.cast(size[:, 1], tf.float32) / tf.cast(size[:, 0], tf.float32)
    return tf.concat([place(shape - size, draws[:, 2:]), size], 1), (ratio >= 0.5) & (ratio <= 2.0)


def _centres_inside(boxes: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Whether the centre of each box is in each window, bool ``[windows, boxes]``."""
    import tensorflow as tf

    top, left, height, width = (part[:, None] for part in tf.unstack(tf.cast(windows, tf.float32), axis=1))
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x > left) & (x < left + width) & (y > top) & (y < top + height)


def _overlaps(windows: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """IoU of each window with each box, ``[windows, boxes]``."""
    import tensorflow as tf

    top, left, height, width = (part[:, None] for part in tf.unstack(tf.cast(windows, tf.float32), axis=1))
    shared_x = tf.nn.relu(tf.minimum(left + width, boxes[:, 2]) - tf.maximum(left, boxes[:, 0]))
    shared_y = tf.nn.relu(tf.minimum(top + height, boxes[:, 3]) - tf.maximum(top, boxes[:, 1]))
    shared = shared_x * shared_y
    return shared / (height * width + area(boxes) - shared)


def large_scale_jitter(sample: Sample, draws: tf.Tensor, low: float, high: float, size: int) -> Sample:
    """Scale the image to fit a square times a random factor, and crop it to the square at a random place if it is larger.

    The pipeline pads smaller images to the square at the right and bottom.

    Args:
        sample: The sample.
        draws: float32 ``[3]`` in [0, 1): factor, vertical and horizontal place.
        low: Smallest factor.
        high: Largest factor.
        size: Side of the square.
    """
    import tensorflow as tf

    factor = tf.cast(low + (high - low) * draws[0], tf.float64)
    scaled = resize(sample, target_size(sample | {"factor": factor}, None, size))
    shape = tf.shape(scaled["image"])[:2]
    part = tf.minimum(shape, size)
    window = tf.concat([place(shape - part, draws[1:3]), part], 0)
    return crop(scaled, window, tf.ones_like(sample["labels"], tf.bool))
