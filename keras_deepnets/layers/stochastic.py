"""Random regularisation inside a network: stochastic depth [Huang et al. 2016, section 3] and dropout."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.precision import at_least_float32

UNITS = ("sample", "batch")
RESCALES = ("training", "inference")


@keras.saving.register_keras_serializable("keras_deepnets")
class StochasticDepth(keras.layers.Layer):
    """Drops a residual branch at random in training.

    A frozen layer (``trainable=False``) drops nothing, as at inference.

    Args:
        survival: probability in (0, 1] that the branch is kept.
        unit: ``"sample"`` draws once per image, ``"batch"`` once per mini-batch (as in the paper, section 3).
        rescale: ``"inference"`` multiplies the branch by `survival` at inference only (the paper's equation 5). ``"training"`` divides
            a surviving branch by `survival` in training and does not change inference. Both have the same expectation.
        seed: random seed.

    Shapes: any ``[n, …]``, unchanged.
    """

    def __init__(
        self, survival: float, unit: str = "sample", rescale: str = "training", seed: int | None = None, **kwargs: Any
    ):
        """Raises ValueError for a probability outside (0, 1] or an unknown unit or rescale."""
        super().__init__(**kwargs)
        if not 0 < survival <= 1:
            raise ValueError(f"StochasticDepth: survival={survival} is not a probability in (0, 1].")
        if unit not in UNITS:
            raise ValueError(f"StochasticDepth: unit={unit!r} is not one of {', '.join(UNITS)}.")
        if rescale not in RESCALES:
            raise ValueError(f"StochasticDepth: rescale={rescale!r} is not one of {', '.join(RESCALES)}.")
        self.survival = float(survival)
        self.unit = unit
        self.rescale = rescale
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def drops(self, training: bool | None) -> bool:
        """Whether the layer may drop anything."""
        return bool(training) and self.trainable and self.survival < 1

    def factor(self, inputs: Any, training: bool | None) -> Any:
        """The factor for `inputs`: a number, float32 or float64 ``[n or 1, 1, …]``, or None for a factor of one."""
        if self.survival == 1:
            return None
        if not self.drops(training):
            return self.survival if self.rescale == "inference" else None
        count = ops.shape(inputs)[0] if self.unit == "sample" else 1
        draws = keras.random.uniform(
            (count,) + (1,) * (len(inputs.shape) - 1), dtype="float32", seed=self.seed_generator
        )
        factor = ops.cast(draws < self.survival, at_least_float32(inputs.dtype))
        return factor / self.survival if self.rescale == "training" else factor

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The branch, dropped or scaled."""
        factor = self.factor(inputs, training)
        return inputs if factor is None else inputs * ops.cast(factor, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output: the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        config = {"survival": self.survival, "unit": self.unit, "rescale": self.rescale, "seed": self.seed}
        return super().get_config() | config


def linear_survival(block: int, blocks: int, final_survival: float) -> float:
    """The survival probability of block 1 … `blocks` under linear decay from 1 to `final_survival` (equation 4)."""
    return 1 - block / blocks * (1 - final_survival)


def stochastic_depth(
    x: Any, survival: float, *, unit: str = "sample", rescale: str = "training", name: str | None = None
) -> Any:
    """Drops the branch `x` with probability ``1 - survival``. Adds no layer if `survival` is 1."""
    if survival == 1:
        return x
    return StochasticDepth(survival, unit, rescale, name=named(name))(x)


@keras.saving.register_keras_serializable("keras_deepnets")
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout` that drops nothing if it is frozen (``trainable=False``), analogous to frozen batch normalisation."""

    def __init__(self, rate: float, rescale: bool = True, **kwargs: Any):
        """Takes the arguments of `keras.layers.Dropout`. With ``rescale=False``, kept units are not divided by ``1 - rate``."""
        super().__init__(rate, **kwargs)
        self.rescale = rescale

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Drops units in training."""
        drops = bool(training) and self.trainable and self.rate > 0
        outputs = super().call(inputs, training=drops)
        return outputs if self.rescale or not drops else outputs * (1 - self.rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | ({} if self.rescale else {"rescale": False})


def dropout(x: Any, rate: float, *, rescale: bool = True, name: str | None = None) -> Any:
    """Drops units with probability `rate`. Adds no layer if `rate` is 0.

    Kept units are divided by ``1 - rate``, so that the expectation does not change. With ``rescale=False`` they are not.
    """
    return Dropout(rate, rescale, name=named(name))(x) if rate else x
