"""What every family shares: a variant is a row of a spec, and one function makes the model from it.

A family module gives a `Family` (spec, network function, paper) and its rows; `variant` and `builder` turn them into constructors
with the signature of `keras.applications`. Nothing here imports Keras before a network is built.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from keras_deepnets import scaling as scalings
from keras_deepnets.errors import InputError
from keras_deepnets.families.counts import recorded
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

_COMMON = """
    Args:
        include_top: whether the classifier is part of the model.
        weights: None (random initialisation); ``"imagenet"`` or the name of a card (`model_info` lists them), downloaded
            once; or the path of a file, as for `load_weights`. What the weights need (options, input scaling, number of
            classes) is set.
        input_tensor: a Keras tensor to build on, instead of a new input.
        input_shape: ``(height, width, channels)``; sides may be None. By default that of the data it was designed for, or the
            size at which published weights are evaluated; without the top any size.
        pooling: without the top, ``"avg"`` or ``"max"`` pools the last feature map, None leaves it.
        classes: number of classes.
        classifier_activation: of the classifier; None gives logits.
        name: of the model.
        include_preprocessing: True: the model takes RGB 0–255 (uint8 or float) and scales it inside as the dataset's
            statistics say; a `Scaling`: as that says.
        layer_prefix: put before the name of every layer (and of the model, where `name` is not given), so that several networks
            fit into one functional model, whose layers need different names. Weight files do not depend on it.
{options}
    Returns:
        A functional `keras.Model`: ``[n, height, width, channels]`` to ``[n, classes]``.

    Raises:
        ValueError: bad value; the message names it, the rule and the way out.
        TypeError: unknown option; the message lists the valid ones.
"""


def variant(
    name: str, family: Family, *, source: str = "", error: str = "", options: tuple[str, ...] | None = None, **row: Any
) -> Constructor:
    """A named constructor: the row of a family's table as a function.

    Args:
        name: its public name.
        family: its family.
        source: section or table of the paper.
        error: published error, as text.
        options: the options it takes, where these are not all of the family's.
        **row: the fields of the spec that make this variant.
    """
    facts = VariantFacts(name, family, row, tuple(family.options if options is None else options), source, error)
    return _constructor(facts, facts.spec.domain)


def builder(name: str, family: Family, *, without: tuple[str, ...] = ()) -> Constructor:
    """The constructor of everything between the rows: the fields of the family's spec are options, except `without`."""
    fields = tuple(field.name for field in dataclasses.fields(family.spec) if field.name not in without)  # type: ignore[arg-type]
    return _constructor(VariantFacts(name, family, {}, fields), None)


def _constructor(facts: VariantFacts, domain: Domain | None) -> Constructor:
    def construct(
        include_top=True,
        weights=None,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=None,
        classifier_activation="softmax",
        name=None,
        *,
        include_preprocessing=False,
        layer_prefix="",
        **architecture,
    ):
        check_layer_prefix(facts.name, layer_prefix)
        source = None if weights is None else _source(facts, weights, architecture)
        if source is not None:
            architecture = source.options | architecture
            if include_top:
                classes = source.check_classes(classes)
        spec = facts.spec_with(architecture)
        if source is not None and include_top and input_shape is None and input_tensor is None:
            input_shape = source.input_shape(spec)
        return build(
            facts,
            spec,
            architecture,
            include_top=include_top,
            source=source,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=spec.domain.classes if classes is None else classes,
            classifier_activation=classifier_activation,
            name=name or layer_prefix + facts.name.lower(),
            include_preprocessing=include_preprocessing,
            layer_prefix=layer_prefix,
        )

    construct.__name__ = construct.__qualname__ = facts.name
    construct.__module__ = f"keras_deepnets.families.{facts.family.features.__module__.rpartition('.')[2]}"
    construct.__doc__ = _docstring(facts)
    construct.__signature__ = _signature(facts, domain)  # type: ignore[attr-defined]
    construct.facts = facts  # type: ignore[attr-defined]
    return construct  # type: ignore[return-value]


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

_resolvers: list[Resolver] = []


def resolve_weights_with(resolver: Resolver) -> None:
    """Sets what finds the weights that a constructor is given. The package does so: families know nothing of weight files."""
    _resolvers[:] = [resolver]


def _source(facts: VariantFacts, weights: Any, architecture: dict[str, Any]) -> Source:
    spec = facts.spec_with(architecture) if facts.row else None
    return _resolvers[0](facts, spec, weights, architecture)


def _defaults(facts: VariantFacts) -> dict[str, Any]:
    fields = {field.name: field.default for field in dataclasses.fields(facts.family.spec)}  # type: ignore[arg-type]
    fields = {name: None if default is dataclasses.MISSING else default for name, default in fields.items()}
    return {name: facts.row.get(name, fields[name]) for name in facts.options}


def _signature(facts: VariantFacts, domain: Domain | None) -> inspect.Signature:
    def parameter(name, default, kind=inspect.Parameter.POSITIONAL_OR_KEYWORD):
        return inspect.Parameter(name, kind, default=default)

    positional = {
        "include_top": True,
        "weights": None,
        "input_tensor": None,
        "input_shape": None,
        "pooling": None,
        "classes": domain.classes if domain else None,
        "classifier_activation": "softmax",
        "name": facts.name.lower(),
    }
    keywords = {"include_preprocessing": False, LAYER_PREFIX: ""} | _defaults(facts)
    return inspect.Signature(
        [parameter(*item) for item in positional.items()]
        + [parameter(*item, inspect.Parameter.KEYWORD_ONLY) for item in keywords.items()]
    )


def _docstring(facts: VariantFacts) -> str:
    family = facts.family
    title = f"{facts.name}: {family.paper}"
    lines = [f"{title}{', ' + facts.source if facts.source else ''}."]
    if facts.row:
        spec = facts.spec
        counts = recorded().get(facts.name.lower())
        lines.append("")
        summary = f"    {spec.depth} layers"
        if counts:
            summary += f", {counts['parameters']:,} parameters, {counts['flops'] / 1e9:.3g}e9 multiply-adds"
        lines.append(f"{summary}. Input {spec.domain.input_shape}, {spec.domain.classes} classes unless said.")
        if facts.error:
            lines.append(f"    Published error: {facts.error}.")
    descriptions = {field.name: field.metadata.get("doc") for field in dataclasses.fields(family.spec)}  # type: ignore[arg-type]
    options = "".join(f"        {name}: {descriptions[name]}\n" for name in facts.options)
    return "\n".join(lines) + "\n" + _COMMON.format(options=options)


def option(default: Any, doc: str) -> Any:
    """A spec field with its sentence for the constructors' docstrings."""
    return dataclasses.field(default=default, metadata={"doc": doc})


def check_choice(owner: str, name: str, value: Any, choices: Any) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{owner}: {name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def check_layer_prefix(owner: str, prefix: Any) -> None:
    """Raises InputError unless names of layers may begin with `prefix`."""
    if not isinstance(prefix, str) or not re.fullmatch(r"([A-Za-z][A-Za-z0-9_.-]*)?", prefix):
        raise InputError(
            f"{owner}: layer_prefix={prefix!r} must be a text of letters, digits, '_', '.' and '-' that begins with a letter, "
            "e.g. 'left_'."
        )


def check_probability(owner: str, name: str, value: Any) -> None:
    """Raises InputError unless `value` is a drop probability."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise InputError(f"{owner}: {name}={value!r} must be a drop probability in [0, 1).")


def check_counts(owner: str, **values: Any) -> None:
    """Raises InputError unless every value (a number or a tuple of them) is a whole number of at least 1."""
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 1 for number in numbers):
            raise InputError(f"{owner}: {name}={value!r} must be a whole number of at least 1.")


def check_deep_stem(owner: str, deep_stem: Any, stem: str) -> tuple[int, ...]:
    """`deep_stem` as a tuple. Raises InputError unless it is of whole numbers, one at least, and the stem is ImageNet's."""
    deep_stem = tuple(deep_stem)
    if stem != "imagenet" or not deep_stem:
        raise InputError(
            f"{owner}: deep_stem={deep_stem} replaces the 7×7 convolution of stem='imagenet'; stem is {stem!r}."
        )
    check_counts(owner, deep_stem=deep_stem)
    return deep_stem


def repeats_of_depth(owner: str, depth: Any, step: int, rest: int, what: str) -> int:
    """The n of a depth of ``step·n + rest`` layers. Raises InputError naming the rule and the nearest depth."""
    check_counts(owner, depth=depth)
    repeats, remainder = divmod(depth - rest, step)
    if remainder or repeats < 1:
        nearest = step * max(repeats, 1) + rest
        raise InputError(f"{owner}: depth={depth} is not {step}n+{rest} ({what}); e.g. {nearest}.")
    return repeats


def build(
    facts: VariantFacts,
    spec: Any,
    options: dict[str, Any],
    *,
    include_top: bool,
    source: Source | None,
    input_tensor: Any,
    input_shape: tuple[int | None, ...] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    name: str,
    include_preprocessing: bool | Scaling,
    layer_prefix: str,
) -> keras.Model:
    """The model of `spec`: input, scaling, features, classifier or pooling, weights, record."""
    import keras

    from keras_deepnets import layers
    from keras_deepnets.models import DeepNet, deep_graphs, layers_before, scales, weight_owners

    if pooling is not None:
        check_choice(facts.name, "pooling", pooling, ("avg", "max"))
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise InputError(f"{facts.name}: classes={classes!r} must be a whole number of at least 1.")
    inputs, x = _input(facts, spec, input_tensor, input_shape, include_top, layer_prefix)
    expected = source.scaling if source and source.scaling else spec.domain.scaling
    scaling = _scaling(facts, expected, include_preprocessing, x.shape[-1])
    with layers.prefixed(layer_prefix), deep_graphs():
        if include_preprocessing:
            x = layers.scale_input(x, scaling)
        x = facts.family.features(x, spec)
        if include_top:
            x = layers.classifier(x, classes, classifier_activation)
        elif pooling and len(x.shape) == 4:
            x = layers.pool_features(x, pooling)
    architecture = {"constructor": facts.name, "family": facts.family.name, "options": _jsonable(options)}
    if layer_prefix:
        architecture["options"][LAYER_PREFIX] = layer_prefix
    if source is not None:
        architecture["weights"] = source.name
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
        before = layers_before(input_tensor)
        if any(layer.weights for layer in before):
            architecture["before"] = list(dict.fromkeys(name for layer in before for name in weight_owners(layer)))
        if scaling is not None and any(map(scales, before)) and not include_preprocessing:
            scaling = None  # they scale
    model = DeepNet(inputs, x, name=name, record={"architecture": architecture, "scaling": scaling})
    if source is not None:
        source.load_into(model)
    return model


def _jsonable(options: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value

    return {key: plain(value) for key, value in options.items()}


def _scaling(
    facts: VariantFacts, expected: Scaling, include_preprocessing: bool | Scaling, channels: int
) -> Scaling | None:
    if isinstance(include_preprocessing, Scaling):
        scaling = include_preprocessing
    else:
        scaling = expected
        if scaling.channels != channels and not include_preprocessing:
            return None
    if scaling.channels != channels:
        raise InputError(
            f"{facts.name}: include_preprocessing scales {scaling.channels} channels and the input has {channels}; "
            "pass include_preprocessing=keras_deepnets.Scaling(mean, std) with one number a channel."
        )
    return scaling


def _input(
    facts: VariantFacts, spec: Any, input_tensor: Any, input_shape: Any, include_top: bool, layer_prefix: str
) -> tuple[Any, Any]:
    import keras

    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            f"{facts.name}: the image data format is 'channels_first' and these networks are channels last; "
            "call keras.config.set_image_data_format('channels_last')."
        )
    if input_tensor is not None:
        if not keras.backend.is_keras_tensor(input_tensor):
            raise InputError(
                f"{facts.name}: input_tensor must be a Keras tensor such as keras.Input(...); it is a {type(input_tensor).__name__}."
            )
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != shape:
            raise InputError(
                f"{facts.name}: input_shape={tuple(input_shape)} contradicts the input_tensor's {shape}; give one of them."
            )
        _check_shape(facts, spec, shape)
        return input_tensor, input_tensor
    if input_shape is None:
        default = spec.domain.input_shape
        fixed = include_top or getattr(spec, "fixed_input_size", False)
        input_shape = default if fixed else (None, None, default[-1])
    shape = tuple(input_shape)
    _check_shape(facts, spec, shape)
    inputs = keras.Input(shape=shape, name=f"{layer_prefix}input_layer")
    return inputs, inputs


def _check_shape(facts: VariantFacts, spec: Any, shape: tuple[Any, ...]) -> None:
    rule = "(height, width, channels), e.g. " + str(spec.domain.input_shape)
    if len(shape) != 3 or any(side is not None and (not isinstance(side, int) or side < 1) for side in shape):
        raise InputError(f"{facts.name}: input_shape={shape} must be {rule}.")
    height, width, channels = shape
    if channels is None:
        raise InputError(f"{facts.name}: input_shape={shape} leaves the channels open; they must be known: {rule}.")
    if height in (1, 3) and channels > 4:
        raise InputError(
            f"{facts.name}: input_shape={shape} looks like channels first; these networks are channels last: {rule}."
        )
    smallest = spec.total_stride
    if any(side is not None and side < smallest for side in (height, width)):
        raise InputError(
            f"{facts.name}: input_shape={shape} is too small: the network's stride is {smallest}, so each side must be at least {smallest}."
        )
