"""What all families share: a variant is one row of a spec, and one function builds the model from it.

A family module defines a `Family` (spec, network function, paper) and its rows. `variant` and `builder` turn the rows into
constructors with the signature of `keras.applications`. Nothing here imports Keras before a network is built.
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
    """The images that a network was designed for. A constructor takes its defaults from them."""

    dataset: str
    input_shape: tuple[int, int, int]
    classes: int
    scaling: Scaling


IMAGENET = Domain("imagenet2012", (224, 224, 3), 1000, scalings.IMAGENET)
CIFAR10 = Domain("cifar10", (32, 32, 3), 10, scalings.CIFAR)
MNIST = Domain("mnist", (28, 28, 1), 10, scalings.GRAYSCALE)


class Spec(Protocol):
    """An architecture: a frozen dataclass that checks its values and knows these facts about its network."""

    @property
    def domain(self) -> Domain:
        """The images that the network was designed for."""
        ...

    @property
    def depth(self) -> int:
        """Layers with weights along the longest path, counted as in the paper."""
        ...

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels. It is also the smallest side of an input."""
        ...


@dataclass(frozen=True)
class Paper:
    """The paper that introduced a network."""

    key: str
    title: str
    authors: str
    year: int
    url: str

    def __str__(self) -> str:
        return f"{self.authors} {self.year}, {self.title!r}"


@dataclass(frozen=True)
class Auxiliary:
    """An additional classifier, which reads an intermediate layer and is only used in training.

    Attributes:
        name: name of its output, and prefix of the names of its layers.
        reads: name of the layer whose output it reads.
        head: ``(x, name) -> x``: its hidden layers, from that output to a vector. Their names begin with ``{name}_``.
        weight: weight of its loss. That of the network's own output is 1.
        gradient_factor: factor of the gradients of its fully connected layer's weights.
    """

    name: str
    reads: str
    head: Callable[[Any, str], Any]
    weight: float
    gradient_factor: float = 1.0


@dataclass(frozen=True)
class Family:
    """The networks of one paper.

    Attributes:
        name: public name.
        spec: frozen dataclass that describes an architecture.
        features: ``(x, spec) -> x``. It maps scaled images to the last feature map (or vector), without the classifier.
        paper: source of the networks.
        options: fields of the spec that callers of the named constructors can set.
        head: ``(x, spec) -> x``: hidden layers between the last feature map and the classifier. They belong to the top.
        head_layers: regular expression for the names of these layers.
        classifier: ``(x, spec, classes, activation) -> x``, from the last feature map to the outputs. Default: `layers.classifier`. Its
            layer with weights is called ``predictions``.
        auxiliary: ``spec -> heads``: classifiers that only training uses. The spec of such a family has a field `auxiliary`.
        auxiliary_layers: regular expression for the beginning of their layers' names.
        task: ``"classification"`` or ``"detection"``.
    """

    name: str
    spec: Callable[..., Any]
    features: Callable[[Any, Any], Any]
    paper: Paper
    options: tuple[str, ...]
    head: Callable[[Any, Any], Any] | None = None
    head_layers: str = ""
    classifier: Callable[[Any, Any, int, Any], Any] | None = None
    auxiliary: Callable[[Any], tuple[Auxiliary, ...]] | None = None
    auxiliary_layers: str = ""
    task: str = "classification"


class Constructor(Protocol):
    """The signature of every constructor: that of `keras.applications`, plus keyword-only arguments."""

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
    """The facts about a constructor that are known without building its network."""

    name: str
    family: Family
    row: dict[str, Any]
    options: tuple[str, ...]
    source: str = ""
    error: str = ""

    @property
    def spec(self) -> Any:
        """The architecture with default options."""
        return self.family.spec(**self.row)

    def spec_with(self, options: dict[str, Any]) -> Any:
        """The architecture with the given options.

        Raises:
            TypeError: the constructor does not have such an option. The message lists the options that it has.
            InputError: a value is invalid, or a builder lacks options that it needs. The message names them.
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            valid = ", ".join(self.options) or "none"
            raise TypeError(
                f"{self.name} got an unknown option {', '.join(map(repr, unknown))}. Its architecture options: {valid}."
            )
        return self.family.spec(**(self.row | options))


LAYER_PREFIX = "layer_prefix"
"""Option of every constructor that is not a field of any spec. It changes layer names only."""


class Source(Protocol):
    """Weights to build a network for, found from the ``weights`` argument."""

    @property
    def options(self) -> dict[str, Any]:
        """Options that the network needs and that its constructor has."""
        ...

    @property
    def scaling(self) -> Scaling | None:
        """Input scaling, if known."""
        ...

    @property
    def name(self) -> str:
        """Name of the weights in the model's record."""
        ...

    def input_shape(self, spec: Any) -> tuple[int | None, ...]:
        """The input shape to build if the caller gives none."""
        ...

    def check_classes(self, classes: int | None) -> int | None:
        """The number of classes to build. Raises InputError if the caller asks for a different number than the weights have."""
        ...

    def load_into(self, model: keras.Model) -> None:
        """Loads the weights into the network that was built for them."""
        ...


Resolver = Callable[[VariantFacts, Any, Any, dict[str, Any]], Source]
"""Maps a constructor's facts, its spec (None for a builder), ``weights`` and the given options to the weights."""

RESOLVERS: list[Resolver] = []


def resolve_weights_with(resolver: Resolver) -> None:
    """Sets the function that finds a constructor's weights. The package calls this, so families do not depend on weight files."""
    RESOLVERS[:] = [resolver]


def option(default: Any, doc: str) -> Any:
    """A spec field together with its description for the constructors' docstrings."""
    return dataclasses.field(default=default, metadata={"doc": doc})
