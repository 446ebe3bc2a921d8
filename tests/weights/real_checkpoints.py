"""Published CIFAR-10 checkpoints in torch and in our networks, image by image.

``python -m tests.weights.real_checkpoints CHECKPOINTS IMAGES`` takes every ``resnet<depth>-*.th`` of a folder and the images of a folder
of class folders, and prints for each checkpoint on how many images the classes agree, and the largest difference of a logit.
torch's network is written here, as their author's (github.com/akamaster/pytorch_resnet_cifar10) reads, and the input is scaled as he did.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

import keras_deepnets as kd

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLERANCE = 1e-4
_BATCH = 500


def images_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[n, 32, 32, 3]`` and the indices ``[n]`` of their class folders."""
    from PIL import Image

    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    classes = sorted({file.parent.name for file in files})
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return pixels, np.array([classes.index(file.parent.name) for file in files])


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Float32, by the mean and deviation of each channel."""
    return ((pixels / 255 - MEAN) / STD).astype("float32")


def torch_network(depth: int, checkpoint: Path) -> Any:
    """torch's ResNet with shortcut A and the weights of a checkpoint, which must fit exactly."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, inputs: int, filters: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, filters, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
            self.stride, self.added = stride, filters - inputs

        def forward(self, x: Any) -> Any:
            branch = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            half = self.added // 2
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
            return torch.relu(branch + shortcut)

    class Network(nn.Module):
        def __init__(self, blocks: int):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            for stage, (inputs, filters) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
                first = Block(inputs, filters, 1 if stage == 1 else 2)
                rest = (Block(filters, filters, 1) for _ in range(blocks - 1))
                setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
            return self.linear(x.mean((2, 3)))

    network = Network((depth - 2) // 6)
    tensors = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): tensor for name, tensor in tensors.items()})
    return network.eval()


def torch_logits(depth: int, checkpoint: Path, images: np.ndarray) -> np.ndarray:
    """``[n, 10]``."""
    import torch

    network = torch_network(depth, checkpoint)
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(scaled(images[at : at + _BATCH]).transpose(0, 3, 1, 2).copy())).numpy()
            for at in range(0, len(images), _BATCH)
        ]
    return np.concatenate(parts)


def our_logits(depth: int, checkpoint: Path, images: np.ndarray) -> np.ndarray:
    """``[n, 10]``: the file by its path, uint8 images, the same scaling inside the network."""
    scaling = kd.Scaling([255 * mean for mean in MEAN], [255 * std for std in STD])
    constructor = getattr(kd, f"ResNet{depth}")
    model = constructor(weights=checkpoint, include_preprocessing=scaling, classifier_activation=None)
    return np.asarray(model.predict(images, batch_size=_BATCH, verbose=0))


def compared(checkpoint: Path, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What `main` prints of a checkpoint."""
    depth = int(re.match(r"resnet(\d+)-", checkpoint.name)[1])
    theirs, ours = torch_logits(depth, checkpoint, images), our_logits(depth, checkpoint, images)
    return {
        "images": len(images),
        "same": int((theirs.argmax(1) == ours.argmax(1)).sum()),
        "difference": float(np.abs(theirs - ours).max()),
        "largest": float(np.abs(theirs).max()),
        "top1": float((ours.argmax(1) == labels).mean()),
    }


def main(arguments: list[str]) -> int:
    """Prints a line a checkpoint; 1 where one is off."""
    if len(arguments) != 2:
        raise SystemExit("usage: python -m tests.weights.real_checkpoints CHECKPOINTS IMAGES")
    checkpoints, folder = map(Path, arguments)
    files = sorted(checkpoints.glob("resnet*-*.th"))
    images, labels = images_of(folder)
    print(
        "| checkpoint | images | same class | largest logit difference | largest logit | top-1 |\n|---|---|---|---|---|---|"
    )
    good = bool(files)
    for file in files:
        found = compared(file, images, labels)
        good &= found["same"] == found["images"] and found["difference"] < TOLERANCE
        print(
            f"| {file.name} | {found['images']:,} | {found['same']:,} | {found['difference']:.1e} | {found['largest']:.1f} | "
            f"{100 * found['top1']:.2f} % |",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
