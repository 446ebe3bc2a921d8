"""Loading weights. Importing this module imports neither Keras nor TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras

SUFFIXES = (".weights.h5", ".keras")


def check_source(owner: str, source: Any) -> Path:
    """The path that `source` names, checked before anything is built. Raises InputError naming the rule."""
    path = Path(source)
    if not str(source).endswith(SUFFIXES):
        raise InputError(
            f"{owner}: weights={str(source)!r} is neither None nor the path of a {' or '.join(SUFFIXES)} file."
        )
    if not path.is_file():
        raise InputError(f"{owner}: there is no weights file {str(path)!r}.")
    return path


def load_weights(model: keras.Model, source: str | Path) -> None:
    """Loads a file's numbers into `model`: `.weights.h5` or `.keras`, saved from a network of the same architecture.

    Raises:
        ValueError: no such file, another format, or weights that do not fit; the model is then left as it was.
    """
    import keras

    path = check_source(model.name, source)
    if str(path).endswith(".keras"):
        try:
            other = keras.saving.load_model(path, compile=False)
        except Exception as error:
            raise InputError(f"{model.name}: {path} cannot be read as a Keras model: {_line(error)}") from error
        _copy(other, model, path)
        return
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:
        model.set_weights(before)
        raise InputError(f"{model.name}: the weights of {path} do not fit: {_line(error)}") from error


def _copy(source: keras.Model, target: keras.Model, path: Path) -> None:
    found = {weight.path: weight for weight in source.weights}
    wanted = {weight.path: weight for weight in target.weights}
    missing = [name for name in wanted if name not in found]
    unused = [name for name in found if name not in wanted]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name in found and tuple(found[name].shape) != tuple(weight.shape)
    ]
    problems = [
        f"{title}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for title, names in (("missing", missing), ("unused", unused), ("shapes", shapes))
        if names
    ]
    if problems:
        raise InputError(f"{target.name}: the weights of {path} do not fit; {'; '.join(problems)}.")
    for name, weight in wanted.items():
        weight.assign(found[name])


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
