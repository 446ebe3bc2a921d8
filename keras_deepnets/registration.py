"""Register the layers, optimizer, schedules and loss of this package with Keras, whichever of the two is imported first.

`import keras_deepnets` must not import Keras, because the command line lists models without it. After that import, however,
`keras.saving.load_model` must know all registered objects, because the saved model may be compiled. If Keras is loaded, the objects are
registered at once. Otherwise, they are registered right after the first import of Keras.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

from keras_deepnets.lazy import WAITING


def register() -> None:
    """Imports the modules that define serialisable objects."""
    from keras_deepnets import layers, models
    from keras_deepnets.training import losses, optimizers, schedules  # noqa: F401  (the import registers them)

    layers.register()
    if hasattr(models, "DeepNet"):
        register_detection()
    else:  # the import of `models` is in progress; it imported Keras
        WAITING.append(register_detection)


def register_detection() -> None:
    """Imports the modules that define the serialisable objects of detectors."""
    from keras_deepnets.detection import (  # noqa: F401
        anchors,
        detections,
        detector,
        necks,
        proposals,
        region_align,
        training_model,
    )


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras as usual, and registers the objects of this package after Keras' module has run."""

    def find_spec(self, fullname: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_then_register(module: ModuleType) -> None:
            run(module)
            register()

        spec.loader.exec_module = run_then_register  # type: ignore[method-assign]
        return spec


def register_with_keras() -> None:
    """Registers at once if Keras is loaded, otherwise right after its first import."""
    keras = sys.modules.get("keras")
    # While Keras itself is being imported, some of its names are still missing.
    if keras is not None and hasattr(keras, "saving"):
        register()
    else:
        sys.meta_path.insert(0, _AfterKeras())
