"""Makes ``goldens.npz``: what torchvision, timm and pytorchcv compute with weights that depend on nothing but names and shapes.

Run from the root of the repository, in an environment with torch, torchvision, timm and pytorchcv; neither Keras nor TensorFlow is needed:

    python -m tests.golden.make_goldens             # all peers
    python -m tests.golden.make_goldens '*resnet50*'    # those that match; the others stay as they are
"""

from __future__ import annotations

import fnmatch
import importlib
import importlib.metadata
import sys
import time
from typing import Any

import numpy as np
import torch

from keras_deepnets.benchmark.torch_side import averaging_the_whole_map, without_compiled_operators
from keras_deepnets.weights.naming import BOOKKEEPING
from tests.golden import store
from tests.golden.cases import CASES, CLASSES, Case
from tests.golden.deterministic import digest, golden_input, summary

LIBRARIES = ("torch", "torchvision", "timm", "pytorchcv")


def import_torchvision() -> Any:
    """Torchvision, also where its compiled operators do not load."""
    with without_compiled_operators():
        return importlib.import_module("torchvision")


def from_torchvision(name: str, build: tuple[str, dict[str, Any]] | None) -> torch.nn.Module:
    """A network of torchvision, or a residual network of bottlenecks or a DenseNet of its classes."""
    models = import_torchvision().models
    if build is None:
        return getattr(models, name)(weights=None, num_classes=CLASSES)
    kind, kwargs = build
    if kind == "densenet":
        return models.DenseNet(**kwargs, num_classes=CLASSES)
    if kind == "googlenet":
        return models.GoogLeNet(**kwargs, num_classes=CLASSES)
    if kind == "vgg":
        return small_vgg(models, **kwargs)
    return models.ResNet(models.resnet.Bottleneck, **kwargs, num_classes=CLASSES)


def small_vgg(models: Any, config: list[Any], batch_norm: bool, hidden: tuple[int, int]) -> torch.nn.Module:
    """A VGG of fewer channels, with the classifier that torchvision's has."""
    net = models.VGG(models.vgg.make_layers(config, batch_norm), num_classes=CLASSES, init_weights=False)
    nn, channels = torch.nn, [value for value in config if value != "M"][-1]
    net.classifier = nn.Sequential(
        *(nn.Linear(49 * channels, hidden[0]), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(hidden[0], hidden[1]), nn.ReLU(), nn.Dropout()),
        nn.Linear(hidden[1], CLASSES),
    )
    return net


def from_timm(name: str, build: tuple[str, dict[str, Any]] | None) -> torch.nn.Module:
    """A network of timm, or a ResNetV2 of bottlenecks with BN."""
    import_torchvision()
    timm = importlib.import_module("timm")
    if build is None:
        return timm.create_model(name, pretrained=False, num_classes=CLASSES)
    layers = timm.layers
    blocks = {"conv_layer": layers.create_conv2d, "norm_layer": layers.BatchNormAct2d}
    return timm.models.resnetv2.ResNetV2(**build[1], **blocks, num_classes=CLASSES)


def from_pytorchcv(name: str, build: tuple[str, dict[str, Any]] | None) -> torch.nn.Module:
    """A CIFAR network of pytorchcv, averaging over the whole last map: over 8×8, as it does, only at its own size."""
    import_torchvision()
    if build is None:
        get_model = importlib.import_module("pytorchcv.model_provider").get_model
        net = get_model(name, pretrained=False)
    else:
        module, _, function = build[0].partition(".")
        net = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)(num_classes=CLASSES, **build[1])
    return averaging_the_whole_map(net)


BUILDERS = {"torchvision": from_torchvision, "timm": from_timm, "pytorchcv": from_pytorchcv}


def build(case: Case) -> torch.nn.Module:
    """The peer with the golden weights, float64, in inference mode. Every tensor must have a name of ours, each another one."""
    library, _, name = case.peer.partition("/")
    net = BUILDERS[library](name, case.build)
    state = {name: value for name, value in net.state_dict().items() if not name.endswith(BOOKKEEPING)}
    ours = {name: case.style.naming.ours(name) for name in state}
    unknown = [name for name, found in ours.items() if found is None]
    if unknown or len(set(ours.values())) < len(ours):
        raise SystemExit(f"{case.peer}: no rule for {unknown}, or two tensors for one of ours.")
    filled = {name: torch.from_numpy(case.golden_weights(name, tuple(value.shape))) for name, value in state.items()}
    net.load_state_dict(filled, strict=False)
    return net.double().eval()


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    """``[n, c, h, w]`` to ``[n, h, w, c]``; ``[n, c]`` as it is."""
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).contiguous().numpy()


def outputs(case: Case, net: torch.nn.Module, height: int, width: int) -> list[np.ndarray]:
    """The summaries of all points of comparison for the golden image of that size."""
    found: dict[str, np.ndarray] = {}
    hooks = []
    for point, (module, _) in case.style.points.items():
        # At once, not after the pass: a later activation may write over what it reads.
        def keep(_module: Any, _inputs: Any, output: torch.Tensor, point: str = point) -> None:
            found[point] = summary(channels_last(output))

        hooks.append(net.get_submodule(module).register_forward_hook(keep))
    image = torch.from_numpy(golden_input(height, width)).double().permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        net(image)
    for hook in hooks:
        hook.remove()
    return [found[point] for point in case.style.points]


def golden(case: Case) -> store.Golden:
    """What the peer computes at the sizes of its style."""
    net = build(case)
    state = [(name, tuple(value.shape)) for name, value in net.state_dict().items() if not name.endswith(BOOKKEEPING)]
    summaries = np.array([outputs(case, net, *size) for size in case.style.sizes])
    return store.Golden(digest(state), summaries)


def main(patterns: list[str]) -> None:
    """Computes the goldens of the peers that match any of `patterns`, or of all, and writes the file."""
    goldens = store.load() if patterns else {}
    for case in CASES:
        if patterns and not any(fnmatch.fnmatchcase(case.peer, pattern) for pattern in patterns):
            continue
        start = time.perf_counter()
        goldens[case.peer] = golden(case)
        largest = goldens[case.peer].summaries[..., 0]
        print(
            f"{case.peer:36} {time.perf_counter() - start:6.1f} s  largest {largest.min():.2g} … {largest.max():.2g}",
            flush=True,
        )
    order = [case.peer for case in CASES if case.peer in goldens]
    versions = {library: importlib.metadata.version(library) for library in LIBRARIES}
    store.save({peer: goldens[peer] for peer in order}, versions)
    print(f"{store.PATH.name}: {len(order)} peers, {store.PATH.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
