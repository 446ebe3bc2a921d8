"""Load the weights of a file into a network: all or nothing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.weights import naming_tables, recognition
from keras_deepnets.weights.architectures import spec_of, way_to
from keras_deepnets.weights.names import NamedWeights, named_weights, names_of
from keras_deepnets.weights.naming import Naming
from keras_deepnets.weights.reading import APPLICATIONS_EPSILON, Tensors

if TYPE_CHECKING:
    import keras

HEAD = "predictions/"
"""Prefix of the names of a classifier's weights."""

_HEADS = (HEAD, "predictions_boxes/")
"""The same, and that of a detector's boxes."""

_SHOWN = 8
_SILENT = ("downsample", "shortcut", "antialias", "stem_padding", "unit", "pool2", "pool_padding", "reduction")
"""Options that change what a network computes, but not the names or shapes of its weights."""


@dataclass(frozen=True)
class LoadReport:
    """Report of loading weights.

    Attributes:
        naming: The naming that the source uses.
        loaded: Number of weights that were loaded.
        skipped: Names of weights that `skip_head` left unchanged. Also those of auxiliary classifiers that only the source or only the
            network has. Also the source's classifier tensors if the network has no classifier, and layers around the network that
            stay unchanged.
        missing: Names of weights that have no tensor in the source.
        unused: Names of the source's tensors that have no weight in the network.
        mismatched: Weights with different shapes, as ``"name: shape there, shape here"``.
    """

    naming: str
    loaded: int
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor found its weight."""
        return not (self.missing or self.unused or self.mismatched)


class MisfitError(InputError):
    """Weights that do not fit. The message names the first ones of each kind.

    Attributes:
        report: All misfits. Nothing was loaded.
    """

    def __init__(self, message: str, report: LoadReport):
        """Create the error from the report of what would have been loaded."""
        super().__init__(message)
        self.report = dataclasses.replace(report, loaded=0)

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling, which otherwise restores exceptions from their message alone."""
        return type(self), (str(self), self.report)


def load_into(model: keras.Model, tensors: Tensors, *, strict: bool = True, skip_head: bool = False) -> LoadReport:
    """Load `tensors` into `model` and clear their arrays. See `keras_deepnets.load_weights`."""
    named = named_weights(model)
    network, wanted = named.network, named.own
    naming = recognition.recognised(tensors.arrays, wanted)
    if naming is None:
        raise InputError(
            f"{model.name}: the names in {tensors.origin} match no known naming ({_listed(tensors.arrays)}); "
            f"known namings: Keras, {', '.join(naming.name for naming in naming_tables.NAMINGS)}."
        )
    if strict:
        _check_kind(network, tensors, naming, wanted)
    check_options(network, needs(tensors, naming), tensors.origin)
    _check_pooled_shortcuts(network, tensors, naming)
    theirs = {naming.ours(name) or name: name for name in tensors.arrays}
    around = _pair_around(named, tensors, theirs)
    shapes = {name: tuple(weight.shape) for name, weight in wanted.items()}
    found = {
        ours: naming.our_array(
            tensors.arrays[name], len(shapes[ours]) if ours in shapes else -1, ours.rpartition("/")[0]
        )
        for ours, name in theirs.items()
        if ours not in around.taken
    }
    epsilons = _epsilons(found, tensors, naming)
    _fold_biases(found, shapes)
    top = _top(network, shapes)
    skipped = [name for name in found if top.match(name) and name not in shapes]
    auxiliary = _auxiliary(network)
    if not any(map(auxiliary, found)) or not any(map(auxiliary, shapes)):  # one of both has no auxiliary classifiers
        skipped += [name for name in {**found, **shapes} if auxiliary(name)]
    if skip_head:
        skipped += [name for name in shapes if name.startswith(_HEADS) or auxiliary(name)]
    ignored = set(skipped)
    missing = [name for name in shapes if name not in found and name not in ignored]
    unused = [name for name in found if name not in shapes and name not in ignored]
    fitting = [name for name in shapes if name in found and name not in ignored]
    mismatched = [name for name in fitting if found[name].shape != shapes[name]]
    report = LoadReport(
        naming.name,
        len(fitting) - len(mismatched) + len(around.pairs),
        (*skipped, *around.skipped),
        (*missing, *around.missing),
        (*(theirs[name] for name in unused), *around.unused),
        tuple(f"{name}: {found[name].shape} there, {shapes[name]} here" for name in mismatched) + around.mismatched,
    )
    if strict and not report.complete:
        raise MisfitError(_refusal(model, tensors, naming, report), report)
    found = {name: found[name] for name in fitting if name not in mismatched}
    _match_epsilons(network, found, epsilons)
    tensors.arrays.clear()  # free each array once it is assigned, so that the weights are not held twice
    for name in list(found):
        _assign(wanted[name], found.pop(name))
    for weight, array in around.pairs:
        _assign(weight, array)
    _take_record(network, tensors, report)
    return report


def _top(network: keras.Model, names: Iterable[str]) -> re.Pattern[str]:
    """The names of the classifier's weights. Without a classifier, those of the hidden layers before it too."""
    architecture = getattr(network, "architecture", None)
    layers = registry.constructor_of(architecture["constructor"]).facts.family.head_layers if architecture else ""
    if not layers or any(name.startswith(HEAD) for name in names):
        return re.compile(re.escape(HEAD))
    return re.compile(rf"{re.escape(HEAD)}|({layers})/")


def _auxiliary(network: keras.Model) -> Callable[[str], Any]:
    """A function that tells whether a name is that of an auxiliary classifier's weight."""
    architecture = getattr(network, "architecture", None)
    begin = registry.constructor_of(architecture["constructor"]).facts.family.auxiliary_layers if architecture else ""
    return re.compile(begin).match if begin else lambda _: None


def _assign(weight: Any, array: np.ndarray) -> None:
    weight.assign(np.ascontiguousarray(array, "float32") if array.dtype.kind == "f" else array)


@dataclass(frozen=True)
class _Around:
    """Loading result for the layers around the network: weights paired with new values, and names for the report."""

    pairs: tuple[tuple[Any, np.ndarray], ...] = ()
    taken: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()


def _pair_around(named: NamedWeights, tensors: Tensors, theirs: Mapping[str, str]) -> _Around:
    """Pair the weights around the network with tensors of such layers in the source.

    If only the model or only the source has such layers, they stay unchanged. If both have them, layers are paired by name. If all
    names differ, layers are paired in order, because Keras numbers its default names (``conv2d``, ``conv2d_1``).

    Layers that do not fit are misfits if the network is nested in the model. If the model is the network itself (built on an
    ``input_tensor``), these layers do not belong to it and stay unchanged.

    Args:
        named: The weights of the model.
        tensors: The source.
        theirs: This library's name to the source's name, for tensors that the source does not mark as around its network.
    """
    here = named.around
    there = {
        layer: [(f"{layer}/{index}", array) for index, array in enumerate(arrays)]
        for layer, arrays in tensors.around.items()
    }
    by_name: tuple[str, ...] = ()
    if here and not there:  # the source does not mark layers around its network
        known = {layer: names_of(weights) for layer, weights in here.items()}
        by_name = tuple(name for names in known.values() for name in names if name in theirs)
        there = {
            layer: [(name, tensors.arrays[theirs[name]]) for name in names if name in theirs]
            for layer, names in known.items()
            if any(name in theirs for name in names)
        }
    left = _Around(
        skipped=(
            *(name for entries in there.values() for name, _ in entries),
            *(name for weights in here.values() for name in names_of(weights)),
        )
    )
    if not here or not there:
        return left
    same = set(here) & set(there)
    pairs = {layer: layer for layer in here if layer in there}
    if not same and len(here) == len(there):
        pairs = dict(zip(here, there, strict=True))
    fitting: list[tuple[Any, np.ndarray]] = []
    missing: list[str] = []
    mismatched: list[str] = []
    used: set[str] = set()
    for layer, weights in here.items():
        entries = there.get(pairs.get(layer, ""), [])
        used.update(name for name, _ in entries[: len(weights)])
        for index, (name, weight) in enumerate(zip(names_of(weights), weights, strict=True)):
            if index >= len(entries):
                missing.append(name)
            elif entries[index][1].shape != tuple(weight.shape):
                mismatched.append(f"{name}: {entries[index][1].shape} there, {tuple(weight.shape)} here")
            else:
                fitting.append((weight, entries[index][1]))
    unused = [name for entries in there.values() for name, _ in entries if name not in used]
    if (missing or unused or mismatched) and named.is_network:
        return dataclasses.replace(left, taken=by_name)
    return _Around(tuple(fitting), by_name, (), tuple(missing), tuple(unused), tuple(mismatched))


def _check_kind(model: keras.Model, tensors: Tensors, naming: Naming, wanted: Iterable[str]) -> None:
    """Refuse weights of another family. `wanted` are the names of the model's own weights."""
    architecture = getattr(model, "architecture", None)
    if not architecture:
        return
    own = f"{model.name} is a {architecture['constructor']} of family {architecture['family']}."
    if naming.families and architecture["family"] not in naming.families:
        raise InputError(f"{model.name}: the tensors in {tensors.origin} have the names of {naming.name}, but {own}")
    recorded = (tensors.record or {}).get("architecture")
    if recorded and recorded["family"] != architecture["family"]:
        raise InputError(
            f"{model.name}: {tensors.origin} was saved from a {recorded['constructor']} of family {recorded['family']}, but {own}"
        )
    theirs, ours = recognition.kind_of(filter(None, map(naming.ours, tensors.arrays))), recognition.kind_of(wanted)
    if theirs and ours and theirs != ours:
        raise InputError(f"{model.name}: the tensors in {tensors.origin} are those of a {theirs}, but {own}")
    _check_scaling(model, tensors)


def check_options(model: keras.Model, needed: Mapping[str, Any], origin: str) -> None:
    """Refuse weights of a network with other options. It computes something else, even if names and shapes fit."""
    architecture = getattr(model, "architecture", None)
    if not architecture:
        return
    spec = spec_of(architecture)
    needed = {name: as_given(value) for name, value in needed.items() if hasattr(spec, name) and matters(name, spec)}
    wrong = {name: value for name, value in needed.items() if getattr(spec, name) != value}
    if wrong:
        own = ", ".join(f"{name}={getattr(spec, name)!r}" for name in wrong)
        theirs = ", ".join(f"{name}={value!r}" for name, value in wrong.items())
        raise InputError(
            f"{model.name}: the weights in {origin} need {theirs}, but it was built with {own}, which computes something else. "
            f"{way_to(architecture, wrong)}"
        )


def _check_pooled_shortcuts(model: keras.Model, tensors: Tensors, naming: Naming) -> None:
    """Refuse another library's strided projections for a network that pools before its projections.

    Names and shapes are the same in both cases. Published networks that pool have separate namings, which need ``shortcut="D"``.
    """
    architecture = getattr(model, "architecture", None)
    ours = (tensors.record or {}).get("architecture") or naming is naming_tables.KERAS
    if not architecture or ours:
        return
    if getattr(spec_of(architecture), "shortcut", None) == "D" and naming.needs.get("shortcut") != "D":
        raise InputError(
            f"{model.name}: the projections in {tensors.origin} ({naming.name}) stride, but it was built with shortcut='D', which pools "
            f"before them. {way_to(architecture, {'shortcut': 'B'})}"
        )


def _check_scaling(model: keras.Model, tensors: Tensors) -> None:
    """Refuse weights that need another input scaling than the one built into the model."""
    from keras_deepnets.models import includes_preprocessing, scaling_of
    from keras_deepnets.scaling import Scaling

    wanted = (tensors.record or {}).get("scaling")
    if not wanted or not includes_preprocessing(model):
        return
    own, wanted = scaling_of(model), Scaling.from_dict(wanted)
    if own is not None and (own.mean, own.std, own.channel_order) != (wanted.mean, wanted.std, wanted.channel_order):
        raise InputError(
            f"{model.name} scales its input by mean {own.mean}, std {own.std}, {own.channel_order}, but {tensors.origin} needs mean "
            f"{wanted.mean}, std {wanted.std}, {wanted.channel_order}; build it with include_preprocessing=keras_deepnets.{wanted!r}."
        )


def needs(tensors: Tensors, naming: Naming) -> dict[str, Any]:
    """The options that a network needs for these tensors."""
    recorded = (tensors.record or {}).get("architecture")
    if not recorded:
        return dict(naming.needs) | recognition.told_by(tensors.arrays, naming) | dict(tensors.needs)
    spec = spec_of(recorded)
    silent = {option: getattr(spec, option) for option in _SILENT if hasattr(spec, option)}
    return dict(naming.needs) | dict(tensors.needs) | silent


def matters(option: str, spec: Any) -> bool:
    """Whether the option changes what a network with this spec computes."""
    if option == "downsample":
        return getattr(spec, "block", None) == "bottleneck"
    return option != "project_first" or getattr(spec, "shortcut", None) != "C"


def as_given(value: Any) -> Any:
    """Convert an option from JSON, which has no tuples, to its Python form."""
    return tuple(value) if isinstance(value, list) else value


def _fold_biases(found: dict[str, np.ndarray], shapes: Mapping[str, Any]) -> None:
    """Fold a bias before batch normalisation into the moving mean. This is exact; convolutions here have no biases."""
    for name in [name for name in found if name.endswith("_conv/bias") and name not in shapes]:
        mean = name.replace("_conv/bias", "_bn/moving_mean")
        if mean in found and found[mean].shape == found[name].shape:
            found[mean] = found[mean] - found.pop(name)


def _epsilons(found: Mapping[str, Any], tensors: Tensors, naming: Naming) -> dict[str, float]:
    """Return batch normalisation layer to the source's epsilon, where known. ``""`` means all other layers."""
    applications = not tensors.record and recognition.has_applications_biases(found)
    default = naming.epsilon or (APPLICATIONS_EPSILON if applications else None)
    return ({"": default} if default else {}) | dict(tensors.epsilons)


def _match_epsilons(model: keras.Model, found: dict[str, np.ndarray], epsilons: Mapping[str, float]) -> None:
    """Add the difference between the source's epsilon and the model's to the moving variances. The outputs stay the same."""
    if not epsilons:
        return
    from keras_deepnets.layers.normalization import EPSILON
    from keras_deepnets.models import flat_layers, layer_prefix

    prefix = layer_prefix(model)
    own = {layer.name.removeprefix(prefix): layer.epsilon for layer in flat_layers(model) if hasattr(layer, "epsilon")}
    for name in [name for name in found if name.endswith("/moving_variance")]:
        layer = name.partition("/")[0]
        theirs = epsilons.get(layer, epsilons.get(""))
        difference = 0.0 if theirs is None else theirs - own.get(layer, EPSILON)
        if difference:
            found[name] = np.maximum(found[name] + np.float32(difference), 0)


def _take_record(model: keras.Model, tensors: Tensors, report: LoadReport) -> None:
    """Take over the labels and the input scaling of the source."""
    from keras_deepnets.models import DeepNet, includes_preprocessing
    from keras_deepnets.scaling import Scaling

    record = tensors.record
    if record is None or not isinstance(model, DeepNet):
        return
    if record.get("scaling") and not includes_preprocessing(model):
        model.scaling = Scaling.from_dict(record["scaling"])
    labels = record.get("labels")
    head = not any(name.startswith(HEAD) for name in report.skipped)
    if labels and head and len(labels) == model.classes:
        model.labels = labels


def _refusal(model: keras.Model, tensors: Tensors, naming: Naming, report: LoadReport) -> str:
    problems = [
        f"{title}: {_listed(names)}"
        for title, names in (
            ("missing", report.missing),
            ("unused", report.unused),
            ("of another shape", report.mismatched),
        )
        if names
    ]
    heads = all(text.startswith(_HEADS) for text in (*report.missing, *report.mismatched)) and not report.unused
    hint = " Only the classifier differs; skip_head=True keeps the network's own." if heads else _hint_of_nested(model)
    return f"{model.name}: the weights in {tensors.origin} ({naming.name}) do not fit; {'; '.join(problems)}.{hint}"


def _hint_of_nested(model: keras.Model) -> str:
    """Hint at nested networks that the weights may belong to."""
    from keras_deepnets.models import networks_in

    networks = networks_in(model)
    if not networks or networks == [model]:
        return ""
    names = " or ".join(repr(network.name) for network in networks)
    return f" Load the weights of a network that is nested in it into that network: the layer {names}."


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"


def as_record(model: keras.Model) -> dict[str, Any]:
    """The record to store with the weights of `model`: its network's record, and the weights around the network in order."""
    from keras_deepnets.records import FORMAT_VERSION

    named = named_weights(model)
    record = dict(getattr(named.network, "_record", None) or {"architecture": None, "labels": None, "scaling": None})
    head = named.own.get(f"{HEAD}kernel")
    classes = None if head is None else int(head.shape[-1])
    record = {"format": FORMAT_VERSION, **record, "classes": classes, "input_shape": list(model.input_shape[1:])}
    if named.around:
        record["around"] = {layer: names_of(weights) for layer, weights in named.around.items()}
    return record
