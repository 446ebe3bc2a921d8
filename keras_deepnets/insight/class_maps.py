"""Which parts of an image speak for a class: Grad-CAM (Selvaraju et al. 2017, "Grad-CAM", ICCV)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

_BATCH = 8
_COLUMNS = 4


@dataclass(frozen=True)
class ClassMaps:
    """Grad-CAM of some images.

    Attributes:
        layer: Name of the layer whose maps are weighted.
        classes: int64 ``[n]``: the class that each map speaks for.
        probabilities: float32 ``[n, classes]``.
        maps: float32 ``[n, h, w]``: the map of each image at the layer's resolution, at least 0. The unit is that of the logits.
    """

    layer: str
    classes: np.ndarray
    probabilities: np.ndarray
    maps: np.ndarray


def grad_cam(
    model: keras.Model, images: np.ndarray, classes: Sequence[int] | None = None, layer: str | None = None
) -> ClassMaps:
    """Compute Grad-CAM.

    The map is ``relu(Σ_k α_k A_k)``. A are the outputs of a layer. α is the mean over positions of the gradient of the
    class' logit (Selvaraju et al. 2017, equations 1 and 2).

    Args:
        model: A classifier that ends in a softmax or in logits.
        images: ``[n, h, w, c]`` with values 0–255, of the network's input size.
        classes: Class of each image. None: the predicted one.
        layer: Name of the layer. None: the last one with maps, poolings excluded.

    Raises:
        InputError: The model is not such a classifier, it has no such layer, a class does not exist, or the images do not
            fit.
    """
    import keras

    from keras_deepnets.insight.gradients import class_gradients
    from keras_deepnets.insight.observing import graph_of, inputs_of, logits_tensor
    from keras_deepnets.models import deep_graphs

    model = graph_of(model)
    logits = logits_tensor(model)
    maps = _maps_of(model, layer)
    count = logits.shape[-1]
    inputs = inputs_of(model, images)
    wanted = None if classes is None else np.asarray(classes)
    if wanted is not None and (wanted.shape != (len(inputs),) or wanted.min() < 0 or wanted.max() >= count):
        raise InputError(
            f"classes={wanted.tolist()} must be {len(inputs)} numbers from 0 to {count - 1}, one for each image."
        )
    with deep_graphs():
        inner = keras.Model(model.inputs[0], [maps.output, logits])

    gradients = class_gradients(inner, maps)
    found: list[tuple[np.ndarray, ...]] = []
    for at in range(0, len(inputs), _BATCH):
        own, scores, values, gradient = gradients(
            inputs[at : at + _BATCH], None if wanted is None else wanted[at : at + _BATCH]
        )
        weights = gradient.mean((1, 2), keepdims=True)
        likely = np.exp(scores - scores.max(-1, keepdims=True))
        found.append((own, likely / likely.sum(-1, keepdims=True), np.maximum((weights * values).sum(-1), 0)))
    own, probabilities, shown = (np.concatenate(column) for column in zip(*found, strict=True))
    return ClassMaps(maps.name, own, probabilities, shown)


def _maps_of(model: keras.Model, name: str | None) -> Any:
    """Return the layer with this name, or the last one that outputs maps of more than one position."""
    from keras_deepnets.graphs import nodes
    from keras_deepnets.models import scales

    if name is None:
        found, learnt = None, False
        for node in nodes(model):
            layer, shape = node.operation, node.outputs[0].shape
            # Scaled images are not feature maps.
            learnt = learnt or (bool(getattr(layer, "weights", None)) and not scales(layer))
            if learnt and len(shape) == 4 and tuple(shape[1:3]) != (1, 1) and "Pool" not in type(layer).__name__:
                found = layer
        if found is None:
            raise InputError(f"{model.name} has no layer with feature maps; Grad-CAM needs a convolutional network.")
        return found
    names = [layer.name for layer in model.layers]
    if name not in names or len(model.get_layer(name).output.shape) != 4:
        raise InputError(f"{model.name} has no layer {name!r} with feature maps; model.summary() lists the layers.")
    return model.get_layer(name)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map over an image: uint8 ``[h, w, 3]``.

    The image becomes grey. The colours of Matplotlib's "inferno" are brighter where the map is higher, for every kind of colour
    vision.

    Args:
        image: uint8 ``[h, w, c]`` with 1 or 3 channels.
        heat: float ``[h', w']``, at least 0. Its largest value is drawn as 1.
    """
    from matplotlib import colormaps
    from PIL import Image

    grey = image.astype(np.float32).mean(-1, keepdims=True)
    top = float(heat.max())
    small = Image.fromarray((heat / top if top > 0 else heat).astype(np.float32))
    shares = np.asarray(small.resize((image.shape[1], image.shape[0]), Image.Resampling.BILINEAR))[..., None]
    colour = 255 * colormaps["inferno"](shares[..., 0])[..., :3]
    opacity = 0.75 * np.sqrt(np.clip(shares, 0, 1))
    return np.clip(np.rint((1 - opacity) * 0.8 * grey + opacity * colour), 0, 255).astype(np.uint8)


def draw_grad_cam(
    model: keras.Model,
    images: np.ndarray,
    path: str | os.PathLike,
    labels: Sequence[str] | None = None,
    truths: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    title: str | None = None,
) -> Path:
    """Draw images next to their Grad-CAM.

    Args:
        model: As for `grad_cam`.
        images: uint8 ``[n, h, w, c]``, of the network's input size.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        labels: Class names. None: those of the model, or the numbers.
        truths: True class of each image, or None.
        classes: Class whose evidence is drawn, for each image. None: the predicted one.
        title: Title of the picture. Default: the name of the model.

    Raises:
        InputError: As for `grad_cam`, or the picture cannot be written.
    """
    figures.check_path(path)
    found = grad_cam(model, images, classes)
    names = list(labels or getattr(model, "labels", None) or map(str, range(found.probabilities.shape[1])))
    title = title or model.name
    return figures.write(path, lambda letters: _figure(found, images, names, truths, title, letters), [*names, title])


def _figure(
    found: ClassMaps,
    images: np.ndarray,
    names: Sequence[str],
    truths: Sequence[int] | None,
    title: str,
    letters: figures.Letters,
) -> Figure:
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(max(2.7 * columns, 5.4), 1.85 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for at, (axes, image, heat) in enumerate(zip(panels, images, found.maps, strict=False)):
        plain = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8)
        gap = np.full((image.shape[0], max(1, image.shape[1] // 40), 3), 255, np.uint8)
        axes.imshow(np.concatenate([plain, gap, overlay(image, heat)], 1), interpolation="nearest")
        own = int(found.classes[at])
        text = f"{letters(figures.shortened(names[own], 20))} {100 * found.probabilities[at, own]:.0f} %"
        wrong = truths is not None and int(truths[at]) != own
        if truths is not None and wrong:
            text += f"\ntrue: {letters(figures.shortened(names[int(truths[at])], 20))}"
        axes.set_title(text, fontsize=9, loc="left", color=figures.COLOURS[1] if wrong else "#222222")
    figure.suptitle(f"{letters(title)}: Grad-CAM of {found.layer}", fontsize=11, x=0.012, ha="left")
    return figure
