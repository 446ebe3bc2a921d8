"""Pictures of how networks learn, and of what they mistake. Importing this package imports neither Matplotlib nor Keras."""

from __future__ import annotations

from keras_deepnets.insight.confusion import draw_confusion
from keras_deepnets.insight.curves import draw_curves

__all__ = ["draw_confusion", "draw_curves"]
