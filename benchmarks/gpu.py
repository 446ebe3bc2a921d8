"""Training and inference on one GPU: this library on JAX against torchvision in PyTorch, eager and compiled.

    KERAS_BACKEND=jax python -m benchmarks.gpu resnet50 densenet121 --batch 256

This needs JAX, PyTorch and torchvision with their GPU libraries. TensorFlow is not used. All sides compute in bfloat16 with float32
weights (PyTorch: autocast, channels last), on images in GPU memory. A training step is a forward pass, a backward pass and an SGD update
with momentum. The sides alternate, and a row shows the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory on the same GPU

Side = Callable[[int], float]
"""Function that runs a number of steps and returns their seconds."""


def ours(name: str, batch: int, size: int, training: bool) -> Side:
    """This library's network as one jitted function, with donated buffers in training."""
    import jax
    import keras
    from jax import numpy as jnp

    import keras_deepnets as kd

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kd.create_model(name, input_shape=(size, size, 3), classifier_activation=None)
    images = jax.random.normal(jax.random.PRNGKey(0), (batch, size, size, 3), jnp.bfloat16)
    labels = jnp.arange(batch) % model.output_shape[-1]
    weights = [variable.value for variable in model.trainable_variables]
    rest = [variable.value for variable in model.non_trainable_variables]
    if not training:
        infer = jax.jit(lambda weights, rest, images: model.stateless_call(weights, rest, images, training=False)[0])

        def run(steps: int) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                result = infer(weights, rest, images)
            jax.block_until_ready(result)
            return time.perf_counter() - start

        return run

    def loss(weights: Any, rest: Any) -> tuple[Any, Any]:
        logits, rest = model.stateless_call(weights, rest, images, training=True)
        chosen = jax.nn.log_softmax(logits.astype(jnp.float32))
        return -jnp.take_along_axis(chosen, labels[:, None], 1).mean(), rest

    def step(weights: Any, rest: Any, momenta: Any) -> tuple[Any, Any, Any]:
        (_, rest), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rest)
        momenta = [0.9 * momentum + gradient for momentum, gradient in zip(momenta, gradients, strict=True)]
        return [weight - 1e-4 * momentum for weight, momentum in zip(weights, momenta, strict=True)], rest, momenta

    jitted = jax.jit(step, donate_argnums=(0, 1, 2))
    state = jax.tree.map(jnp.array, (weights, rest, [jnp.zeros_like(weight) for weight in weights]))

    def train(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state = jitted(*state)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return train


def theirs(name: str, batch: int, size: int, training: bool, compiled: bool) -> Side:
    """The network of the same name in torchvision."""
    import torch
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    model = torchvision.models.get_model(name).to(device, memory_format=torch.channels_last).train(training)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % 1000
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            forward(images)

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step() if training else infer()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def card() -> str:
    """The name of the device that JAX computes on."""
    import jax

    return jax.devices()[0].device_kind


def main() -> None:
    """Print a JSON object for each network and mode, with the images per second of each side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="names that torchvision also has")
    parser.add_argument("--batch", type=int, default=256, help="batch size (256)")
    parser.add_argument("--image-size", type=int, default=224, help="image side in pixels (224)")
    parser.add_argument("--mode", default="train,inference", help="train, inference or both (both)")
    parser.add_argument("--steps", type=int, default=20, help="steps per round (20)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, in which the sides alternate (5)")
    asked = parser.parse_args()
    for name in asked.networks:
        for mode in asked.mode.split(","):
            common = (name, asked.batch, asked.image_size, mode == "train")
            sides = {"ours": ours(*common), "torch": theirs(*common, False), "torch.compile": theirs(*common, True)}
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            first = {side: run(3) for side, run in sides.items()}
            for _ in range(asked.rounds):
                for side, run in sides.items():
                    seconds[side].append(run(asked.steps))
            speed = {side: asked.batch * asked.steps / statistics.median(times) for side, times in seconds.items()}
            row = {"device": card(), "network": name, "mode": mode, "batch": asked.batch}
            row |= {f"{side} img/s": round(rate, 1) for side, rate in speed.items()}
            row |= {f"ours / {side}": round(speed["ours"] / speed[side], 3) for side in sides if side != "ours"}
            print(
                json.dumps(row | {"first 3 steps s": {side: round(took, 1) for side, took in first.items()}}),
                flush=True,
            )


if __name__ == "__main__":
    main()
