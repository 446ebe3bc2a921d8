"""The model card next to an artifact: for people and programs, what the artifact is and how to feed it."""

from __future__ import annotations

import datetime
import hashlib
import math
import numbers
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import digest
from keras_deepnets.scaling import Scaling
from keras_deepnets.versions import version

if TYPE_CHECKING:
    import keras

    from keras_deepnets.export.classifier import Classifier


def describe(original: keras.Model, classifier: Classifier) -> dict[str, Any]:
    """The description of an artifact as JSON values.

    Args:
        original: The model as the caller gave it.
        classifier: The model in its exported form.
    """
    from keras_deepnets.export.classifier import unscaled
    from keras_deepnets.models import without_auxiliary

    original = without_auxiliary(original)
    view = {
        "height": classifier.height,
        "width": classifier.width,
        "channels": classifier.channels,
        "channel_order": "RGB" if classifier.channels == 3 else "grey",
        "values": "0-255; not scaled: it is not known how"
        if unscaled(original)
        else "0-255; scaled inside the artifact",
        "crop_fraction": classifier.crop_fraction,
        "interpolation": classifier.interpolation,
    }
    return common(original, classifier.labels, view, classifier.folded)


def common(original: keras.Model, labels: Sequence[str], view: dict[str, Any], folded: bool) -> dict[str, Any]:
    """The description of an artifact of any task.

    Args:
        original: The model as the caller gave it.
        labels: Class names.
        view: The entry ``"input"``: the images that the artifact takes.
        folded: Whether batch normalisation is folded.
    """
    from keras_deepnets.models import scaling_of

    scaling = scaling_of(original)
    return {
        "name": original.name,
        "architecture": getattr(original, "architecture", None),
        "parameters": original.count_params(),
        "labels": list(labels),
        "input": view,
        "scaling": scaling.to_dict() if isinstance(scaling, Scaling) else None,
        "batch_normalization": "folded" if folded else "kept",
        "compute": "float32",
        "software": software(),
        "created": now(),
    }


def weights(model: keras.Model) -> dict[str, Any]:
    """The number of a model's weights, a hash that identifies them, and the card or file that the model was built from.

    The hash is of the bytes of the weights, in the model's order. The card or file is the one before any training.
    """
    import numpy as np

    found = hashlib.sha256()
    for variable in model.weights:
        found.update(np.asarray(variable).tobytes())
    built_with = (getattr(model, "architecture", None) or {}).get("weights")
    return {"count": model.count_params(), "sha256": found.hexdigest(), "built_with": built_with}


def measured(accuracy: float | Mapping[str, Any] | None) -> float | dict[str, Any] | None:
    """Convert an accuracy to JSON values: NumPy numbers and scalar tensors become Python numbers.

    Raises:
        InputError: The accuracy is neither a number nor a mapping from names to numbers and strings.
    """
    if isinstance(accuracy, Mapping):
        return {str(name): value if isinstance(value, str) else _number(value) for name, value in accuracy.items()}
    return None if accuracy is None else _number(accuracy)


def _number(value: Any) -> float | int:
    try:
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"accuracy: {value!r} is not a number that a model card can hold; give a number, or several by name."
        )
    return number


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder and its subfolders, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest(path) for path in paths}


def now() -> str:
    """The current time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def software() -> dict[str, str | None]:
    """Versions of the software that made the artifact."""
    import keras
    import tensorflow as tf

    return {
        "keras_deepnets": version("keras-deepnets"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
