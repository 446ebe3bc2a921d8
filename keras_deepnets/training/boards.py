"""What TensorBoard shows beside the curves: the hyperparameters of a run, and its final pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.training.run import RunFolder


def show_hyperparameters(folder: RunFolder) -> None:
    """Write the hyperparameters in `config.json` for TensorBoard's page "HParams"."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    values = hyperparameters(json.loads(folder.config.read_text(encoding="utf-8")))
    writer = tf.summary.create_file_writer(str(folder.tensorboard))
    with writer.as_default(step=0):
        api.hparams(values, trial_id=folder.path.resolve().name)
    writer.close()


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Return the hyperparameters of a run as one level of plain values.

    They are the fields of the recipe, the options of the network, the network, the data and the seed. Fields without a value
    are left out.
    """
    model, recipe = config["model"], config["recipe"]
    found = {"network": model.get("name"), "data": Path(str(config["data"]["name"])).name, "seed": config["seed"]}
    found |= {f"network.{name}": value for name, value in (model.get("options") or {}).items()}
    found |= {f"recipe.{name}": value for name, value in recipe.items() if name not in ("source", "use", "exceptions")}
    resolved = config.get("resolved") or {}
    found |= {f"recipe.{name}": resolved[name] for name in ("batch_size", "epochs", "precision") if name in resolved}
    return {name: _plain(value) for name, value in found.items() if value not in (None, [], {}, "")}


def _plain(value: Any) -> bool | float | str:
    return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)


def show_pictures(folder: RunFolder, names: Sequence[str], history: Sequence[Mapping[str, float]]) -> None:
    """Write pictures of the run folder for TensorBoard, to `validation`, at the last step. Missing files are left out.

    Args:
        folder: Run folder.
        names: Names of PNG files in it.
        history: Metrics of each epoch.
    """
    import tensorflow as tf
    from PIL import Image

    writer = tf.summary.create_file_writer(str(folder.tensorboard / "validation"))
    with writer.as_default(step=int(history[-1]["step"]) if history else 0):
        for file in (folder.path / name for name in names):
            if file.is_file():
                with Image.open(file) as picture:
                    tf.summary.image(file.stem, np.asarray(picture.convert("RGB"))[np.newaxis])
    writer.close()
