"""Registers our layers, optimizer, schedules and loss with Keras once both packages are there, in whichever order they are imported.

`import keras_deepnets` must not import Keras (the command line lists models without it), yet after it `keras.saving.load_model`
must know all of them, for a model may have been saved compiled. If Keras is loaded, they are registered at once; if not, right
after Keras is first imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from types import ModuleType


def register() -> None:
    """Imports the modules that define serialisable objects."""
    from keras_deepnets import layers, models  # noqa: F401  (importing registers)
    from keras_deepnets.training import losses, optimizers, schedules  # noqa: F401

    layers.register()


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds Keras as usual, and registers our layers after its module has run."""

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
    """Registers now if Keras is loaded, else as soon as it is."""
    keras = sys.modules.get("keras")
    # While Keras itself is still being imported its names are not all there.
    if keras is not None and hasattr(keras, "saving"):
        register()
    else:
        sys.meta_path.insert(0, _AfterKeras())
