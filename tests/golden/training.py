"""Fifty steps of loss as torch has them, from weights and batches that depend on nothing but names: ``training.json``.

Run from the root of the repository, in an environment with torch and pytorchcv:

    python -m tests.golden.training

It works in double precision, from the weights of `make_goldens`, and prints how far torch itself is away in float32. The optimizers and
rates are written here by hand; where the rate is constant, the losses of `torch.optim.SGD` are the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.recipes import get_recipe
from tests.golden.cases import CASES, CLASSES, Case
from tests.golden.deterministic import uniform

if TYPE_CHECKING:
    import torch

PATH = Path(__file__).with_suffix(".json")
STEPS, BATCH, SIDE = 50, 64, 16
RESNET, PREACT = "pytorchcv/resnet20_cifar10", "pytorchcv/preresnet20_cifar10"
DENSENET = "pytorchcv/densenet40_k12_bc_cifar10"
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "he2015_cifar": (RESNET, "he2015_cifar", {"learning_rate": 0.01}),
    "he2015_cifar, drops": (RESNET, "he2015_cifar", {"learning_rate": 0.01, "steps": STEPS}),
    "he2016_cifar": (PREACT, "he2016_cifar", {"warmup_learning_rate": 0.005}),
    "huang2017_cifar": (DENSENET, "huang2017_cifar", {"learning_rate": 0.001}),
    "zagoruyko2016": (PREACT, "zagoruyko2016", {"learning_rate": 0.005, "steps": STEPS}),
    "fast": (RESNET, "fast", {"learning_rate": 0.01, "steps": STEPS, "ema": None}),
    "wightman2021_a3": (RESNET, "wightman2021_a3", {"learning_rate": 2e-3, "steps": STEPS, "warmup": "10 steps"}),
}
"""Name to peer, recipe and what is changed in it: a length that brings its drops into the fifty steps; no average; lower rates.

At the papers' rates rounding errors grow up to thirtyfold a step, from these weights and from He's alike: from He's, at 0.1, torch in
float32 and torch in double precision are 44 % apart after fifty steps. What is compared here is the arithmetic of a step, which the rate
only scales.
"""


def case_of(peer: str) -> Case:
    """The row of the table of peers."""
    return next(case for case in CASES if case.peer == peer)


def recipe_of(name: str) -> Recipe:
    """The recipe of a run."""
    _, recipe, changes = RUNS[name]
    return get_recipe(recipe, **changes)


def batches(mixed: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images ``[64, 16, 16, 3]`` that are noise around a pattern of their class, and the classes ``[64]``.

    With `mixed` each is blended with another and its target, ``[64, 10]``, is too, some of them below the threshold of a class.
    """
    patterns = uniform("patterns", (CLASSES, SIDE, SIDE, 3), -1.0, 1.0)
    for step in range(STEPS):
        labels = (uniform(f"labels {step}", (BATCH,), 0, CLASSES)).astype(np.int64)
        images = patterns[labels] + uniform(f"images {step}", (BATCH, SIDE, SIDE, 3), -1.0, 1.0)
        if not mixed:
            yield images, labels
            continue
        share = uniform(f"share {step}", (BATCH, 1), 0.0, 1.0)
        one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
        part = share[..., None, None]
        yield part * images + (1 - part) * images[::-1], share * one_hot + (1 - share) * one_hot[::-1]


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step."""
    part = step / STEPS
    if recipe.schedule == "one_cycle":
        top, peak = recipe.peak_at, recipe.learning_rate
        return peak / 25 + (peak - peak / 25) * part / top if part < top else peak * (1 - part) / (1 - top)
    if recipe.schedule == "cosine":
        after = recipe.learning_rate * (1 + math.cos(math.pi * part)) / 2
        return after * min(1.0, step / 10)  # ten steps of warm-up
    if recipe.warmup:
        return recipe.warmup_learning_rate
    passed = sum(step >= milestone * (recipe.steps or math.inf) for milestone in recipe.milestones)
    return recipe.learning_rate * recipe.drop**passed


def decays(recipe: Recipe, parameter: torch.Tensor) -> bool:
    """Whether a parameter decays."""
    return recipe.weight_decay_on == "all" or parameter.ndim > 1


class Descent:
    """Gradient descent as Caffe has it: the rate of each step stays in the momentum (torch multiplies it by the latest)."""

    def __init__(self, parameters: list[torch.Tensor], recipe: Recipe):
        self.parameters, self.recipe = parameters, recipe
        self.moved = [parameter.new_zeros(parameter.shape) for parameter in parameters]

    def step(self, rate: float) -> None:
        """Updates the parameters in place."""
        momentum = self.recipe.momentum
        for parameter, moved in zip(self.parameters, self.moved, strict=True):
            decay = self.recipe.weight_decay if decays(self.recipe, parameter) else 0.0
            down = rate * (parameter.grad + decay * parameter.data)
            moved.mul_(momentum).sub_(down)
            parameter.data += momentum * moved - down if self.recipe.nesterov else moved


class Lamb:
    """You et al. 2019, Algorithm 2, with gradients of norm 1 at most, as timm has it; what does not decay has no trust ratio."""

    def __init__(self, parameters: list[torch.Tensor], recipe: Recipe):
        self.parameters, self.recipe, self.count = parameters, recipe, 0
        self.first = [parameter.new_zeros(parameter.shape) for parameter in parameters]
        self.second = [parameter.new_zeros(parameter.shape) for parameter in parameters]

    def step(self, rate: float) -> None:
        """Updates the parameters in place."""
        self.count += 1
        norm = sum(parameter.grad.square().sum() for parameter in self.parameters).sqrt()
        for parameter, first, second in zip(self.parameters, self.first, self.second, strict=True):
            gradient = parameter.grad / max(float(norm), 1.0)
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient.square())
            mean, square = first / (1 - 0.9**self.count), second / (1 - 0.999**self.count)
            update, ratio = mean / (square.sqrt() + 1e-6), 1.0
            if decays(self.recipe, parameter):
                update = update + self.recipe.weight_decay * parameter.data
                ratio = parameter.data.norm() / update.norm()
            parameter.data -= rate * ratio * update


def loss_of(recipe: Recipe, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean loss of a batch."""
    import torch

    smoothing = recipe.label_smoothing
    if recipe.loss == "crossentropy":
        return torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    whole = (targets >= 0.2).to(logits.dtype) * (1 - smoothing) + smoothing / CLASSES
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, whole)


def losses(name: str, dtype: torch.dtype, make: Callable[..., Any] | None = None) -> list[float]:
    """The loss of each step, before the step; `make` from parameters and recipe to another optimizer."""
    import torch

    from tests.golden.make_goldens import build

    recipe, network = recipe_of(name), build(case_of(RUNS[name][0]))
    network.to(dtype).train()
    parameters = list(network.parameters())
    optimizer = (make or (Lamb if recipe.optimizer == "lamb" else Descent))(parameters, recipe)
    found = []
    for step, (images, targets) in enumerate(batches(recipe.loss == "binary_crossentropy")):
        network.zero_grad()
        logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype))
        loss = loss_of(recipe, logits, torch.from_numpy(targets))
        loss.backward()
        optimizer.step(rate(recipe, step))
        found.append(float(loss.detach()))
    return found


class Torchs:
    """`torch.optim.SGD` at a constant rate."""

    def __init__(self, parameters: list[torch.Tensor], recipe: Recipe):
        import torch

        options = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay, "nesterov": recipe.nesterov}
        self.optimizer = torch.optim.SGD(parameters, lr=rate(recipe, 0), **options)

    def step(self, rate: float) -> None:
        """Updates the parameters in place; all rates are the first."""
        assert rate == self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()


def main() -> None:
    """Writes the goldens; prints for each run the first and last loss, and how far float32 is away at worst."""
    import torch

    goldens = {}
    for name in RUNS:
        goldens[name] = np.array(losses(name, torch.float64))
        if len({rate(recipe_of(name), step) for step in range(STEPS)}) == 1:
            np.testing.assert_allclose(losses(name, torch.float64, Torchs), goldens[name], rtol=1e-9)
        single = np.abs(np.array(losses(name, torch.float32)) / goldens[name] - 1).max()
        print(f"{name:22} {goldens[name][0]:.4f} {goldens[name][-1]:.4f}  float32 {single:.1e}", flush=True)
    rounded = {name: [float(f"{value:.8g}") for value in values] for name, values in goldens.items()}
    PATH.write_text(json.dumps(rounded, indent=1) + "\n")


if __name__ == "__main__":
    main()
