"""Export detectors: a SavedModel for TF Serving, TFLite and ONNX files. Importing this package does not import TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets.lazy import lazy_names

if TYPE_CHECKING:
    from keras_deepnets.detection.export.onnx_file import onnx
    from keras_deepnets.detection.export.prediction import predict
    from keras_deepnets.detection.export.savedmodel import saved_model
    from keras_deepnets.detection.export.tflite_file import tflite

__all__ = ["onnx", "predict", "saved_model", "tflite"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "onnx_file": ("onnx",),
        "prediction": ("predict",),
        "savedmodel": ("saved_model",),
        "tflite_file": ("tflite",),
    },
)
