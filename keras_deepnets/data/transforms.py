"""Turn images into a network's input at test time.

The functions work eagerly and inside `tf.function` with unknown shapes. The data pipelines, prediction and the exported graph share
them, so a served model gets the same input as in evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets.data.channels import convert_channels, to_dtype
from keras_deepnets.data.decoding import decode
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "INTERPOLATIONS",
    "check_view",
    "convert_channels",
    "decode",
    "evaluation_view",
    "resized_size",
    "ten_crops",
    "to_dtype",
    "whole_view",
]

# Names of `tf.image.resize` → kernels of the single op that resizes, antialiases and crops.
_KERNELS = {
    "bilinear": "triangle",
    "bicubic": "keyscubic",
    "lanczos3": "lanczos3",
    "lanczos5": "lanczos5",
    "gaussian": "gaussian",
    "mitchellcubic": "mitchellcubic",
}
_WITHIN = ("bilinear", "gaussian")
"""Methods with positive weights: no result is above the largest pixel or below the smallest, so no clipping is needed."""
_PLAIN = ("nearest", "area")
INTERPOLATIONS = (*_KERNELS, *_PLAIN)
"""The resizing methods, with their names in `tf.image.resize`."""


def check_view(height: int, width: int, channels: int | None, crop_fraction: float, interpolation: str) -> None:
    """Raise `InputError` if these values do not define an evaluation view."""
    if height < 1 or width < 1:
        raise InputError(f"image size {height}×{width}: height and width must be positive numbers of pixels.")
    if channels not in (None, 1, 3):
        raise InputError(f"channels={channels}: images have 1 (grey) or 3 (RGB) channels.")
    if not 0 < crop_fraction <= 1:
        raise InputError(f"crop_fraction={crop_fraction} is not in (0, 1]; 0.875 keeps 224 of 256 pixels, 1 keeps all.")
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"interpolation={interpolation!r} is unknown; choose one of {', '.join(INTERPOLATIONS)}.")


def evaluation_view(
    images: Any,
    height: int,
    width: int,
    channels: int | None = None,
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """The network's view of images at test time: resized to cover, then cropped at the centre.

    The image is resized, keeping its aspect ratio, until it just covers ``height / crop_fraction`` by ``width / crop_fraction``. For a
    square, the shorter side becomes ``size / crop_fraction``. Shrinking is antialiased. Then the central ``height`` by ``width`` pixels
    are kept. Sizes and offsets are rounded as in torchvision's Resize and CenterCrop. Images that are already ``height`` by ``width``
    stay unchanged for any ``crop_fraction``.

    Args:
        images: uint8 ``[h, w, c]`` or ``[b, h, w, c]``; h, w and c may be unknown to the graph.
        height: Rows of the result, pixels.
        width: Columns of the result, pixels.
        channels: 1 or 3. None keeps the images' channels.
        crop_fraction: Kept part of the resized image's shorter side, in (0, 1].
        interpolation: A method of `tf.image.resize`, one of `INTERPOLATIONS`.

    Returns:
        uint8 ``[height, width, channels]`` or ``[b, height, width, channels]``, rounded and clipped.

    Raises:
        InputError: A value is out of range, or the images have another rank.
    """
    import tensorflow as tf

    check_view(height, width, channels, crop_fraction, interpolation)
    images = tf.convert_to_tensor(images)
    if images.shape.rank not in (3, 4):
        raise InputError(f"evaluation_view: images of shape {images.shape}; give [h, w, c] or [batch, h, w, c].")
    if images.shape.rank == 3:
        return evaluation_view(images[None], height, width, channels, crop_fraction, interpolation)[0]
    if channels == 1:  # fewer channels to resize
        images = convert_channels(images, 1)
    if None in images.shape[1:3]:
        shape = tf.shape(images)
        images = tf.cond(
            (shape[1] == height) & (shape[2] == width),
            lambda: images,
            lambda: _resize_and_crop(images, height, width, crop_fraction, interpolation),
        )
    elif tuple(images.shape[1:3]) != (height, width):
        images = _resize_and_crop(images, height, width, crop_fraction, interpolation)
    images = tf.ensure_shape(images, [None, height, width, None])
    return images if channels is None else convert_channels(images, channels)


def ten_crops(
    images: Any,
    height: int,
    width: int,
    channels: int | None = None,
    crop_fraction: float = 1.0,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """The crops of a ten-crop test [Krizhevsky et al. 2012, section 4.1]: four corners, the centre, and their mirror images.

    The crops are taken from the whole image, resized as in `evaluation_view`. The fifth crop equals that view up to rounding. Images
    that are already ``height`` by ``width`` stay unchanged, and all their crops are equal except for the mirroring.

    Args:
        images: As in `evaluation_view`.
        height: Rows of a crop, pixels.
        width: Columns of a crop, pixels.
        channels: 1 or 3. None keeps the images' channels.
        crop_fraction: Kept part of the resized image's shorter side, in (0, 1].
        interpolation: A method of `tf.image.resize`, one of `INTERPOLATIONS`.

    Returns:
        uint8 ``[10, height, width, channels]`` or ``[b, 10, height, width, channels]``: top left, top right, bottom left,
        bottom right, centre; then these five mirrored.

    Raises:
        InputError: A value is out of range, or the images have another rank.
    """
    import tensorflow as tf

    check_view(height, width, channels, crop_fraction, interpolation)
    images = tf.convert_to_tensor(images)
    if images.shape.rank not in (3, 4):
        raise InputError(f"ten_crops: images of shape {images.shape}; give [h, w, c] or [batch, h, w, c].")
    if images.shape.rank == 3:
        return ten_crops(images[None], height, width, channels, crop_fraction, interpolation)[0]
    shape = tf.shape(images)
    fits = (shape[1] == height) & (shape[2] == width)
    new_height, new_width = resized_size(shape[1], shape[2], height, width, crop_fraction)
    new_height, new_width = tf.where(fits, height, new_height), tf.where(fits, width, new_width)
    images = _resize(images, new_height, new_width, channels, interpolation)
    centre = [tf.cast(offset, tf.int32) for offset in _centre(new_height, new_width, height, width)]
    bottom, right = new_height - height, new_width - width
    corners = ((0, 0), (0, right), (bottom, 0), (bottom, right), centre)
    crops = tf.stack([images[:, top : top + height, left : left + width] for top, left in corners], axis=1)
    crops = tf.concat([crops, tf.reverse(crops, [3])], axis=1)
    return tf.ensure_shape(crops, [None, 10, height, width, channels])


def whole_view(images: Any, side: int, channels: int | None = None, interpolation: str = "bilinear") -> tf.Tensor:
    """Resize images until the shorter side has ``side`` pixels, without cropping.

    Args:
        images: uint8 ``[h, w, c]`` or ``[b, h, w, c]``; h, w and c may be unknown to the graph.
        side: Shorter side of the result in pixels. The longer side keeps the aspect ratio, rounded down.
        channels: 1 or 3. None keeps the images' channels.
        interpolation: A method of `tf.image.resize`, one of `INTERPOLATIONS`. Shrinking is antialiased.

    Returns:
        uint8 of the same rank.

    Raises:
        InputError: A value is out of range, or the images have another rank.
    """
    import tensorflow as tf

    check_view(side, side, channels, 1.0, interpolation)
    images = tf.convert_to_tensor(images)
    if images.shape.rank not in (3, 4):
        raise InputError(f"whole_view: images of shape {images.shape}; give [h, w, c] or [batch, h, w, c].")
    if images.shape.rank == 3:
        return whole_view(images[None], side, channels, interpolation)[0]
    shape = tf.shape(images)
    return _resize(images, *resized_size(shape[1], shape[2], side, side), channels, interpolation)


def resized_size(
    old_height: Any, old_width: Any, height: int, width: int, crop_fraction: float = 1.0
) -> tuple[Any, Any]:
    """The height and width to which `evaluation_view` resizes an image before cropping, as int32 scalars."""
    import tensorflow as tf

    height, width = round(height / crop_fraction), round(width / crop_fraction)
    # Integer arithmetic gives the same size on every machine.
    return (
        tf.maximum(height, width * old_height // old_width),
        tf.maximum(width, height * old_width // old_height),
    )


def _centre(new_height, new_width, height: int, width: int) -> tuple:
    """The offsets of the central ``height`` by ``width`` pixels, as float32."""
    import tensorflow as tf

    return tuple(tf.round(tf.cast(rest, tf.float32) / 2) for rest in (new_height - height, new_width - width))


def _resize(images, height, width, channels: int | None, interpolation: str):
    """Resize the whole of ``[b, h, w, c]`` and keep its dtype."""
    import tensorflow as tf

    if channels == 1:  # fewer channels to resize
        images = convert_channels(images, 1)
    shape = tf.shape(images)

    # Not every kernel leaves an image of the right size unchanged.
    images = tf.cond(
        (shape[1] == height) & (shape[2] == width),
        lambda: images,
        lambda: stretched(images, height, width, interpolation),
    )
    return images if channels is None else convert_channels(images, channels)


def _resize_and_crop(images, height: int, width: int, crop_fraction: float, interpolation: str):
    """Resize ``[b, h, w, c]`` to cover and crop the centre, in one pass over the kept pixels."""
    import tensorflow as tf

    shape = tf.shape(images)
    old_height, old_width = shape[1], shape[2]
    new_height, new_width = resized_size(old_height, old_width, height, width, crop_fraction)
    top, left = _centre(new_height, new_width, height, width)
    if interpolation in _PLAIN:
        top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
        rows = _Kept(old_height, new_height, top, height)
        columns = _Kept(old_width, new_width, left, width)
        if interpolation == "nearest":
            return _at(images, rows.nearest(), columns.nearest())
        area = tf.cond(
            (old_height <= new_height) & (old_width <= new_width),
            lambda: _enlarged_by_area(images, rows, columns),
            lambda: tf.image.resize(images, [new_height, new_width], method="area")[
                :, top : top + height, left : left + width
            ],
        )
        return to_dtype(area, images.dtype)
    scales = [tf.cast(new_height / old_height, tf.float32), tf.cast(new_width / old_width, tf.float32)]
    return resampled(images, (height, width), scales, (-top, -left), interpolation)


def stretched(images: tf.Tensor, height: Any, width: Any, interpolation: str) -> tf.Tensor:
    """Resize ``[b, h, w, c]`` without keeping the aspect ratio, antialiased when shrinking. The dtype stays."""
    import tensorflow as tf

    if interpolation in _PLAIN:
        return to_dtype(tf.image.resize(images, [height, width], method=interpolation), images.dtype)
    shape = tf.shape(images)
    scales = [tf.cast(height / shape[1], tf.float32), tf.cast(width / shape[2], tf.float32)]
    return resampled(images, (height, width), scales, (0.0, 0.0), interpolation)


def resampled(
    images: tf.Tensor, size: tuple[Any, Any], scales: Sequence[Any], offsets: tuple[Any, Any], interpolation: str
) -> tf.Tensor:
    """Resize and cut images by a convolution kernel, antialiased when shrinking.

    The result is that of one ``ScaleAndTranslate``, bit for bit, in about a third of the time. That op adds pixels of three numbers one by
    one. Here it sees whole rows as the pixels of an image with a single row, and then the rows of the transposed image. With a single
    row, it does not divide its work among threads either. Each image has its own thread already.

    Args:
        images: ``[b, h, w, c]``.
        size: Height and width of the result.
        scales: New size by old size of the whole image, vertical and horizontal, float32 scalars.
        offsets: Rows and columns, in pixels of the result, by which the resized image is moved down and right.
        interpolation: A key of `_KERNELS`.

    Returns:
        ``[b, height, width, c]`` in the dtype of the images, rounded and clipped.
    """
    import tensorflow as tf

    (height, width), shape = size, tf.shape(images)
    batch, old_height, old_width = shape[0], shape[1], shape[2]
    channels = shape[3] if images.shape[3] is None else images.shape[3]

    def rows(values: tf.Tensor, count: Any, axis: int) -> tf.Tensor:
        return tf.raw_ops.ScaleAndTranslate(
            images=values,
            size=tf.stack([1, count]),
            scale=tf.stack([1.0, scales[axis]]),
            translation=tf.stack([0.0, offsets[axis]]),
            kernel_type=_KERNELS[interpolation],
            antialias=True,
        )

    def transposed(values: tf.Tensor) -> tf.Tensor:
        # As integers: oneDNN transposes floats, and prepares its code again for every new size.
        return tf.bitcast(tf.transpose(tf.bitcast(values, tf.int32), [0, 2, 1]), tf.float32)

    values = rows(tf.reshape(images, [batch, 1, old_height, old_width * channels]), height, 0)
    values = transposed(tf.reshape(values, [batch, height, old_width * channels]))
    values = rows(tf.reshape(values, [batch, 1, old_width, channels * height]), width, 1)
    values = transposed(tf.reshape(values, [batch, width * channels, height]))
    values = tf.reshape(values, [batch, height, width, channels])
    if images.dtype == tf.uint8 and interpolation in _WITHIN:
        return tf.cast(tf.round(values), tf.uint8)
    return to_dtype(values, images.dtype)


@dataclass(frozen=True)
class _Kept:
    """The kept part of an axis that is resized from ``old`` to ``new`` pixels: ``count`` pixels from ``first`` on.

    A thin image can grow to thousands of times the kept pixels. So the part is selected before anything is resized.
    """

    old: Any
    new: Any
    first: Any
    count: int

    def nearest(self):
        """The source pixels of the kept pixels for nearest-neighbour resizing, int32 ``[count]``, in the kernel's own arithmetic."""
        import tensorflow as tf

        scale = tf.cast(self.old, tf.float32) / tf.cast(self.new, tf.float32)
        places = (tf.cast(self.first + tf.range(self.count), tf.float32) + 0.5) * scale
        return tf.minimum(tf.cast(places, tf.int32), self.old - 1)

    def covered(self):
        """For ``old <= new``: the source pixels that the kept pixels cover, int32 ``[count + 2]``, and the covered shares.

        The shares are float32 ``[count, count + 2]``. Their sum over the last axis is 1.
        """
        import tensorflow as tf

        # Far along a thin image, single precision cannot resolve where a pixel of a hundredth of the old size begins.
        scale = tf.cast(self.old, tf.float64) / tf.cast(self.new, tf.float64)
        starts = tf.cast(self.first + tf.range(self.count), tf.float64)[:, tf.newaxis] * scale
        pixels = tf.cast(starts[0, 0], tf.int32) + tf.range(self.count + 2)
        edges = tf.cast(pixels, tf.float64)
        shares = tf.nn.relu(tf.minimum(starts + scale, edges + 1) - tf.maximum(starts, edges)) / scale
        return tf.minimum(pixels, self.old - 1), tf.cast(shares, tf.float32)


def _at(images, rows, columns):
    import tensorflow as tf

    return tf.gather(tf.gather(images, rows, axis=1), columns, axis=2)


def _enlarged_by_area(images, rows: _Kept, columns: _Kept):
    """Enlarge the kept part of ``[b, h, w, c]``. Each pixel is the mean of the area that it covers; float32."""
    import tensorflow as tf

    (rows, of_rows), (columns, of_columns) = rows.covered(), columns.covered()
    part = tf.cast(_at(images, rows, columns), tf.float32)
    return tf.einsum("yi,bijc,xj->byxc", of_rows, part, of_columns)
