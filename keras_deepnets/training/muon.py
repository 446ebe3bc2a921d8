"""Muon: an optimizer that orthogonalises the momentum. It learns more from each image than gradient descent."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.training.averaging import RisingAverage

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024). The singular values end between 0.7 and 1.2."""
_RMS = 0.2
"""Root mean square of an update at a rate of 1, about that of Adam (Liu et al. 2025, section 2.2)."""

_SMALLEST = 1e-3
"""Lower bound for the root mean square of a kernel, because a kernel of zeros would never change."""


@keras.saving.register_keras_serializable("keras_deepnets")
class Muon(RisingAverage, keras.optimizers.Optimizer):
    """Momentum orthogonalised by Newton-Schulz iterations (Jordan et al. 2024, Muon), also for convolution kernels.

    A kernel ``[height, width, inputs, outputs]`` is treated as the matrix ``[height * width * inputs, outputs]``. The
    update has the root mean square of an Adam update (Liu et al. 2025, Muon is Scalable), so learning rates for Adam
    are suitable. Scales, offsets, biases and the classifier are updated by Adam.

    `keras.optimizers.Muon` leaves convolutions to Adam. This class works on every Keras backend.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Each step subtracts `learning_rate * weight_decay * w` from a kernel, except that of the
            classifier.
        momentum: Nesterov momentum of Muon.
        adam_ratio: Share of the learning rate that Adam uses.
        beta_1: `beta_1` of Adam.
        beta_2: `beta_2` of Adam.
        epsilon: `epsilon` of Adam.
        newton_schulz: Number of iterations that orthogonalise a momentum.
        relative: Whether the learning rate is relative to the kernel. The root mean square of an update is then the
            rate times that of the kernel. Otherwise it is 0.2 times the rate. A relative rate suits pretrained weights
            of any scale, as in Adafactor (Shazeer & Stern 2018, section 8).
        classifier: Part of the paths of variables that Adam updates, whatever their shape.
        **kwargs: As for `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: Any = 4e-3,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
        adam_ratio: float = 0.5,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        newton_schulz: int = 5,
        relative: bool = False,
        classifier: str = "predictions",
        name: str = "muon",
        **kwargs: Any,
    ):
        super().__init__(learning_rate, name=name, **kwargs)
        self.decay, self.momentum, self.adam_ratio = float(weight_decay), float(momentum), float(adam_ratio)
        self.beta_1, self.beta_2, self.epsilon = float(beta_1), float(beta_2), float(epsilon)
        self.newton_schulz, self.relative, self.classifier = int(newton_schulz), bool(relative), classifier

    def build(self, variables):
        """Create a momentum for each variable, and a second moment for those that Adam updates."""
        if self.built:
            return
        super().build(variables)
        self._first = self.add_optimizer_variables(variables, "momentum")
        self._second = [
            None if self.orthogonalises(variable) else self.add_variable_from_reference(variable, name="velocity")
            for variable in variables
        ]

    def orthogonalises(self, variable: Any) -> bool:
        """Return whether Muon, not Adam, updates a variable."""
        return len(variable.shape) >= 2 and self.classifier not in variable.path

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        place = self._get_variable_index(variable)
        first, second = self._first[place], self._second[place]
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        if second is not None:
            self._adam(gradient, variable, rate * self.adam_ratio, first, second)
            return
        first.assign(self.momentum * first + gradient)
        matrix = ops.reshape(gradient + self.momentum * first, (-1, variable.shape[-1]))
        size = _RMS
        if self.relative:
            size = ops.maximum(ops.sqrt(ops.mean(ops.square(variable))), _SMALLEST)
        update = size * max(matrix.shape) ** 0.5 * orthogonal(matrix, self.newton_schulz)
        variable.assign(variable - rate * (ops.reshape(update, variable.shape) + self.decay * variable))

    def _adam(self, gradient, variable, rate, first, second):
        step = ops.cast(self.iterations + 1, variable.dtype)
        first.assign(self.beta_1 * first + (1.0 - self.beta_1) * gradient)
        second.assign(self.beta_2 * second + (1.0 - self.beta_2) * ops.square(gradient))
        mean = first / (1.0 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        square = second / (1.0 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        variable.assign(variable - rate * mean / (ops.sqrt(square) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("momentum", "adam_ratio", "beta_1", "beta_2", "epsilon", "newton_schulz", "relative", "classifier")
        return super().get_config() | {"weight_decay": self.decay} | {name: getattr(self, name) for name in names}


def orthogonal(matrix: Any, iterations: int = 5) -> Any:
    """Return the nearest matrix with singular values of about 1 (Jordan et al. 2024), float32 ``[rows, columns]``.

    All iterations use the small Gram matrix ``G`` of the matrix. The matrix itself is multiplied only twice: to compute
    ``G``, and by the polynomial in ``G`` that the iterations build. The result is the same, in a third of the time for
    a convolution kernel.

    Args:
        matrix: Tensor ``[rows, columns]``. All zeros stay zeros.
        iterations: Number of Newton-Schulz iterations.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.shape[0] < matrix.shape[1]
    x = ops.transpose(matrix) if wide else matrix
    x = x / (ops.norm(x) + 1e-7)
    gram = ops.matmul(ops.transpose(x), x)
    one = ops.eye(gram.shape[0], dtype=gram.dtype)
    polynomial = one
    for done in range(iterations):
        factor = a * one + b * gram + c * ops.matmul(gram, gram)
        polynomial = ops.matmul(polynomial, factor) if done else factor
        if done < iterations - 1:
            gram = ops.matmul(ops.matmul(factor, gram), factor)
    x = ops.matmul(x, polynomial)
    return ops.transpose(x) if wide else x
