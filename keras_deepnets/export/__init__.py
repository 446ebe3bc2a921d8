"""Export a trained model to the formats that servers and devices take.

Importing this package is cheap: TensorFlow is loaded when the first function runs.
"""

from keras_deepnets.export.folding import fold_batchnorm
from keras_deepnets.export.inference import inference_function, inference_model
from keras_deepnets.export.litert import tflite
from keras_deepnets.export.onnx_export import onnx
from keras_deepnets.export.openvino_export import openvino
from keras_deepnets.export.prediction import predict
from keras_deepnets.export.savedmodel import saved_model
from keras_deepnets.export.serving import serving_config

__all__ = [
    "fold_batchnorm",
    "inference_function",
    "inference_model",
    "onnx",
    "openvino",
    "predict",
    "saved_model",
    "serving_config",
    "tflite",
]
