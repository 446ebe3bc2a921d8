"""Fifty steps of loss as torch has them, from weights and batches that depend on nothing but names: ``training.json``.

Run from the root of the repository, in an environment with torch and pytorchcv (neither Keras nor TensorFlow is needed):

    python -m tests.golden.training

The weights are those of `make_goldens`, float32; the optimizer is `torch.optim.SGD` without dampening with the recipe's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_deepnets.training.recipes import Recipe, get_recipe
from tests.golden.cases import CASES, CLASSES, Case
from tests.golden.deterministic import uniform

PATH = Path(__file__).with_suffix(".json")
STEPS, BATCH, SIDE = 50, 64, 16
RUNS = {
    "pytorchcv/resnet20_cifar10": ("he2015_cifar", {"learning_rate": 0.01}),
    "pytorchcv/preresnet20_cifar10": ("he2016_cifar", {"warmup_learning_rate": 0.005}),
    "pytorchcv/densenet40_k12_bc_cifar10": ("huang2017_cifar", {"learning_rate": 0.001}),
}
"""Peer to recipe and what is changed in it.

At the papers' rates, from these weights, rounding errors grow up to thirtyfold a step: where rates are lower here. All first steps
have one rate: torch multiplies the momentum by a new one, Keras and the Caffe of the papers do not.
"""


def case_of(peer: str) -> Case:
    """The row of the table of peers."""
    return next(case for case in CASES if case.peer == peer)


def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images ``[64, 16, 16, 3]`` that are noise around a pattern of their class, and the classes."""
    patterns = uniform("patterns", (CLASSES, SIDE, SIDE, 3), -1.0, 1.0)
    for step in range(STEPS):
        labels = (uniform(f"labels {step}", (BATCH,), 0, CLASSES)).astype(np.int64)
        yield patterns[labels] + uniform(f"images {step}", (BATCH, SIDE, SIDE, 3), -1.0, 1.0), labels


def torch_losses(case: Case, recipe: Recipe) -> list[float]:
    """The loss of each step, before the step."""
    import torch

    from tests.golden.make_goldens import build

    network = build(case).float().train()
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=recipe.warmup_learning_rate if recipe.warmup else recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    found = []
    for images, labels in batches():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())), torch.from_numpy(labels)
        )
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


if __name__ == "__main__":
    goldens = {peer: torch_losses(case_of(peer), get_recipe(name, **changes)) for peer, (name, changes) in RUNS.items()}
    PATH.write_text(json.dumps(goldens, indent=1) + "\n")
    for peer, values in goldens.items():
        print(peer, values[0], values[-1])
