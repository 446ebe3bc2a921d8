"""Input scaling inside a model."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.precision import at_least_float32
from keras_deepnets.scaling import Scaling


@keras.saving.register_keras_serializable("keras_deepnets")
class InputScaling(keras.layers.Layer):
    """Scales images with values 0–255 (uint8 or float, ``[n, h, w, c]``) as defined by `scaling`.

    The arithmetic is float32 also in mixed precision, because an offset of 255 is large for half precision. The output has
    the policy's compute dtype.
    """

    def __init__(self, scaling: Scaling | dict[str, Any], **kwargs: Any):
        """`scaling` is a `Scaling` or its dictionary."""
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.scaling = scaling if isinstance(scaling, Scaling) else Scaling.from_dict(scaling)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The scaled images."""
        images = ops.cast(inputs, at_least_float32(self.compute_dtype))
        return ops.cast(self.scaling.apply(images), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output: the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"scaling": self.scaling.to_dict()}


def scale_input(x: Any, scaling: Scaling, *, name: str = "input_scaling") -> Any:
    """Scales images with values 0–255 inside the model."""
    return InputScaling(scaling, name=named(name))(x)
