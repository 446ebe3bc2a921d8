"""What lies beside an artifact for people and programs: what it is and how to feed it."""

from __future__ import annotations

import datetime
import platform
from typing import TYPE_CHECKING, Any

from keras_deepnets.scaling import Scaling

if TYPE_CHECKING:
    import keras

    from keras_deepnets.export._classifier import Classifier


def describe(original: keras.Model, classifier: Classifier) -> dict[str, Any]:
    """The facts of an artifact as JSON values.

    Args:
        original: the model as it was given.
        classifier: the model as it is exported.
    """
    from keras_deepnets.models import scaling_of

    scaling = scaling_of(original)
    return {
        "name": original.name,
        "architecture": getattr(original, "architecture", None),
        "parameters": original.count_params(),
        "labels": list(classifier.labels),
        "input": {
            "height": classifier.height,
            "width": classifier.width,
            "channels": classifier.channels,
            "channel_order": "RGB" if classifier.channels == 3 else "grey",
            "values": "0-255; scaled inside the artifact",
            "crop_fraction": classifier.crop_fraction,
            "interpolation": classifier.interpolation,
        },
        "scaling": scaling.to_dict() if isinstance(scaling, Scaling) else None,
        "batch_normalization": "folded" if classifier.folded else "kept",
        "compute": "float32",
        "software": software(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def software() -> dict[str, str]:
    """Versions of what made the artifact."""
    from importlib import metadata

    import keras
    import tensorflow as tf

    return {
        "keras_deepnets": metadata.version("keras-deepnets"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }
