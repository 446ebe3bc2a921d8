"""Pictures of how networks learn. Importing this package imports neither Matplotlib nor Keras."""

from __future__ import annotations

from keras_deepnets.insight.curves import draw_curves

__all__ = ["draw_curves"]
