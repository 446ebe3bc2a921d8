"""keras_deepnets: very deep image networks for Keras."""
