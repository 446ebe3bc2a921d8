"""Pictures of how networks learn, from what, and of what they mistake. Importing this package imports neither Matplotlib nor Keras."""

from __future__ import annotations

from keras_deepnets.insight.confusion import draw_confusion
from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.insight.errors import draw_errors
from keras_deepnets.insight.grid import image_grid

__all__ = ["draw_confusion", "draw_curves", "draw_errors", "image_grid"]
