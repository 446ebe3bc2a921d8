"""Constructors made from the rows of a family: functions with the signature of `keras.applications`.

Nothing here imports Keras before a network is built.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from keras_deepnets.families.base import LAYER_PREFIX, RESOLVERS, Constructor, Domain, Family, Source, VariantFacts
from keras_deepnets.families.building import build
from keras_deepnets.families.checks import check_layer_prefix
from keras_deepnets.families.counts import recorded

_COMMON = """
    Args:
        include_top: whether the model includes the classifier.
        weights: None for random initialisation; the name of published weights (`model_info` lists those of this network,
            for example ``"imagenet"``), which are downloaded once; or the path of a weight file, as for `load_weights`.
            Architecture options, input scaling and number of classes follow from the weights.
        input_tensor: Keras tensor to use as the input of the network instead of a new input layer.
        input_shape: ``(height, width, channels)``; height and width may be None. Default with the top: the shape of the data
            set that the network was designed for, or the size at which the published weights are evaluated. Without the
            top, convolutional networks take any size by default.
        pooling: without the top, ``"avg"`` or ``"max"`` adds global pooling; None returns the last feature map.
        classes: number of classes.
        classifier_activation: activation of the classifier; None returns logits.
        name: name of the model.
        include_preprocessing: if True, the model takes RGB images with values 0–255 (uint8 or float) and scales them
            with the statistics of its data set or of its weights. A `Scaling` is applied instead of these.
        layer_prefix: prefix of all layer names, and of the model name unless `name` is given. It allows several networks in
            one functional model, which needs unique layer names. Weight files do not depend on it.
{options}
    Returns:
        A functional `keras.Model`: ``[n, height, width, channels]`` to ``[n, classes]``. Without the top, its output is the last
        feature map or the pooled features.

    Raises:
        ValueError: a value is invalid. The message names the value, the rule and a way out.
        TypeError: an option is unknown. The message lists the valid options.
"""


def variant(
    name: str, family: Family, *, source: str = "", error: str = "", options: tuple[str, ...] | None = None, **row: Any
) -> Constructor:
    """A named constructor, made from one row of a family's table.

    Args:
        name: public name.
        family: family of the network.
        source: section or table of the paper.
        error: published error, as text.
        options: options of the constructor. Default: all options of the family.
        **row: values of the spec's fields that define this variant.
    """
    facts = VariantFacts(name, family, row, tuple(family.options if options is None else options), source, error)
    return _constructor(facts, facts.spec.domain)


def builder(name: str, family: Family, *, without: tuple[str, ...] = ()) -> Constructor:
    """The constructor of custom networks of a family. All fields of the family's spec are options, except `without`."""
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


def _source(facts: VariantFacts, weights: Any, architecture: dict[str, Any]) -> Source:
    spec = facts.spec_with(architecture) if facts.row else None
    return RESOLVERS[0](facts, spec, weights, architecture)


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
        lines.append(f"{summary}. Default input shape {spec.domain.input_shape}, {spec.domain.classes} classes.")
        if facts.error:
            lines.append(f"    Published error: {facts.error}.")
    descriptions = {field.name: field.metadata.get("doc") for field in dataclasses.fields(family.spec)}  # type: ignore[arg-type]
    options = "".join(f"        {name}: {descriptions[name]}\n" for name in facts.options)
    return "\n".join(lines) + "\n" + _COMMON.format(options=options)
