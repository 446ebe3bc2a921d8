"""The first convolutions of ImageNet networks."""

from __future__ import annotations

from typing import Any

from keras_deepnets.layers.convolution import conv2d
from keras_deepnets.layers.normalization import norm_activation


def stem_convolutions(
    x: Any,
    filters: int,
    deep_stem: tuple[int, ...] | None,
    *,
    sequence: tuple[str, ...] = ("bn", "relu"),
    padding: str = "symmetric",
    use_bias: bool = False,
) -> Any:
    """A 7×7 convolution with stride 2, or several 3×3 convolutions of which the first has stride 2.

    The last convolution is ``conv1_conv``. It has no normalisation or activation.

    Args:
        x: the images.
        filters: filters of the 7×7 convolution.
        deep_stem: filters of the 3×3 convolutions that replace the 7×7 convolution, or None. Source: ResNet-C, T. He et al. 2019, "Bag of
            Tricks for Image Classification with Convolutional Neural Networks", CVPR, arXiv:1812.01187, Figure 2b.
        sequence: layers between the 3×3 convolutions.
        padding: padding of all convolutions.
        use_bias: whether the last convolution has a bias.
    """
    *others, last = deep_stem or (filters,)
    for number, channels in enumerate(others, start=1):
        x = conv2d(x, channels, 3, strides=2 if number == 1 else 1, padding=padding, name=f"conv1_{number}_conv")
        x = norm_activation(x, sequence, name=f"conv1_{number}")
    size, strides = 3 if deep_stem else 7, 1 if others else 2
    return conv2d(x, last, size, strides=strides, padding=padding, use_bias=use_bias, name="conv1_conv")
