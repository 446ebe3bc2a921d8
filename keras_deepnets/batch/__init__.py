"""Prediction over more images than one machine should handle, through Apache Beam.

Importing this package is cheap: Beam and TensorFlow are loaded when the function runs.
"""

from keras_deepnets.batch.predicting import JobStopped, Summary, predict_many

__all__ = ["JobStopped", "Summary", "predict_many"]
