"""Export under another backend of Keras: a process with TensorFlow loads the saved model and exports it."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from keras_deepnets.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")

MODEL, TASK, ANSWER = "model.keras", "task", "answer"
"""Files in the folder that both processes know."""

_CARRIED = ("labels", "scaling")
"""Attributes that people set on a model and that its file does not hold."""


def on_tensorflow(function: Callable[P, R]) -> Callable[P, R]:
    """Let an export function, whose first argument is the model, work under each backend of Keras.

    Under another backend than TensorFlow, the call runs in a second process on the CPU. The model goes there as a `.keras` file, so
    its layers must be registered. The other arguments are pickled. Errors of the second process are raised here.
    """
    first = next(iter(inspect.signature(function).parameters))

    @functools.wraps(function)
    def export(*args: P.args, **kwargs: P.kwargs) -> R:
        import keras

        model: Any = args[0] if args else kwargs.get(first)
        if keras.backend.backend() == "tensorflow" or not isinstance(model, keras.Model):
            return function(*args, **kwargs)
        given = {name: value for name, value in kwargs.items() if name != first}
        return _elsewhere(function, model, args[1:], given)

    return export


def _elsewhere(function: Callable[..., Any], model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    carried = {name: getattr(model, name, None) for name in _CARRIED}
    try:
        task = pickle.dumps((function.__module__, function.__name__, carried, args, kwargs))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(
            f"{function.__name__} runs in a process with TensorFlow, because Keras runs on {_backend()} here. One of its arguments "
            f"cannot go there ({error}); give paths or arrays."
        ) from None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / MODEL)
        (folder / TASK).write_bytes(task)
        path = os.pathsep.join(filter(None, sys.path))
        environment = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": path}
        code = f"from {__name__} import work; work({str(folder)!r})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ | environment,
            check=False,
        )
        if not (folder / ANSWER).exists():
            raise RuntimeError(
                f"The process with TensorFlow that exports {model.name} ended with status {done.returncode}."
            )
        failed, answer = pickle.loads((folder / ANSWER).read_bytes())
    if failed:
        raise answer
    return answer


def work(name: str) -> None:
    """Do the task of a folder in this process, and leave the result or the error there."""
    import keras

    folder = Path(name)
    try:
        module, function, carried, args, kwargs = pickle.loads((folder / TASK).read_bytes())
        model = keras.saving.load_model(folder / MODEL, compile=False)
        for attribute, value in carried.items():
            if value is not None:
                setattr(model, attribute, value)
        answer = False, getattr(importlib.import_module(module), function)(model, *args, **kwargs)
    except Exception as error:
        answer = True, _picklable(error)
    written = folder / f".{ANSWER}"
    written.write_bytes(pickle.dumps(answer))
    written.replace(folder / ANSWER)


def _picklable(error: Exception) -> Exception:
    """The error itself, or one of the nearest plain type with its message where it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return (
            InputError(str(error))
            if isinstance(error, InputError)
            else RuntimeError(f"{type(error).__name__}: {error}")
        )
    return error


def _backend() -> str:
    import keras

    return keras.backend.backend()
