"""The input scaling of a network. It is data, not code, so it can be saved with the weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from keras_deepnets.errors import InputError


@dataclass(frozen=True)
class Scaling:
    """The scaling that a network expects for RGB images with values 0–255, channels last.

    The input becomes ``(image[..., order] - mean) / std``.

    Attributes:
        mean: one number per channel, in units of 0–255, in the network's channel order.
        std: one number per channel, in units of 0–255, in the network's channel order.
        channel_order: ``"RGB"``, or ``"BGR"`` if the network was trained on swapped channels.
        crop_fraction: at test time, the shorter side is resized to ``size / crop_fraction`` and the centre is cropped.
        interpolation: resizing method, as in ``tf.image.resize``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = "RGB"
    crop_fraction: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self):
        """Checks the values and converts the numbers to tuples of floats."""
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if len(self.mean) != len(self.std):
            raise InputError(
                f"Scaling: mean has {len(self.mean)} values and std {len(self.std)}; give each one value per channel."
            )
        if any(value <= 0 for value in self.std):
            raise InputError(f"Scaling: std={self.std} must be positive (0–255 units).")
        if self.channel_order not in ("RGB", "BGR"):
            raise InputError(f"Scaling: channel_order={self.channel_order!r} is not 'RGB' or 'BGR'.")
        if not 0 < self.crop_fraction <= 1:
            raise InputError(f"Scaling: crop_fraction={self.crop_fraction} is not in (0, 1].")

    @property
    def channels(self) -> int:
        """Number of input channels of the network."""
        return len(self.mean)

    def apply(self, images: Any) -> Any:
        """Scale float images ``[..., channels]`` with values 0–255 (NumPy array or backend tensor)."""
        if self.channel_order == "BGR":
            images = images[..., ::-1]
        if hasattr(images, "__array_interface__"):
            import numpy as np

            images = np.asarray(images, "float32")
            return (images - np.asarray(self.mean, "float32")) / np.asarray(self.std, "float32")
        from keras import ops

        mean = ops.convert_to_tensor(self.mean, dtype=images.dtype)
        std = ops.convert_to_tensor(self.std, dtype=images.dtype)
        return (images - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """The scaling as plain JSON values."""
        values = asdict(self)
        return values | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Scaling:
        """The inverse of `to_dict`."""
        return cls(**values)


def _unit_interval(mean, std, **kwargs) -> Scaling:
    """A scaling from statistics for values 0–1, as torchvision gives them."""
    return Scaling(tuple(255 * value for value in mean), tuple(255 * value for value in std), **kwargs)


IMAGENET = _unit_interval((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""ImageNet statistics of torchvision and timm, with a 256/224 centre crop."""

CIFAR = _unit_interval((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), crop_fraction=1.0)
"""Statistics of the CIFAR-10 training set, without a crop."""

GRAYSCALE = Scaling((0.0,), (255.0,), crop_fraction=1.0)
"""One channel, scaled to 0–1."""
