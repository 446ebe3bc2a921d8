"""A SavedModel that TF Serving takes without questions: encoded images in, named probabilities and labels out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import model_card, writing
from keras_deepnets.export.classifier import Classifier, classifier_of
from keras_deepnets.export.decoding import MAX_PIXELS
from keras_deepnets.export.signatures import Options, Serving, serving
from keras_deepnets.export.warmup import BATCH_SIZES, checked_batch_sizes, write_warmup

if TYPE_CHECKING:
    import keras

LABELS_FILE = "labels.txt"
CARD_FILE = "model_card.json"


def saved_model(
    model: keras.Model,
    directory: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    version: int | None = None,
    fold: bool = True,
    *,
    precision: str = "float32",
    top_k: int | None = None,
    features: bool = False,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int | None = None,
    on_error: str = "fail",
    max_pixels: int = MAX_PIXELS,
    data: str | os.PathLike[str] | None = None,
    accuracy: float | Mapping[str, float | str] | None = None,
    batch_sizes: Sequence[int] | None = None,
) -> Path:
    """Writes ``directory/<version>/``: a SavedModel with two signatures, complete from the moment it is there.

    ``serving_default`` takes ``image_bytes`` (string ``[None]``, JPEG, PNG, BMP, GIF or still WebP
    files, turned upright as their EXIF orientation says), ``serving_images`` takes
    ``images`` (uint8 ``[None, None, None, 3]``, RGB, all of one size). Both resize and crop as the data pipeline does for
    evaluation, scale, and give

    * ``probabilities`` float32 ``[None, classes]``,
    * ``classes`` int64 ``[None]``, the most probable one,
    * ``labels`` string ``[None]``, its name.

    The graph computes in float32 whatever the model's precision policy, holds no optimizer and nothing of training, and runs on
    any device. The weights are constants in it, which makes it faster on a CPU; where they take more than 1.5 GB they are variables.
    In the folder lie also ``assets/labels.txt``, ``model_card.json`` and TF Serving's warm-up requests.

    An encoded image that is broken or too large makes its request fail, with an error that names its index. What is too large is
    known from the header: it is never decoded.

    Args:
        model: an image classifier of fixed input size with one input and one output, probabilities or logits (then a softmax is
            added). A model of other layers than ours that neither scales its input nor has a `scaling` gets pixels 0–255 as they are,
            with a warning; of a network of ours the scaling must be known.
        directory: the model's folder, which TF Serving watches; made if missing.
        labels: names in the order of the outputs; by default the model's own, else ``"0"``, ``"1"``, …
        version: a whole number; by default one more than the largest there.
        fold: whether batch normalisation is folded into convolutions (same outputs, faster).
        precision: in which weights are stored. ``"bfloat16"`` and ``"float16"`` take half the space. In bfloat16 the graph computes
            too, up to the pooled features, which is faster on processors that know it; float16 is widened to float32 at each call.
        top_k: gives also ``top_classes`` int64, ``top_labels`` string and ``top_probabilities`` float32, all ``[None, top_k]``, the
            most probable first.
        features: gives also ``features`` float32 ``[None, length]``: what the last dense layer takes.
        image_size: the side, or height and width in pixels, that ``serving_images`` is to take; by default any.
        batch_size: images a request that both signatures are to take; by default any number.
        on_error: ``"fail"``, or ``"skip"``: a broken encoded image gets probabilities (and features) of NaN, class -1 and an empty
            label, and the others of its request theirs.
        max_pixels: height times width that an encoded image may have, those of the network's own size among them; of a GIF, of all its
            frames together.
        data: what the network was trained on, for the model card.
        accuracy: how good it is, for the model card: one number, or several by name, with texts about them.
        batch_sizes: images of each warm-up request; `serving_config` lets the server batch to them; by default 1, 8, 32, or `batch_size`.

    Returns:
        The path of the version.

    Raises:
        InputError: the model, the labels or an option do not fit, the version exists, or the folder cannot be written. Nothing is left
            behind.
    """
    directory = Path(directory)
    accuracy = model_card.measured(accuracy)
    if data is not None and not isinstance(data, (str, os.PathLike)):
        raise InputError(f"data={data!r} is no name of what the network was trained on; give a text.")
    options, batch_sizes = check_options(
        batch_sizes,
        precision=precision,
        top_k=top_k,
        features=features,
        image_size=image_size,
        batch_size=batch_size,
        on_error=on_error,
        max_pixels=max_pixels,
    )
    if version is not None:
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise InputError(f"version={version!r} is not a whole number from 0; TF Serving reads versions as numbers.")
        if (directory / str(version)).exists():
            raise writing.version_exists(directory / str(version))
    writing.check_writable(directory)
    classifier = classifier_of(model, labels, fold)
    height, width = options.image_size or (classifier.height, classifier.width)
    if height * width > max_pixels:
        raise InputError(
            f"max_pixels={max_pixels} is less than the {height} × {width} of a warm-up request; give more."
        )
    served = serving(classifier, options)
    facts = model_card.describe(model, classifier) | {
        "weights": model_card.weights(model)
        | {"stored": precision, "place": "graph" if served.constant else "variables"},
        "data": None if data is None else os.fspath(data),
        "accuracy": accuracy,
        "compute": "bfloat16" if precision == "bfloat16" else "float32",
        "signatures": sorted(served.signatures),
        "outputs": sorted(served.signatures["serving_default"].structured_outputs),
        "options": {name: value for name, value in dataclasses.asdict(options).items() if name != "precision"},
        "batch_sizes": list(batch_sizes),
    }
    with writing.folder_aside(directory) as aside:
        folder = aside / "model"  # its own folder: what is renamed has nothing else in it
        _write(folder, served, classifier)
        write_warmup(folder, height, width, batch_sizes)
        writing.write_json(folder / CARD_FILE, facts | {"sha256": model_card.checksums(folder)})
        return writing.move_to_free_version(folder, directory, version)


def _write(folder: Path, served: Serving, classifier: Classifier) -> None:
    import tensorflow as tf

    labels = folder.parent / LABELS_FILE  # an asset keeps the name of the file that it is copied from
    labels.write_text("".join(f"{label}\n" for label in classifier.labels), encoding="utf-8")
    served.module.labels = tf.saved_model.Asset(str(labels))
    # The gradient functions of custom gradients are of no use to a server.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(served.module, str(folder), signatures=served.signatures, options=options)


def check_options(batch_sizes: Sequence[int] | None = None, **options: Any) -> tuple[Options, tuple[int, ...]]:
    """The options of a graph and the batch sizes of the warm-up requests, of what `saved_model` was given.

    Raises:
        InputError: a value is out of range, or two do not go together.
    """
    checked = Options(**options)
    fixed = checked.batch_size
    if batch_sizes is None:
        return checked, BATCH_SIZES if fixed is None else (fixed,)
    sizes = checked_batch_sizes(batch_sizes)
    if fixed is not None and sizes != (fixed,):
        raise InputError(f"batch_sizes={sizes}: signatures of batch_size={fixed} take no other; leave batch_sizes out.")
    return checked, sizes
