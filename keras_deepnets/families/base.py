"""What every family shares: a variant is a row of a spec, and one function makes the model from it.

A family module gives a `Family` (spec, network function, paper) and its rows; `variant` and `builder` turn them into constructors
with the signature of `keras.applications`. Nothing here imports Keras before a network is built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from keras_deepnets import scaling as scalings
from keras_deepnets.scaling import Scaling

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Domain:
    """The images that a network was designed for: what a constructor assumes when nothing is said."""

    dataset: str
    input_shape: tuple[int, int, int]
    classes: int
    scaling: Scaling


IMAGENET = Domain("imagenet2012", (224, 224, 3), 1000, scalings.IMAGENET)
CIFAR10 = Domain("cifar10", (32, 32, 3), 10, scalings.CIFAR)
MNIST = Domain("mnist", (28, 28, 1), 10, scalings.GRAYSCALE)


class Spec(Protocol):
    """An architecture: a frozen dataclass that checks its values and knows these facts of the network it describes."""

    @property
    def domain(self) -> Domain:
        """The images it is for."""

    @property
    def depth(self) -> int:
        """Layers with weights along the longest path, as the paper counts."""

    @property
    def total_stride(self) -> int:
        """Input pixels a pixel of the last feature map; the smallest side of an input."""


@dataclass(frozen=True)
class Paper:
    """Where a network comes from."""

    key: str
    title: str
    authors: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year}, {self.title!r}"


@dataclass(frozen=True)
class Family:
    """One paper's networks.

    Attributes:
        name: as users see it.
        spec: the frozen dataclass of an architecture.
        features: ``(x, spec) -> x``: the network from scaled images to the last feature map (or vector), without classifier.
        paper: its source.
        options: the spec's fields that named constructors let the caller set.
    """

    name: str
    spec: Callable[..., Any]
    features: Callable[[Any, Any], Any]
    paper: Paper
    options: tuple[str, ...]


class Constructor(Protocol):
    """The signature of every constructor: that of `keras.applications`, then keywords."""

    __name__: str
    facts: VariantFacts

    def __call__(
        self,
        include_top: bool = True,
        weights: str | None = None,
        input_tensor: Any = None,
        input_shape: tuple[int | None, ...] | None = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: str | Callable[[Any], Any] | None = "softmax",
        name: str | None = None,
        *,
        include_preprocessing: bool | Scaling = False,
        layer_prefix: str = "",
        **architecture: Any,
    ) -> keras.Model:
        """Builds the model."""


@dataclass(frozen=True)
class VariantFacts:
    """What is known of a constructor without building its network."""

    name: str
    family: Family
    row: dict[str, Any]
    options: tuple[str, ...]
    source: str = ""
    error: str = ""

    @property
    def spec(self) -> Any:
        """The architecture when no option is given."""
        return self.family.spec(**self.row)

    def spec_with(self, options: dict[str, Any]) -> Any:
        """The architecture that some options make.

        Raises:
            TypeError: an option that the constructor does not have; the message lists those that it has.
            InputError: a bad value, or options that a builder needs are missing; the message names them.
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            valid = ", ".join(self.options) or "none"
            raise TypeError(
                f"{self.name} got an unknown option {', '.join(map(repr, unknown))}. Its architecture options: {valid}."
            )
        return self.family.spec(**(self.row | options))


LAYER_PREFIX = "layer_prefix"
"""The option that every constructor has and no spec: it names layers, and changes nothing else."""


class Source(Protocol):
    """Weights that a network is to be built for, found by what the caller gave as ``weights``."""

    options: dict[str, Any]
    scaling: Scaling | None

    @property
    def name(self) -> str:
        """What a record says of them."""

    def input_shape(self, spec: Any) -> tuple[int | None, ...]:
        """The shape to build where the caller gives none."""

    def check_classes(self, classes: int | None) -> int | None:
        """The number of classes to build. Raises InputError where the caller wants another than the weights have."""

    def load_into(self, model: keras.Model) -> None:
        """Gives the weights to the network that was built for them."""


Resolver = Callable[[VariantFacts, Any, Any, dict[str, Any]], Source]
"""From a constructor's facts, its spec (None for a builder), ``weights`` and the given options to the weights."""

RESOLVERS: list[Resolver] = []


def resolve_weights_with(resolver: Resolver) -> None:
    """Sets what finds the weights that a constructor is given. The package does so: families know nothing of weight files."""
    RESOLVERS[:] = [resolver]


def option(default: Any, doc: str) -> Any:
    """A spec field with its sentence for the constructors' docstrings."""
    return dataclasses.field(default=default, metadata={"doc": doc})
