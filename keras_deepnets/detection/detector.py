"""The model class of all detectors."""

from __future__ import annotations

import keras

from keras_deepnets.detection.resizing import padded_side
from keras_deepnets.errors import InputError
from keras_deepnets.models import DeepNet, deep_graphs, multiply_adds


@keras.saving.register_keras_serializable("keras_deepnets")
class Detector(DeepNet):
    """A functional model that finds objects in images, with a record of its architecture and of its view of images.

    Inputs: ``{"images": float [n, h, w, 3], "sizes": int [n, 2]}``. The images have values 0–255 (RGB) and are padded at the bottom and
    at the right. `sizes` are their heights and widths without padding. The model scales the values itself.

    Outputs: ``{"boxes": float32 [n, d, 4], "scores": float32 [n, d], "labels": int32 [n, d], "count": int32 [n]}``. The boxes
    (x1, y1, x2, y2) are in pixels of the input. The first `count` are valid, best first. Labels begin with 1; 0 is the background.

    `keras_deepnets.detection.detect` takes images of any size, and resizes and pads them.
    """

    _more = ("detection",)  # the record's view of images: {"classes", "min_size", "max_size"}

    exporter = "keras_deepnets.detection.export"
    """The module with the functions that `keras_deepnets.export` calls for detectors."""

    @property
    def classes(self) -> int | None:
        """The number of classes, with the background."""
        return (self._record.get("detection") or {}).get("classes")

    @property
    def min_size(self) -> int:
        """The length to which `detect` resizes the shorter side of an image, in pixels."""
        return self._view("min_size")

    @property
    def max_size(self) -> int:
        """The largest length of the longer side after resizing, in pixels."""
        return self._view("max_size")

    def multiply_adds(self) -> int:
        """Multiply-adds of one image of `min_size` × `max_size` pixels, with the largest number of proposals."""
        rpn, head = (self.get_layer(name) for name in ("rpn", "head"))
        fixed = self.fixed_body()
        with deep_graphs():
            maps = [tuple(features.shape[1:]) for features in fixed.output.values()]
            levels = [multiply_adds(_of_size(rpn, shape)) for shape in maps]
            region = multiply_adds(_of_size(head, head.input_shape[1:]))
        return multiply_adds(fixed) + sum(levels) + self.get_layer("proposals").proposals * region

    def fixed_body(self) -> keras.Model:
        """A copy of the backbone with its pyramid for images of `min_size` × `max_size` pixels, with separate weights."""
        sides = [padded_side(side) for side in (self.min_size, self.max_size)]
        with deep_graphs():
            return _of_size(self.get_layer("body"), (*sides, 3))

    def _view(self, name: str) -> int:
        view = self._record["detection"]
        if view is None:
            raise InputError(
                f"{self.name} has no record of its {name}; build it with a constructor of keras_deepnets.detection."
            )
        return view[name]


def _of_size(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """The same layers for inputs of a fixed shape, with weights of their own."""
    return keras.models.clone_model(model, input_tensors=keras.Input(shape))
