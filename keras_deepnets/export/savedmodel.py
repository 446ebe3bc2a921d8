"""A SavedModel that TF Serving takes without questions: encoded images in, named probabilities and labels out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import _card, _files
from keras_deepnets.export._classifier import Classifier, classifier_of
from keras_deepnets.export.warmup import BATCH_SIZES, checked_batch_sizes, write_warmup

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

LABELS_FILE = "labels.txt"
CARD_FILE = "model_card.json"


def saved_model(
    model: keras.Model,
    directory: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    version: int | None = None,
    fold: bool = True,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Path:
    """Writes ``directory/<version>/``: a SavedModel with two signatures, complete from the moment it is there.

    ``serving_default`` takes ``image_bytes`` (string ``[None]``, JPEG or PNG files), ``serving_images`` takes ``images`` (uint8
    ``[None, None, None, 3]``, RGB, all of one size). Both resize and crop as the data pipeline does for evaluation, scale, and give

    * ``probabilities`` float32 ``[None, classes]``,
    * ``classes`` int64 ``[None]``, the most probable one,
    * ``labels`` string ``[None]``, its name.

    The graph computes in float32 whatever the model's precision policy, holds no optimizer and nothing of training, and runs on
    any device. In the folder lie also ``assets/labels.txt``, ``model_card.json`` and TF Serving's warm-up requests.

    Args:
        model: an image classifier of fixed input size with one input and one output, probabilities or logits (then a softmax is
            added). A model that neither includes its preprocessing nor has a `scaling` gets pixels 0–255 as they are.
        directory: the model's folder, which TF Serving watches; made if missing.
        labels: names in the order of the outputs; by default the model's own, else ``"0"``, ``"1"``, …
        version: a whole number; by default one more than the largest there.
        fold: whether batch normalisation is folded into convolutions (same outputs, faster).
        batch_sizes: the sizes of the warm-up requests, images; those that `serving_config` lets the server batch to.

    Returns:
        The path of the version.

    Raises:
        InputError: the model, the labels or the sizes do not fit, the version exists, or the folder cannot be written. Nothing is left
            behind.
    """
    directory = Path(directory)
    if version is not None:
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise InputError(f"version={version!r} is not a whole number from 0; TF Serving reads versions as numbers.")
        if (directory / str(version)).exists():
            raise _files.version_exists(directory / str(version))
    batch_sizes = checked_batch_sizes(batch_sizes)
    classifier = classifier_of(model, labels, fold)
    module, signatures = _serving_module(classifier)
    with _files.folder_aside(directory) as aside:
        folder = aside / "model"  # its own folder: what is renamed has nothing else in it
        _write(folder, module, signatures, classifier)
        write_warmup(folder, classifier.height, classifier.width, batch_sizes)
        card = _card.describe(model, classifier) | {"signatures": sorted(signatures)}
        _files.write_json(folder / CARD_FILE, card)
        return _files.move_to_free_version(folder, directory, version)


def _serving_module(classifier: Classifier) -> tuple[Any, dict[str, Any]]:
    """The trackable object and its signatures: functions and variables, no Keras objects."""
    import tensorflow as tf

    from keras_deepnets.data import transforms

    names = tf.constant(classifier.labels)
    view_shape = [classifier.height, classifier.width, classifier.channels]

    # A function of its own, so that the network is in the file once and not once a signature.
    @tf.function(input_signature=[tf.TensorSpec([None, *view_shape], tf.uint8)], autograph=False)
    def classify(views: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = classifier.probabilities(views)
        probabilities.set_shape([None, classifier.classes])
        classes = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
        return {"probabilities": probabilities, "classes": classes, "labels": tf.gather(names, classes)}

    def view_of_bytes(encoded: tf.Tensor) -> tf.Tensor:
        return classifier.view(transforms.decode(encoded)[tf.newaxis])[0]

    # Decoding has no XLA kernel and images differ in size: one by one in a loop, never inside a compiled function.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        view = tf.TensorSpec(view_shape, tf.uint8)
        return classify(tf.map_fn(view_of_bytes, image_bytes, fn_output_signature=view))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")], autograph=False)
    def serving_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(classifier.view(images))

    module = tf.Module()
    signatures = {
        "serving_default": serving_default.get_concrete_function(),
        "serving_images": serving_images.get_concrete_function(),
    }
    # Exactly what the graphs read: no optimizer, no seeds, nothing that only training needs.
    variables = [variable for signature in signatures.values() for variable in signature.graph.variables]
    module.weights = list({id(variable): variable for variable in variables}.values())
    return module, signatures


def _write(folder: Path, module: Any, signatures: dict[str, Any], classifier: Classifier) -> None:
    import tensorflow as tf

    labels = folder.parent / LABELS_FILE  # an asset keeps the name of the file that it is copied from
    labels.write_text("".join(f"{label}\n" for label in classifier.labels), encoding="utf-8")
    module.labels = tf.saved_model.Asset(str(labels))
    # The gradient functions of custom gradients are of no use to a server.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)
