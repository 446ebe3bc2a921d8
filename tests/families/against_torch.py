"""A network and the same network of torch's operators: logits, and the gradient of each weight."""

import keras
import numpy as np
import pytest
import tensorflow as tf


def named(weight):
    """Layer and variable: ``"conv1_conv/kernel"``."""
    return "/".join(weight.path.split("/")[-2:])


def assert_like_torch(model, network, size, rng, biased=("bias",)):
    """Compares a network that returns logits, in one step of training in a graph.

    Args:
        model: network without random layers.
        network: ``(torch, weights, x) -> logits``: the same network for images ``[n, 3, h, w]``. `weights` maps names to tensors in this
            library's layout.
        size: height and width of the images.
        rng: random numbers.
        biased: names of variables that get random values, because they start at a constant.
    """
    torch = pytest.importorskip("torch")
    for weight in model.trainable_weights:
        if weight.name in biased:
            weight.assign_add(rng.normal(size=weight.shape) * 0.1)
    theirs = {named(weight): torch.tensor(weight.numpy(), requires_grad=True) for weight in model.trainable_weights}
    x, y = rng.normal(size=(4, *size, 3)).astype("float32"), np.array([0, 1, 4, 2])
    logits = network(torch, theirs, torch.tensor(x).permute(0, 3, 1, 2))
    torch.nn.functional.cross_entropy(logits, torch.tensor(y)).backward()

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, outputs, from_logits=True))
        return outputs, tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    found, gradients = step(x)
    expected = logits.detach().numpy()
    for outputs in (found, model(x)):
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
    for (name, weight), gradient in zip(theirs.items(), gradients, strict=True):
        expected = weight.grad.numpy()
        assert np.abs(gradient - expected).max() <= 1e-4 * np.abs(expected).max(), name
