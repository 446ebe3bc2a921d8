"""A network and the same network of torch's operators: logits, and the gradient of each weight."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.models import MAIN


def named(weight):
    """Layer and variable: ``"conv1_conv/kernel"``."""
    return "/".join(weight.path.split("/")[-2:])


def vary(model, rng, names):
    """Random values for the variables of these names, because they start at a constant."""
    for weight in model.trainable_weights:
        if weight.name in names:
            weight.assign_add(rng.normal(size=weight.shape) * 0.1)


def tensors(torch, model):
    """The weights of a network by name in float64."""
    return {
        named(weight): torch.tensor(weight.numpy().astype("float64"), requires_grad=True)
        for weight in model.trainable_weights
    }


def assert_like_torch(model, network, size, rng, biased=("bias",), images=None):
    """Compares a network that returns logits, in one step of training in a graph. torch computes in float64.

    Args:
        model: network without random layers. With auxiliary classifiers, the loss is the one that `fit` has.
        network: ``(torch, weights, x) -> logits``: the same network for images ``[n, 3, h, w]``. `weights` maps names to tensors in this
            library's layout. With auxiliary classifiers, a dictionary of logits.
        size: height and width of the images.
        rng: random numbers.
        biased: names of variables that get random values, because they start at a constant.
        images: four images in the place of random ones.
    """
    torch = pytest.importorskip("torch")
    vary(model, rng, biased)
    theirs = tensors(torch, model)
    x = rng.normal(size=(4, *size, 3)).astype("float32") if images is None else images
    y = np.array([0, 1, 4, 2])
    logits = _by_name(network(torch, theirs, torch.tensor(x.astype("float64")).permute(0, 3, 1, 2)))
    parts = {MAIN: 1.0} | model.auxiliary
    labels = torch.tensor(y)
    sum(factor * torch.nn.functional.cross_entropy(logits[name], labels) for name, factor in parts.items()).backward()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(x, tf.constant(y), outputs, training=True)
        return outputs, tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    found, gradients = step(x)
    normalised = any(name.endswith("_bn/beta") for name in theirs)  # inference has other statistics
    for outputs in (found,) if normalised else (found, model(x)):
        outputs = _by_name(outputs)
        assert outputs.keys() == logits.keys()
        for name, expected in logits.items():
            expected = expected.detach().numpy()
            atol = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-6, atol=atol)
    for (name, weight), gradient in zip(theirs.items(), gradients, strict=True):
        expected = weight.grad.numpy()
        scale = np.abs(expected).max()
        beta = theirs.get(name.replace("_conv/bias", "_bn/beta")) if name.endswith("_conv/bias") else None
        if beta is not None:
            # Batch normalisation subtracts this bias again, so its gradient is only rounding.
            assert scale < 1e-12
            scale = beta.grad.abs().max().item()
        assert np.abs(gradient - expected).max() <= 1e-4 * scale, name


def _by_name(logits):
    return logits if isinstance(logits, dict) else {MAIN: logits}
