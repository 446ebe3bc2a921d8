"""Reading weight files into names and arrays. Keras is not needed for it, torch only for torch's own pickles."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
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
"""Where files keep the record: safetensors' metadata, an attribute of HDF5."""

TORCH_SUFFIXES = (".pth", ".pth.tar", ".pt", ".th", ".bin")
SUFFIXES = (".weights.h5", ".keras", ".h5", ".hdf5", ".safetensors", *TORCH_SUFFIXES)

APPLICATIONS_EPSILON = 1.001e-5
"""BN epsilon of keras.applications' ResNets and DenseNets, whose weights are the ones in HDF5 files of the old format."""

_NESTED = ("state_dict", "model_state_dict", "model", "net", "state_dict_ema")
"""What training scripts call a network's tensors, those first that count."""

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_LINEAR = ("kernel", "bias")


class DamagedFileError(InputError):
    """A file that is not what its name says, or not all of it."""


@dataclass(frozen=True)
class Tensors:
    """The contents of a weight file.

    Attributes:
        arrays: name to array, in the naming and layout of whoever wrote it.
        origin: the file or whatever it was, for messages.
        record: what `save_weights` keeps beside the numbers (``architecture``, ``classes``, ``labels``, ``scaling``,
            ``input_shape``), or None.
        epsilons: BN layer to its epsilon, where the source tells; ``""`` stands for all others.
        needs: options that the network must have, where the source tells.
        around: of the layers around the network, where the source tells: name of the layer to its arrays.
    """

    arrays: dict[str, np.ndarray]
    origin: str
    record: Mapping[str, Any] | None = None
    epsilons: Mapping[str, float] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, list[np.ndarray]] = field(default_factory=dict)


def check_path(owner: str, source: Any) -> Path:
    """The path of a weight file, checked before anything is built. Raises InputError naming the rule."""
    path = Path(source)
    if not path.name.lower().endswith(SUFFIXES):
        raise InputError(f"{owner}: weights {str(source)!r} must be a file of type {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise InputError(f"{owner}: there is no weights file {str(path)!r}.")
    return path


def read(source: Any) -> Tensors:
    """The tensors of a file, of a Keras model, or of a mapping of arrays (NumPy's, torch's or anything that becomes one).

    Raises:
        InputError: the file cannot be read; the message says what is wrong with it.
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
        )  # no permission, no such device: not the file's fault
        kind = InputError if system else DamagedFileError
        raise kind(f"{path} cannot be read as a weights file: {line}; is it complete?") from error


def _plain(items: Any) -> dict[str, np.ndarray]:
    """Names without wrappers' prefixes and arrays, without torch's bookkeeping."""
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
    with path.open("rb") as raw:  # NumPy has no bfloat16: the upper half of a float32
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
            f"{path} is refused: it is a pickle with more than tensors in it, which could run code. "
            "Save `model.state_dict()` alone, as .pth or .safetensors."
        ) from error
    found = _state_dict(loaded)
    if found is None:
        raise InputError(f"{path} holds no tensors by name; save `model.state_dict()`.")
    return Tensors(_plain((k, v) for k, v in found.items() if hasattr(v, "detach")), str(path))


def _state_dict(loaded: Any) -> Mapping[str, Any] | None:
    """The names and tensors in what a training script saved, which may lie beside an optimiser's state and single tensors."""
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
    """The config of the one network of ours in a model's, names of layers around it in order, and whether it is nested.

    A model that has none, or several, is taken as a network.
    """
    found = list(_recorded_configs(config))
    network = found[0] if len(found) == 1 else config.get("config", {})
    before = before_of((network.get("record") or {}).get("architecture"))
    if network is config.get("config"):
        return network, before, False
    inside = {layer["name"] for layer in _layer_configs({"config": network})}
    others = [layer["name"] for layer in _layer_configs(config) if layer["name"] not in inside]
    return network, [*others, *before], True


def _recorded_configs(config: Any) -> Iterator[dict[str, Any]]:
    """The configs of networks of ours, the outermost ones."""
    inner = config.get("config") if isinstance(config, dict) else None
    if isinstance(inner, dict) and "record" in inner:
        yield inner
    elif isinstance(inner, dict):
        for layer in inner.get("layers", ()):
            yield from _recorded_configs(layer)


def _layer_configs(config: Any) -> Iterator[dict[str, Any]]:
    """The configs of layers, those of nested models too."""
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
    """The variables of a file of Keras 2, a group a layer: ``"conv1_conv/kernel"``."""
    for layer in map(_text, group.attrs["layer_names"]):
        for weight in map(_text, group[layer].attrs["weight_names"]):
            part = weight.rpartition("/")[2].partition(":")[0]
            yield f"{_layer_name(layer)}/{part}", np.asarray(group[layer][weight])


def _with_our_head(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with the one dense layer called ``predictions``.

    The published files are of 2019, when it was ``probs`` or ``fc1000``; Keras goes by the order of layers and asks for no name.
    """
    dense = [name.rpartition("/")[0] for name, array in arrays.items() if name.endswith("/kernel") and array.ndim == 2]
    if len(dense) != 1:
        return arrays
    theirs = f"{dense[0]}/"
    return {f"predictions/{k.removeprefix(theirs)}" if k.startswith(theirs) else k: v for k, v in arrays.items()}


def _epsilons(layers: Iterable[Mapping[str, Any]], prefix: str = "") -> dict[str, float]:
    """BN layer to its epsilon, of the configs of layers whose names begin with `prefix`."""
    return {_layer_name(layer["name"]).removeprefix(prefix): layer["epsilon"] for layer in layers if "epsilon" in layer}


def _prefix(record: Mapping[str, Any] | None) -> str:
    """What Keras' files have before the names of the layers of the network that was saved: its ``layer_prefix``."""
    architecture = (record or {}).get("architecture") or {}
    return architecture.get("options", {}).get("layer_prefix", "")


def _layer_name(name: str) -> str:
    """A layer's name without slashes, which Keras 2 allowed in them (``conv1/bn``)."""
    return name.replace("/", "_")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _sorted_variables(
    file: Any, path: Path, around: Iterable[str], prefix: str, nested: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """The variables of a Keras 3 file: the network's by name, without its prefix; those of layers around it by layer.

    Args:
        file: HDF5, open.
        path: of the file, for messages.
        around: names of layers around the network, in order.
        prefix: of the names of the network's layers.
        nested: whether the network is nested in the model, and all that is not in it is around it.

    Raises:
        InputError: two layers have one name, as those of networks that are nested in one model may.
    """
    own: dict[str, np.ndarray] = {}
    others: dict[str, list[np.ndarray]] = {layer: [] for layer in around}
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
"""What Keras calls a network of ours in the paths of its files: its class."""


def _in_order(key: str) -> tuple[int, str]:
    return len(key), key


def _groups(file: Any) -> Iterator[tuple[str, str, Any]]:
    """The layers of a Keras 3 file that have variables: path, name and group of each. Groups carry their layer's name."""
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
    """The variables of a layer's group: ``"conv1_conv/kernel"``. They have numbers, or the names that our block layers give them."""
    if all(key.isdigit() for key in item):
        parts = _NORM if len(item) == len(_NORM) or layer.endswith("_gn") else _LINEAR
        if len(item) > len(parts) or len(item) == 3:
            raise ValueError(f"layer {layer!r} has {len(item)} variables and is none of those that are known")
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
