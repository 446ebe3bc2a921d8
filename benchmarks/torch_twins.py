"""The CIFAR networks in PyTorch, and a training loop on images in GPU memory, to compare with.

    python -m benchmarks.torch_twins resnet20 IMAGES.npz SETTINGS.json

A separate process trains, because PyTorch's compiler and TensorFlow do not load into the same process. The `.npz` file has the arrays
`images`, `labels`, `test_images` and `test_labels`. The JSON file has the arguments of `train`. The result is printed as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation, and a shortcut without parameters (He et al. 2015, option A)."""

    def __init__(self, inputs: int, filters: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps to maps."""
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return functional.relu(y + functional.pad(shortcut, (0, 0, 0, 0, 0, self.added)))


class WideBlock(nn.Module):
    """A pre-activation block with a projection where shapes change (Zagoruyko and Komodakis 2016)."""

    def __init__(self, inputs: int, filters: int, stride: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.project = nn.Conv2d(inputs, filters, 1, stride, bias=False) if inputs != filters else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps to maps."""
        active = functional.relu(self.norm1(x))
        y = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return y + (x if self.project is None else self.project(active))


class CifarNet(nn.Module):
    """Three groups of blocks, global average pooling and a classifier."""

    def __init__(self, block: type, blocks: int, width: int, classes: int = 10, channels: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        wide = block is WideBlock
        self.first = nn.Identity() if wide else nn.Sequential(nn.BatchNorm2d(16), nn.ReLU())
        layers, inputs = [], 16
        for group, filters in enumerate((16 * width, 32 * width, 64 * width)):
            for place in range(blocks):
                layers.append(block(inputs, filters, 2 if group and not place else 1))
                inputs = filters
        self.blocks = nn.Sequential(*layers)
        self.last = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU()) if wide else nn.Identity()
        self.classifier = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015, section 3.4
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images ``[n, c, h, w]`` to logits."""
        return self.classifier(self.last(self.blocks(self.first(self.stem(x)))).mean((2, 3)))


def twin(name: str, **options: Any) -> nn.Module:
    """The twin of ``resnet20``, ``wideresnet28_10`` and their kin."""
    if name.startswith("wideresnet"):
        depth, width = map(int, name.removeprefix("wideresnet").split("_"))
        return CifarNet(WideBlock, (depth - 4) // 6, width, **options)
    return CifarNet(BasicBlock, (int(name.removeprefix("resnet")) - 2) // 6, 1, **options)


class Trained(NamedTuple):
    """The result of `train`."""

    accuracy: float
    seconds: float


def train(
    model: nn.Module,
    train_set: tuple[np.ndarray, np.ndarray],
    test_set: tuple[np.ndarray, np.ndarray],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    milestones: Sequence[float],
    drop: float,
    momentum: float,
    weight_decay: float,
    padding: int = 4,
    seed: int = 0,
    compiled: bool = True,
) -> Trained:
    """Train a twin as the ResNet paper does: SGD, a piecewise learning rate, padding, random crops and flips.

    Args:
        model: The twin.
        train_set: Images uint8 ``[n, h, w, c]`` and labels.
        test_set: The same, to measure the accuracy on.
        steps: Number of steps.
        batch_size: Images per step.
        learning_rate: Initial learning rate.
        milestones: Shares of the steps after which the rate is multiplied by `drop`.
        drop: Factor of the learning rate.
        momentum: Of SGD.
        weight_decay: Of all weights.
        padding: Pixels around each image before the random crop.
        seed: Seed of the order and the augmentation.
        compiled: Whether to compile the network.
    """
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mean, deviation = train_set[0].mean((0, 1, 2)), train_set[0].std((0, 1, 2))
    (images, labels), (tests, truths) = (
        (
            torch.tensor((images - mean) / deviation, dtype=torch.float32).permute(0, 3, 1, 2).to(device),
            torch.tensor(labels, dtype=torch.int64).to(device),
        )
        for images, labels in (train_set, test_set)
    )
    model = model.to(device, memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum, weight_decay=weight_decay)
    ends = [round(share * steps) for share in milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, ends, drop)
    per_epoch = len(images) // batch_size
    start = time.perf_counter()
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), device=device)
        rows = order[step % per_epoch * batch_size :][:batch_size]
        with torch.autocast(device, torch.bfloat16):
            loss = functional.cross_entropy(forward(augmented(images[rows], padding)), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(tests[at : at + 1000]).argmax(1) == truths[at : at + 1000]).sum())
            for at in range(0, len(tests), 1000)
        )
    return Trained(right / len(tests), seconds)


def augmented(images: torch.Tensor, padding: int) -> torch.Tensor:
    """Padded images, each cut out at a random place and mirrored with probability 0.5: ``[n, c, h, w]``, channels last."""
    count, _, height, width = images.shape
    device = images.device
    padded = functional.pad(images, [padding] * 4).permute(0, 2, 3, 1)
    rows = torch.randint(2 * padding + 1, (count, 1), device=device) + torch.arange(height, device=device)
    columns = torch.randint(2 * padding + 1, (count, 1), device=device) + torch.arange(width, device=device)
    mirrored = torch.rand(count, 1, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    places = torch.arange(count, device=device)[:, None, None]
    return padded[places, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def main() -> None:
    """Train a twin on the images of a file."""
    name, images, settings = sys.argv[1:]
    arrays = np.load(images)
    train_set, test_set = ((arrays[f"{part}images"], arrays[f"{part}labels"]) for part in ("", "test_"))
    model = twin(name, channels=train_set[0].shape[-1], classes=int(train_set[1].max()) + 1)
    done = train(model, train_set, test_set, **json.loads(Path(settings).read_text()))
    print(json.dumps(done._asdict()))


if __name__ == "__main__":
    main()
