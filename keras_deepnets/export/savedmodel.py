"""A SavedModel ready for TF Serving: encoded images in, named probabilities and labels out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import model_card, writing
from keras_deepnets.export.classifier import classifier_of
from keras_deepnets.export.decoding import MAX_PIXELS
from keras_deepnets.export.elsewhere import on_tensorflow
from keras_deepnets.export.exporters import for_any_model
from keras_deepnets.export.signatures import Options, Serving, serving
from keras_deepnets.export.warmup import BATCH_SIZES, checked_batch_sizes, write_warmup

if TYPE_CHECKING:
    import keras

LABELS_FILE = "labels.txt"
CARD_FILE = "model_card.json"


@on_tensorflow
@for_any_model
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
    """Write ``directory/<version>/``, a SavedModel with two signatures. The version appears only when it is complete.

    ``serving_default`` takes ``image_bytes``, string ``[None]``: JPEG, PNG, BMP, GIF or still WebP files. They are turned upright by
    their EXIF orientation. ``serving_images`` takes ``images``, uint8 ``[None, None, None, 3]``: RGB, all of one size. Both resize and
    crop as the data pipeline does for evaluation, apply the scaling, and return

    * ``probabilities`` float32 ``[None, classes]``,
    * ``classes`` int64 ``[None]``, the most probable class,
    * ``labels`` string ``[None]``, the name of that class.

    The graph computes in float32 for any precision policy of the model, holds no optimizer or training layers, and runs on any device.
    The weights are constants in the graph, which is faster on a CPU. Weights of more than 1.5 GB are variables, and single weights of
    more than 64 MB. The folder also contains ``assets/labels.txt``, ``model_card.json`` and TF Serving's warm-up requests.

    A broken or too large encoded image makes its request fail. The error names the index of the image. The size is checked in the
    header, so a too large image is never decoded.

    A detector has other outputs and options: see `keras_deepnets.detection.export.saved_model`, which this function calls.

    Args:
        model: An image classifier of fixed input size with one input and one output of probabilities or logits (a softmax is then
            added). A keras_deepnets network must have a known scaling. Any other model that neither scales its input nor has a
            `scaling` gets unscaled pixels 0–255, with a warning.
        directory: The model's folder, which TF Serving watches. It is created if missing.
        labels: Names in the order of the outputs. Default: the model's own, else ``"0"``, ``"1"``, ….
        version: A whole number. Default: one more than the largest in the folder.
        fold: Whether to fold batch normalisation into convolutions (same outputs, faster).
        precision: Dtype of the stored weights. ``"bfloat16"`` and ``"float16"`` halve their size. With bfloat16 the graph also computes
            in bfloat16 up to the pooled features. This is faster on processors that support it. Float16 is widened to float32 at each
            call.
        top_k: Also return ``top_classes`` int64, ``top_labels`` string and ``top_probabilities`` float32, all ``[None, top_k]``, the
            most probable first.
        features: Also return ``features`` float32 ``[None, length]``, the input of the last dense layer.
        image_size: Size of the images that ``serving_images`` takes, in pixels: the side, or (height, width). Default: any.
        batch_size: Number of images per request that both signatures take. Default: any.
        on_error: ``"fail"`` or ``"skip"``. With ``"skip"``, a broken encoded image gets probabilities (and features) of NaN, class -1
            and an empty label. The other images of its request are classified.
        max_pixels: Limit on height times width of an encoded image; it must allow the network's own size. For a GIF the limit is on all
            frames together.
        data: Training data of the network, for the model card.
        accuracy: Accuracy of the network, for the model card: one number, or several by name, with strings about them.
        batch_sizes: Numbers of images in the warm-up requests. `serving_config` uses them as the server's batch sizes. Default:
            1, 8, 32, or `batch_size`.

    Returns:
        The path of the version.

    Raises:
        InputError: The model, the labels or an option is not supported, the version exists, or the folder cannot be written. No
            partial files remain.
    """
    directory = Path(directory)
    told = told_facts(data, accuracy)
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
    check_version(directory, version)
    classifier = classifier_of(model, labels, fold)
    height, width = options.image_size or (classifier.height, classifier.width)
    if height * width > max_pixels:
        raise InputError(
            f"max_pixels={max_pixels} is less than the {height} × {width} pixels of a warm-up request; give more."
        )
    served = serving(classifier, options)
    facts = model_card.describe(model, classifier) | told
    facts |= {"weights": model_card.weights(model), "compute": "bfloat16" if precision == "bfloat16" else "float32"}
    return write_version(directory, version, served, facts, options, (height, width), batch_sizes)


def told_facts(
    data: str | os.PathLike[str] | None, accuracy: float | Mapping[str, float | str] | None
) -> dict[str, Any]:
    """What the caller tells the model card. Raise InputError for values that a card cannot hold."""
    accuracy = model_card.measured(accuracy)
    if data is not None and not isinstance(data, (str, os.PathLike)):
        raise InputError(f"data={data!r} does not name the training data of the network; give a string.")
    return {"data": None if data is None else os.fspath(data), "accuracy": accuracy}


def check_version(directory: Path, version: int | None) -> None:
    """Raise InputError if the version is not a number or exists, or if the folder cannot be written."""
    if version is not None:
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise InputError(f"version={version!r} is not a whole number from 0; TF Serving reads versions as numbers.")
        if (directory / str(version)).exists():
            raise writing.version_exists(directory / str(version))
    writing.check_writable(directory)


def write_version(
    directory: Path,
    version: int | None,
    served: Serving,
    facts: dict[str, Any],
    options: Options,
    size: tuple[int, int],
    batch_sizes: Sequence[int],
) -> Path:
    """Write a SavedModel with its labels, warm-up requests and card into a new version, and return its path.

    Args:
        directory: The model's folder.
        version: Number of the version. None: the next free one.
        served: Contents of the SavedModel.
        facts: Model card, completed here. Its ``"labels"`` are also written to a file.
        options: Options of the graph.
        size: Height and width of the images in the warm-up requests.
        batch_sizes: Images per warm-up request.
    """
    facts["weights"] |= {"stored": options.precision, "place": served.place}
    facts |= {
        "signatures": sorted(served.signatures),
        "outputs": sorted(served.signatures["serving_default"].structured_outputs),
        "options": {name: value for name, value in dataclasses.asdict(options).items() if name != "precision"},
        "batch_sizes": list(batch_sizes),
    }
    with writing.folder_aside(directory) as aside:
        folder = aside / "model"  # a separate folder, so that nothing else is renamed with it
        _write(folder, served, facts["labels"])
        write_warmup(folder, *size, batch_sizes)
        writing.write_json(folder / CARD_FILE, facts | {"sha256": model_card.checksums(folder)})
        return writing.move_to_free_version(folder, directory, version)


def _write(folder: Path, served: Serving, labels: Sequence[str]) -> None:
    import tensorflow as tf

    file = folder.parent / LABELS_FILE  # an asset keeps the name of its source file
    file.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    served.module.labels = tf.saved_model.Asset(str(file))
    # A server does not need the gradient functions of custom gradients.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(served.module, str(folder), signatures=served.signatures, options=options)


def check_options(batch_sizes: Sequence[int] | None = None, **options: Any) -> tuple[Options, tuple[int, ...]]:
    """Check the arguments of `saved_model`, and return the options of the graph and the batch sizes of the warm-up requests.

    Raises:
        InputError: A value is out of range, or two values are incompatible.
    """
    checked = Options(**options)
    fixed = checked.batch_size
    if batch_sizes is None:
        return checked, BATCH_SIZES if fixed is None else (fixed,)
    sizes = checked_batch_sizes(batch_sizes)
    if fixed is not None and sizes != (fixed,):
        raise InputError(
            f"batch_sizes={sizes}: signatures with batch_size={fixed} take no other size; leave batch_sizes out."
        )
    return checked, sizes
