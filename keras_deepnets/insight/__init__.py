"""Pictures of how networks learn, and from what. Importing this package imports neither Matplotlib nor Keras."""

from __future__ import annotations

from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.insight.grid import image_grid

__all__ = ["draw_curves", "image_grid"]
