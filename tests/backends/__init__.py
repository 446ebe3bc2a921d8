"""The same program on each backend of Keras."""
