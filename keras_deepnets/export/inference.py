"""The network for inference as a `.keras` file: batch normalisation folded, nothing of training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.export import _files, _single_file
from keras_deepnets.export.folding import fold_batchnorm

if TYPE_CHECKING:
    import keras


def inference_model(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Writes the network of `fold_batchnorm` as a ``.keras`` file: faster, for inference alone.

    Args:
        model: a functional or built sequential model.
        path: the file to write, ``….keras``; what is there is replaced.

    Returns:
        The path.

    Raises:
        InputError: the model is not built or has no graph of layers, or the file cannot be written. Nothing is left behind.
    """
    path = _single_file.check(path, ".keras")
    folded = fold_batchnorm(model)
    with _files.folder_aside(path.parent) as aside, _files.write_errors(path):
        folded.save(aside / path.name)
        (aside / path.name).replace(path)
    return path
