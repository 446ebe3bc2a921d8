"""Pictures of training: learning curves, input images, confusion matrices and errors.

Importing this package does not import Matplotlib or Keras.
"""

from __future__ import annotations

from keras_deepnets.insight.confusion import draw_confusion
from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.insight.errors import draw_errors
from keras_deepnets.insight.grid import image_grid

__all__ = ["draw_confusion", "draw_curves", "draw_errors", "image_grid"]
