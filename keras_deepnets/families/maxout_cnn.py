"""The convolutional maxout network: three maxout convolutions and a fully connected maxout layer.

I. J. Goodfellow, D. Warde-Farley, M. Mirza, A. Courville, Y. Bengio: "Maxout Networks", ICML 2013, arXiv:1302.4389. The paper does not list
the layers of the network for CIFAR-10 (section 5.3). They are those of the authors' configuration for Pylearn2, ``cifar10.yaml``.

* Poolings also cover the last row and column ("ceil" padding). On 32×32 pixels the maps are 33→16, 15→7 and 9→5.
* Dropout precedes every layer. The images are dropped with probability 0.2 and, as by the authors, not rescaled. All other inputs are
  dropped with probability 0.5 and rescaled.
* Weights are bounded: the norm of each filter, and of the weights of each fully connected unit, per linear piece. The training of this
  library and of Keras scales them back after every step.
* For images of other sizes, the last feature map is max pooled to the size that it has for 32×32 pixels.
* The initial variance of the weights preserves a signal's second moment. ``initial_range=0.005`` draws them from U(-0.005, 0.005) as the
  authors do.
* The authors' file for SVHN is ``MaxoutCNN(filters=(64, 128, 128), kernels=(5, 5, 5), pool_sizes=(3, 3, 3), hidden=(400,))``. They never
  published the file for CIFAR-100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts, check_probability, set_counts, set_tuples
from keras_deepnets.families.constructors import variant

PAPER = Paper("G13", "Maxout Networks", "Goodfellow et al.", 2013, "https://arxiv.org/abs/1302.4389")

_OWNER = "MaxoutCNN"
_PER_CONVOLUTION = ("filters", "kernels", "paddings", "pool_sizes", "max_kernel_norms")


@dataclass(frozen=True)
class MaxoutCNNSpec:
    """Maxout convolutions, each with max pooling at stride 2, then fully connected maxout layers (authors' ``cifar10.yaml``)."""

    filters: tuple[int, ...] = option((96, 192, 192), "units of each maxout convolution.")
    kernels: tuple[int, ...] = option((8, 8, 5), "kernel size of each convolution.")
    paddings: tuple[int, ...] = option((4, 3, 3), "zeros on every side of the input of each convolution.")
    pool_sizes: tuple[int, ...] = option(
        (4, 4, 2), "window of the max pooling after each convolution. Its stride is 2."
    )
    pieces: int = option(2, "linear pieces per maxout unit in the convolutions.")
    hidden: tuple[int, ...] = option((500,), "units of the fully connected maxout layers, possibly none.")
    hidden_pieces: int = option(5, "linear pieces per maxout unit in the fully connected layers.")
    input_dropout: float = option(0.2, "probability to drop a value of the image. Kept values are not rescaled.")
    dropout: float = option(0.5, "probability to drop an input of every other layer.")
    max_kernel_norms: tuple[float, ...] | None = option(
        (0.9, 1.9365, 1.9365), "upper bound of the norm of each filter, per convolution. None: no bounds."
    )
    max_hidden_norm: float | None = option(
        1.9,
        "upper bound of the norm of the weights of each linear piece in the fully connected layers. None: no bound.",
    )
    max_classifier_norm: float | None = option(
        1.9365, "upper bound of the norm of the weights of each class. None: no bound."
    )
    initial_range: float | None = option(
        None,
        "bound of uniformly distributed initial weights. None: normally distributed weights that keep a signal's second moment.",
    )

    def __post_init__(self):
        """Checks all values."""
        norms = self.max_kernel_norms
        set_counts(_OWNER, self, "filters", "kernels", "pool_sizes")
        set_counts(_OWNER, self, "hidden", empty=True)
        set_tuples(_OWNER, self, "paddings", *(() if norms is None else ("max_kernel_norms",)))
        check_counts(_OWNER, pieces=self.pieces, hidden_pieces=self.hidden_pieces)
        if any(not isinstance(zeros, int) or isinstance(zeros, bool) or zeros < 0 for zeros in self.paddings):
            raise InputError(f"{_OWNER}: paddings={self.paddings} must be whole numbers of at least 0.")
        if any(size < 2 for size in self.pool_sizes):
            raise InputError(f"{_OWNER}: pool_sizes={self.pool_sizes} must be at least 2, the stride of the poolings.")
        lengths = {field: len(getattr(self, field)) for field in _PER_CONVOLUTION if getattr(self, field) is not None}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"{_OWNER}: filters, kernels, paddings, pool_sizes and max_kernel_norms must each have one number per convolution; "
                f"they have {', '.join(map(str, lengths.values()))}."
            )
        bounds = {
            "max_hidden_norm": self.max_hidden_norm,
            "max_classifier_norm": self.max_classifier_norm,
            "initial_range": self.initial_range,
        }
        for name, value in [*bounds.items(), *(("max_kernel_norms", norm) for norm in norms or ())]:
            _check_bound(name, value)
        check_probability(_OWNER, "input_dropout", self.input_dropout)
        check_probability(_OWNER, "dropout", self.dropout)
        if self._side_of_map(self.domain.input_shape[0]) < 1:
            raise InputError(
                f"{_OWNER}: nothing remains of images of {self.domain.input_shape[0]} pixels with kernels={self.kernels}, "
                f"paddings={self.paddings}, pool_sizes={self.pool_sizes}; give larger paddings or fewer convolutions."
            )

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def depth(self) -> int:
        """Convolutions, fully connected layers and the softmax layer."""
        return len(self.filters) + len(self.hidden) + 1

    @property
    def pooled_size(self) -> int:
        """Side of the map that the fully connected layers see: that of images of 32×32 pixels."""
        return self._side_of_map(self.domain.input_shape[0])

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels, or the smallest side of an input if that is larger."""
        smallest = next(side for side in range(1, 1000) if self._side_of_map(side) > 0)
        return max(2 ** len(self.filters), smallest)

    def _side_of_map(self, side: int) -> int:
        """The side of the last feature map of square images. 0 if a window does not fit."""
        for kernel, zeros, size in zip(self.kernels, self.paddings, self.pool_sizes, strict=True):
            side += 2 * zeros - kernel + 1
            # The last window may lack one row.
            if side < size - 1 or side < 1:
                return 0
            side = math.ceil((side - size) / 2) + 1
        return side


def _check_bound(name: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is not None and (not number or not 0 < value < math.inf):
        raise InputError(f"{_OWNER}: {name}={value!r} must be a positive number, or None.")


def features(x: Any, spec: MaxoutCNNSpec) -> Any:
    """The maxout convolutions and poolings, from images to the last feature map."""
    x = layers.dropout(x, spec.input_dropout, rescale=False, name="input_dropout")
    norms = spec.max_kernel_norms or (None,) * len(spec.filters)
    stages = zip(spec.filters, spec.kernels, spec.paddings, spec.pool_sizes, norms, strict=True)
    for number, (filters, kernel_size, padding, pool_size, norm) in enumerate(stages, start=1):
        if number > 1:
            x = layers.dropout(x, spec.dropout, name=f"pool{number - 1}_dropout")
        x = layers.maxout_conv2d(
            x,
            filters,
            kernel_size,
            padding=padding,
            pieces=spec.pieces,
            initial_range=spec.initial_range,
            max_norm=norm,
            name=f"conv{number}",
        )
        x = layers.max_pool(x, pool_size, 2, padding="ceil", name=f"pool{number}")
    return x


def head(x: Any, spec: MaxoutCNNSpec) -> Any:
    """The fully connected layers, from the last feature map to the input of the classifier."""
    x = layers.flatten(layers.adaptive_max_pool(x, spec.pooled_size, name="pooled"), name="flatten")
    x = layers.dropout(x, spec.dropout, name="flatten_dropout")
    for number, units in enumerate(spec.hidden, start=1):
        x = layers.maxout_dense(
            x,
            units,
            pieces=spec.hidden_pieces,
            initial_range=spec.initial_range,
            max_norm=spec.max_hidden_norm,
            name=f"fc{number}",
        )
        x = layers.dropout(x, spec.dropout, name=f"fc{number}_dropout")
    return x


def classifier(x: Any, spec: MaxoutCNNSpec, classes: int, activation: Any) -> Any:
    """The fully connected classifier, with a bound for the norm of each class's weights."""
    norm = layers.norm_constraint(spec.max_classifier_norm, 2)
    return layers.classifier(x, classes, activation, kernel_constraint=norm)


_OPTIONS = (
    *("filters", "kernels", "paddings", "pool_sizes", "pieces", "hidden", "hidden_pieces", "input_dropout", "dropout"),
    *("max_kernel_norms", "max_hidden_norm", "max_classifier_norm", "initial_range"),
)
FAMILY = Family("Maxout", MaxoutCNNSpec, features, PAPER, _OPTIONS, head, r"fc\d+_dense", classifier)

MaxoutCNN = variant(
    "MaxoutCNN",
    FAMILY,
    source="section 5.3; the layers are those of the authors' cifar10.yaml",
    error="11.68 %, CIFAR-10 test, and 9.38 % with augmented data",
    filters=(96, 192, 192),
)
