"""Pictures of training and of networks: each kind has a function that computes its numbers and one that draws them.

Importing this package does not import Matplotlib or Keras.
"""

from __future__ import annotations

from keras_deepnets.insight.calibrating import Calibration, calibration, draw_calibration
from keras_deepnets.insight.class_maps import ClassMaps, draw_grad_cam, grad_cam, overlay
from keras_deepnets.insight.confusion import draw_confusion
from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.insight.diagram import draw_network
from keras_deepnets.insight.errors import draw_errors
from keras_deepnets.insight.filters import draw_filters, first_filters
from keras_deepnets.insight.gates import Gates, draw_gates, gate_activity
from keras_deepnets.insight.grid import image_grid
from keras_deepnets.insight.landscape import LossSurface, draw_loss_surface, loss_surface
from keras_deepnets.insight.receptive import Stage, draw_stages, stages
from keras_deepnets.insight.responses import Responses, draw_responses, layer_responses
from keras_deepnets.insight.reuse import Reuse, draw_feature_reuse, feature_reuse

__all__ = [
    "Calibration",
    "ClassMaps",
    "Gates",
    "LossSurface",
    "Responses",
    "Reuse",
    "Stage",
    "calibration",
    "draw_calibration",
    "draw_confusion",
    "draw_curves",
    "draw_errors",
    "draw_feature_reuse",
    "draw_filters",
    "draw_gates",
    "draw_grad_cam",
    "draw_loss_surface",
    "draw_network",
    "draw_responses",
    "draw_stages",
    "feature_reuse",
    "first_filters",
    "gate_activity",
    "grad_cam",
    "image_grid",
    "layer_responses",
    "loss_surface",
    "overlay",
    "stages",
]
