"""Deep networks of ReLUs and max poolings on torch, with weights and images at which their gradients are smooth.

A ReLU's gradient jumps where its input is zero, and a max pooling's where two pixels are equal. Of a million values, some lie so close to
such a kink that float32 takes the other side. One of them changes gradients by a hundredth. So the tests move the values away.
"""

import numpy as np
import pytest

from tests.families.against_torch import assert_like_torch, named, tensors, vary

NEAREST = 2e-6
"""The least difference between the two largest pixels of a window, relative to the standard deviation. float32 errs by about 3e-7."""


class Units:
    """The parts of such networks, with this library's weights by name.

    Attributes:
        nearest: least difference between the two largest pixels of a window, relative to the standard deviation. Only if `moves`.
        epsilon: that of batch normalisation.
    """

    epsilon = 1e-5

    def __init__(self, torch, weights, moves=False):
        """If `moves`, convolutions change their bias or beta so that no input of their ReLU is close to zero."""
        self.torch, self.weights, self.moves = torch, weights, moves
        self.nearest = np.inf

    def convolution(self, x, name, strides=1):
        """Convolution, batch normalisation over the images where the network has it, and ReLU."""
        kernel = self.weights[f"{name}_conv/kernel"].permute(3, 2, 0, 1)
        x = self.torch.nn.functional.conv2d(
            x, kernel, self.weights.get(f"{name}_conv/bias"), strides, kernel.shape[-1] // 2
        )
        shift = self.weights.get(f"{name}_bn/beta")
        if shift is not None:
            gamma = self.weights[f"{name}_bn/gamma"]
            x = self.torch.nn.functional.batch_norm(x, None, None, gamma, shift, training=True, eps=self.epsilon)
        return self._relu(x, self.weights[f"{name}_conv/bias"] if shift is None else shift)

    def hidden(self, x, name):
        """A fully connected layer with ReLU."""
        return self._relu(self.dense(x, name), self.weights[f"{name}/bias"])

    def dense(self, x, name):
        """A fully connected layer."""
        return x @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]

    def max_pool(self, x, size, strides, padding=0):
        """Max pooling that pads as Caffe's."""
        pooled = self.torch.nn.functional.max_pool2d(x, size, strides, padding, ceil_mode=True)
        if self.moves:
            end = [
                (count - 1) * strides + size - side - padding
                for count, side in zip(pooled.shape[2:], x.shape[2:], strict=True)
            ]
            padded = self.torch.nn.functional.pad(x, (padding, end[1], padding, end[0]), value=-np.inf)
            first, second = (
                padded.unfold(2, size, strides).unfold(3, size, strides).flatten(4).topk(2, -1).values.unbind(-1)
            )
            # Zeros come from a ReLU, which stops the gradient. Equal pixels are copies that an earlier pooling made of one pixel.
            distinct = (first > 0) & (first - second > 1e-12 * first)
            self.nearest = min(self.nearest, ((first - second)[distinct].min() / x.std()).item())
        return pooled

    def _relu(self, x, shift):
        if self.moves:
            # Zero goes to the middle of the widest gap near it between a channel's values.
            values = x.transpose(0, 1).flatten(1).sort(1).values
            middles, gaps = (values[:, 1:] + values[:, :-1]) / 2, values.diff(dim=1)
            gaps = self.torch.where(middles.abs() < values.std(1, keepdim=True) / 2, gaps, 0)
            widest, place = gaps.max(1, keepdim=True)
            moved = self.torch.where(widest > 0, middles.gather(1, place), 0).flatten()
            shift -= moved
            x = x - moved.view(-1, *[1] * (x.ndim - 2))
        return x.relu()


def assert_like_torch_off_kinks(model, network, size, rng, scale=1.0):
    """`assert_like_torch` with weights and images at which the gradients are smooth.

    Args:
        model: network without random layers.
        network: ``(units, x) -> logits``: the same network of `Units`. With auxiliary classifiers, a dictionary of logits.
        size: height and width of the images.
        rng: random numbers.
        scale: standard deviation of the images.
    """
    torch = pytest.importorskip("torch")
    vary(model, rng, ("bias", "beta", "gamma"))
    for _ in range(20):
        # Coarse patterns, because the deep maps of mere noise hardly vary, and batch normalisation magnifies their rounding.
        coarse = rng.normal(size=(4, *(-(-side // 16) for side in size), 3)).repeat(16, 1).repeat(16, 2)
        images = coarse[:, : size[0], : size[1]] + rng.normal(size=(4, *size, 3))
        images = (images * scale).astype("float32")
        weights = tensors(torch, model)
        units = Units(torch, weights, moves=True)
        with torch.no_grad():
            network(units, torch.tensor(images.astype("float64")).permute(0, 3, 1, 2))
        for weight in model.trainable_weights:
            weight.assign(weights[named(weight)].numpy(force=True))
        if units.nearest > NEAREST:
            break
    assert units.nearest > NEAREST

    def smooth(torch, weights, x):
        return network(Units(torch, weights), x)

    assert_like_torch(model, smooth, size, rng, (), images)
