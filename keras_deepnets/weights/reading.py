"""Read weight files into names and arrays. This does not need Keras, and it needs torch only for torch's pickles."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.records import check_format
from keras_deepnets.weights import formats
from keras_deepnets.weights.names import before_of
from keras_deepnets.weights.naming import BOOKKEEPING, plain_name

RECORD = "keras_deepnets"
"""Key of the record in a file: in safetensors' metadata, or as an HDF5 attribute."""

TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt", ".th", ".bin")
SUFFIXES = (".weights.h5", ".keras", ".h5", ".hdf5", ".safetensors", *TORCH_SUFFIXES)

APPLICATIONS_EPSILON = 1.001e-5
"""Batch normalisation epsilon of the ResNets and DenseNets in keras.applications.

Their weights are the ones in HDF5 files of the old format.
"""

_NESTED = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema")
"""Keys under which training scripts save a network's tensors, by priority."""

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_LINEAR = ("kernel", "bias")
_RECTIFIER = ("alpha",)


class DamagedFileError(InputError):
    """A file that does not match its suffix or is incomplete."""


@dataclass(frozen=True)
class Tensors:
    """The contents of a weight file.

    Attributes:
        arrays: Name to array, in the naming and layout of the source.
        origin: Description of the source for messages, e.g. the file.
        record: The record that `save_weights` stores with the weights (``architecture``, ``classes``, ``labels``, ``scaling``,
            ``input_shape``), or None.
        epsilons: Batch normalisation layer to its epsilon, if the source has them. ``""`` means all other layers.
        needs: Options that the network needs, if the source has them.
        around: Layers around the network, if the source has them: name of the layer to its arrays.
    """

    arrays: dict[str, np.ndarray]
    origin: str
    record: Mapping[str, Any] | None = None
    epsilons: Mapping[str, float] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, list[np.ndarray]] = field(default_factory=dict)


def check_path(owner: str, source: Any) -> Path:
    """Check the path of a weight file before anything is built, and return it. Raise InputError if it is invalid."""
    path = Path(source)
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{owner}: weights {str(source)!r} must be a file of type {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"{owner}: there is no weights file {str(path)!r}.")
    return path


def read(source: Any) -> Tensors:
    """Read the tensors of a file, of a Keras model, or of a mapping of arrays (NumPy, torch, or anything array-like).

    Raises:
        InputError: The file cannot be read. The message gives the reason.
    """
    if isinstance(source, Tensors):
        return source
    if isinstance(source, Mapping):
        return Tensors(_plain(source.items()), "the mapping")
    if hasattr(source, "weights") and hasattr(source, "layers"):
        return _of_model(source)
    path = check_path("load_weights", source)
    name = path.name.lower()
    try:
        if name.endswith(".safetensors"):
            return _safetensors(path)
        if name.endswith(TORCH_SUFFIXES):
            return _torch(path)
        if name.endswith(".keras"):
            return _keras(path)
        return _hdf5(path)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        if isinstance(error, InputError):
            raise
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        system = (
            isinstance(error, OSError) and error.errno is not None
        )  # an error of the system (no permission, no such device), not a damaged file
        kind = InputError if system else DamagedFileError
        raise kind(f"{path} cannot be read as a weights file: {line}; is it complete?") from error


def _plain(items: Any) -> dict[str, np.ndarray]:
    """Return name to array, with wrapper prefixes and torch's bookkeeping tensors removed."""
    found = {}
    for name, value in items:
        if not str(name).endswith(BOOKKEEPING):
            found[plain_name(str(name))] = _array(value)
    return found


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        value = value.numpy()
    array = np.asarray(value)
    return array.astype("float32") if array.dtype.kind not in "fiu" else array


def _safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            record = (file.metadata() or {}).get(RECORD)
            arrays = {name: _entry(file, path, name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    record = _record(record, path)
    around = {
        layer: [arrays.pop(name) for name in names] for layer, names in ((record or {}).get("around") or {}).items()
    }
    return Tensors(_plain(arrays.items()), str(path), record, around=around)


def _entry(file: Any, path: Path, name: str) -> np.ndarray:
    if file.get_slice(name).get_dtype() != "BF16":
        return file.get_tensor(name)
    with path.open("rb") as raw:  # NumPy has no bfloat16, which is the upper half of a float32
        size = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(size))[name]
        begin, end = entry["data_offsets"]
        raw.seek(8 + size + begin)
        bits = np.frombuffer(raw.read(end - begin), "<u2").astype("<u4") << 16
    return bits.view("<f4").reshape(entry["shape"])


def _record(text: Any, path: Path) -> dict[str, Any] | None:
    if text is None:
        return None
    record = json.loads(text)
    check_format(record, str(path))
    return record


def _torch(path: Path) -> Tensors:
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"{path} is a torch pickle, and torch is not installed: `pip install 'keras-deepnets[torch]'`."
        )
    import torch

    formats.check(path, path.name)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise
        raise InputError(
            f"{path} is refused: it is a pickle that holds more than tensors, which could run code. "
            "Save only `model.state_dict()`, as .pth or .safetensors."
        ) from error
    found = _state_dict(loaded)
    if found is None:
        raise InputError(f"{path} holds no named tensors; save `model.state_dict()`.")
    return Tensors(_plain((k, v) for k, v in found.items() if hasattr(v, "detach")), str(path))


def _state_dict(loaded: Any) -> Mapping[str, Any] | None:
    """Find the state dict in the output of a training script, which may also hold optimizer state and single tensors."""
    if not isinstance(loaded, Mapping):
        return None
    for key in _NESTED:
        found = _state_dict(loaded.get(key))
        if found is not None:
            return found
    return loaded if any(hasattr(value, "detach") for value in loaded.values()) else None


def _keras(path: Path) -> Tensors:
    import h5py

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "model.weights.h5" not in names or "config.json" not in names:
            raise ValueError("it holds no config.json and model.weights.h5")
        config = json.loads(archive.read("config.json"))
        network, around, nested = _network_config(config)
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
            arrays, others = _sorted_variables(file, path, around, _prefix(network.get("record")), nested)
    layers = list(_layer_configs({"config": network}))
    record = network.get("record")
    if record is not None:
        check_format(record, str(path))
        kernel = arrays.get("predictions/kernel")
        shape = next((layer["batch_shape"][1:] for layer in layers if "batch_shape" in layer), None)
        record = record | {"classes": None if kernel is None else int(kernel.shape[-1]), "input_shape": shape}
    return Tensors(arrays, str(path), record, _epsilons(layers, _prefix(record)), around=others)


def _network_config(config: dict[str, Any]) -> tuple[dict[str, Any], list[str], bool]:
    """Return the config of this library's network in a model, the names of the layers around it, and whether it is nested.

    The names are in order. If the model contains none or several of these networks, the model itself counts as the network.
    """
    found = list(_recorded_configs(config))
    network: dict[str, Any] = found[0] if len(found) == 1 else config.get("config", {})
    before = before_of((network.get("record") or {}).get("architecture"))
    if network is config.get("config"):
        return network, before, False
    inside = {layer["name"] for layer in _layer_configs({"config": network})}
    others = [layer["name"] for layer in _layer_configs(config) if layer["name"] not in inside]
    return network, [*others, *before], True


def _recorded_configs(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of the outermost networks of this library."""
    inner = config.get("config") if isinstance(config, dict) else None
    if isinstance(inner, dict) and "record" in inner:
        yield inner
    elif isinstance(inner, dict):
        for layer in inner.get("layers", ()):
            yield from _recorded_configs(layer)


def _layer_configs(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the configs of layers, including those of nested models."""
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    if isinstance(inner, dict):
        if "name" in inner:
            yield inner
        for layer in inner.get("layers", ()):
            yield from _layer_configs(layer)


def _hdf5(path: Path) -> Tensors:
    import h5py

    with h5py.File(path, "r") as file:
        group = file.get("model_weights", file)
        if "layer_names" not in group.attrs:
            record = _record(file.attrs.get(RECORD), path)
            arrays, others = _sorted_variables(file, path, (record or {}).get("around") or (), _prefix(record))
            return Tensors(arrays, str(path), record, around=others)
        arrays = _with_our_head(dict(_legacy_variables(group)))
        config = file.attrs.get("model_config")
    layers = _layer_configs(json.loads(_text(config))) if config is not None else ()
    return Tensors(arrays, str(path), None, {"": APPLICATIONS_EPSILON} | _epsilons(layers))


def _legacy_variables(group: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the variables of a Keras 2 file, which has one group per layer: ``"conv1_conv/kernel"``."""
    for layer in map(_text, group.attrs["layer_names"]):
        for weight in map(_text, group[layer].attrs["weight_names"]):
            part = weight.rpartition("/")[2].partition(":")[0]
            yield f"{_layer_name(layer)}/{part}", np.asarray(group[layer][weight])


def _with_our_head(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the only dense layer to ``predictions``.

    In the published files of 2019, it is called ``probs`` or ``fc1000``. Keras matches layers by order and ignores the name.
    """
    dense = [name.rpartition("/")[0] for name, array in arrays.items() if name.endswith("/kernel") and array.ndim == 2]
    if len(dense) != 1:
        return arrays
    theirs = f"{dense[0]}/"
    return {f"predictions/{k.removeprefix(theirs)}" if k.startswith(theirs) else k: v for k, v in arrays.items()}


def _epsilons(layers: Iterable[Mapping[str, Any]], prefix: str = "") -> dict[str, float]:
    """Return batch normalisation layer to epsilon, from layer configs. `prefix` is removed from the names."""
    return {_layer_name(layer["name"]).removeprefix(prefix): layer["epsilon"] for layer in layers if "epsilon" in layer}


def _prefix(record: Mapping[str, Any] | None) -> str:
    """The ``layer_prefix`` of the saved network, which precedes its layer names in Keras files."""
    architecture = (record or {}).get("architecture") or {}
    return architecture.get("options", {}).get("layer_prefix", "")


def _layer_name(name: str) -> str:
    """Replace the slashes in a layer's name, which Keras 2 allowed (``conv1/bn``)."""
    return name.replace("/", "_")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _sorted_variables(
    file: Any, path: Path, around: Iterable[str], prefix: str, nested: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Sort the variables of a Keras 3 file: the network's by name without prefix, and those of layers around it by layer.

    Args:
        file: Open HDF5 file.
        path: Path of the file for messages.
        around: Names of the layers around the network, in order.
        prefix: Prefix of the network's layer names.
        nested: Whether the network is nested in the model. All layers outside it are then around it.

    Raises:
        InputError: Two layers have the same name. This can happen if a model contains several networks.
    """
    own: dict[str, np.ndarray] = {}
    others: dict[str, list[np.ndarray]] = {layer: [] for layer in around}
    taken: Collection[Any] | None
    for place, layer, item in _groups(file):
        outside = layer in others or (nested and _NETWORK not in place.split("/"))
        if outside:
            taken, others[layer] = others.get(layer), [np.asarray(item[key]) for key in sorted(item, key=_in_order)]
        else:
            variables = dict(_variables(layer.removeprefix(prefix), item))
            taken = own.keys() & variables.keys()
            own.update(variables)
        if taken:
            raise InputError(
                f"{path}: two of its layers are called {layer!r}; load it with keras.saving.load_model and give "
                "load_weights the network in it, model.get_layer(name)."
            )
    return own, {layer: arrays for layer, arrays in others.items() if arrays}


_NETWORK = "deep_net"
"""Keras' name for a network of this library in file paths, derived from its class."""


def _in_order(key: str) -> tuple[int, str]:
    return len(key), key


def _groups(file: Any) -> Iterator[tuple[str, str, Any]]:
    """Yield path, name and group of each layer with variables in a Keras 3 file. Each group stores its layer's name."""
    found: dict[str, Any] = {}

    def visit(path: str, item: Any) -> None:
        if path.rpartition("/")[2] == "vars" and len(item) and not path.startswith(("optimizer", "metrics", "loss")):
            if "name" not in item.attrs:
                raise ValueError(
                    "its layers have no names (it was written by an old version of Keras); save it again as .keras"
                )
            found[path] = item

    file.visititems(visit)
    for path, item in found.items():
        if "seed_generator" not in path:
            yield path, _text(item.attrs["name"]), item


def _variables(layer: str, item: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the variables of a layer's group: ``"conv1_conv/kernel"``.

    In the file, variables have numbers, or names if the layer is a block layer of this library.
    """
    if all(key.isdigit() for key in item):
        norm = len(item) == len(_NORM) or layer.endswith("_gn")
        parts: tuple[str, ...] = _NORM if norm else _RECTIFIER if layer.endswith("_prelu") else _LINEAR
        if len(item) > len(parts) or len(item) == 3:
            raise ValueError(f"layer {layer!r} has {len(item)} variables and is not a known layer")
        for index, part in enumerate(parts[: len(item)]):
            yield f"{layer}/{part}", np.asarray(item[str(index)])
    else:
        for key in item:
            inner, _, part = key.rpartition(".")
            yield f"{layer.removesuffix('_out')}_{inner}/{part}", np.asarray(item[key])


def _of_model(model: Any) -> Tensors:
    from keras_deepnets.models import flat_layers, layer_prefix
    from keras_deepnets.weights.names import named_weights

    named = named_weights(model)
    prefix = layer_prefix(named.network)
    epsilons = {
        layer.name.removeprefix(prefix): layer.epsilon
        for layer in flat_layers(named.network)
        if hasattr(layer, "epsilon")
    }
    return Tensors(
        {name: _numbers(weight) for name, weight in named.own.items()},
        f"the model {model.name!r}",
        getattr(named.network, "_record", None),
        epsilons,
        around={layer: list(map(_numbers, weights)) for layer, weights in named.around.items()},
    )


def _numbers(weight: Any) -> np.ndarray:
    return np.asarray(weight.numpy() if hasattr(weight, "numpy") else weight)
