"""Every network of other libraries that loads: theirs with random weights and statistics against ours with the same.

``python -m tests.weights.proof ['resnet50*' 'pytorchcv/*' …]`` prints a table (needs torch, torchvision, timm, pytorchcv; Cadene's and
KerasHub's where they are there): name, ours, seconds to build and load, largest difference of logits and stages at the usual size and at
an odd one, relative to the largest number. The CIFAR networks have a table of their own.
``--missing`` prints the names that do not load, and why.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.util
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import keras_deepnets as kd
from keras_deepnets.benchmark.torch_side import averaging_the_whole_map, without_compiled_operators
from keras_deepnets.models import deep_graphs
from keras_deepnets.weights import cards
from keras_deepnets.weights.cards.networks import BUILDERS, NETWORKS, PYTORCHCV_CIFAR10, why_not
from tests.golden import cases
from tests.weights.common import write_hdf5_of_2019

SIZES = ((224, 224), (161, 129))
CIFAR_SIZES = ((32, 32), (37, 29))
PATTERNS = ("*resn*", "densenet*")
_END = "outputs"
Points = dict[str, tuple[str, str]]
"""Stage to their module and our layer. ``<module`` is what the module reads."""

_CADENE: Points = {
    "stem": ("pool2_3x3_s2", "pool2_3x3_s2"),
    "stage 3": ("<inception_3c_3x3_reduce", "inception_3b_output"),
    "3c": ("<inception_4a_1x1", "inception_3c_output"),
    "stage 4": ("<inception_4e_3x3_reduce", "inception_4d_output"),
    "stage 5": ("<global_pool", "inception_5b_output"),
}


@dataclass(frozen=True)
class Peer:
    """A network of another library.

    Attributes:
        name: ``"library/network"``.
        ours: constructor and options of ours.
        run: ``(size) -> {stage: array}``: stage names are those of our layers, arrays channels last.
        save: writes its weights into a folder and gives the path, or a Keras model.
        sizes: of the images: that of the weights and an odd one.
        layers: stage to our layer. Empty: the last layer of each residual or dense stage.
        fixed: stages that theirs has only at the first size.
    """

    name: str
    ours: tuple[str, dict[str, Any]]
    run: Callable[[tuple[int, int]], dict[str, np.ndarray]]
    save: Callable[[Path], Any]
    sizes: tuple[tuple[int, int], tuple[int, int]] = SIZES
    layers: dict[str, str] = dataclasses.field(default_factory=dict)
    fixed: tuple[str, ...] = ()


def images(size: tuple[int, int]) -> np.ndarray:
    """One image."""
    return np.random.default_rng(0).normal(size=(1, *size, 3)).astype("float32")


def torch_peers(patterns: list[str]) -> Iterator[Peer]:
    """timm's networks, and those of torchvision that it shares."""
    with without_compiled_operators():
        timm, torchvision = importlib.import_module("timm"), importlib.import_module("torchvision")
    for name, ours in NETWORKS.items():
        if name in timm.list_models() and _wanted(f"timm/{name}", patterns):
            side = _card_size(name, ours)
            yield dataclasses.replace(
                _torch_peer(f"timm/{name}", ours, timm.create_model(name), _points("timm", name)),
                sizes=((side, side), SIZES[1]),
            )
        if name in torchvision.models.list_models() and _wanted(f"torchvision/{name}", patterns):
            # Its own initial values of GoogLeNet take long, and are replaced.
            options = {"init_weights": False} if name == "googlenet" else {}
            network = getattr(torchvision.models, name)(**options)
            yield _torch_peer(f"torchvision/{name}", ours, network, _points("torchvision", name))


def _points(library: str, name: str) -> Points:
    """What is compared in VGG and GoogLeNet. Empty for residual and dense networks."""
    if name == "googlenet":
        return cases.TORCHVISION_GOOGLENET.points
    match = re.fullmatch(r"vgg(\d+)(_bn)?", name)
    if not match:
        return {}
    points = cases.vgg_style(int(match[1]), match[2] is not None).points
    return points | ({"hidden": ("pre_logits.act2", "fc2")} if library == "timm" else {})


def _card_size(name: str, ours: tuple[str, dict[str, Any]]) -> int:
    """The size of the first card of timm's network; the usual one where it has none."""
    tag = f"timm/{name}." if ours[0] in BUILDERS else "timm/"
    sizes = [card.image_size for card in cards.cards_of(ours[0]) if card.name.startswith(tag)]
    return sizes[0] if sizes else SIZES[0][0]


def pytorchcv_peers(patterns: list[str]) -> Iterator[Peer]:
    """pytorchcv's BN-Inception and CIFAR-10 networks. They average over the whole last map, as they do at their own size."""
    with without_compiled_operators():
        get_model = importlib.import_module("pytorchcv.model_provider").get_model
    if _wanted("pytorchcv/bninception", patterns):
        style = cases.PYTORCHCV_BN_INCEPTION
        network = averaging_the_whole_map(get_model("bninception", pretrained=False))
        peer = _torch_peer("pytorchcv/bninception", ("BNInception", {}), network, style.points)
        yield dataclasses.replace(peer, sizes=style.sizes)
    fractal = {"fractalnet_cifar10": ("FractalNet21", {"pool_before_join": False})}
    styles = {"nin_cifar10": cases.PYTORCHCV_NIN, "fractalnet_cifar10": cases.PYTORCHCV_FRACTALNET}
    for name, ours in (PYTORCHCV_CIFAR10 | fractal).items():
        if _wanted(f"pytorchcv/{name}", patterns):
            network = averaging_the_whole_map(get_model(name, pretrained=False))
            style = styles.get(name)
            peer = _torch_peer(f"pytorchcv/{name}", ours, network, style.points if style else {})
            yield dataclasses.replace(peer, sizes=style.sizes if style else CIFAR_SIZES)


def cadene_peers(patterns: list[str]) -> Iterator[Peer]:
    """Cadene's BN-Inception, where the package is installed. It averages over the whole last map, as it does at its own size."""
    import torch

    if not _wanted("cadene/bninception", patterns):
        return
    if importlib.util.find_spec("pretrainedmodels") is None:
        print("Cadene's pretrainedmodels is not installed: its network is left out", file=sys.stderr)
        return
    with without_compiled_operators():
        network = importlib.import_module("pretrainedmodels").bninception(pretrained=None)
    network.global_pool = torch.nn.AdaptiveAvgPool2d(1)
    peer = _torch_peer("cadene/bninception", ("BNInception", {}), network, _CADENE)
    yield dataclasses.replace(peer, sizes=cases.PYTORCHCV_BN_INCEPTION.sizes)


def _torch_peer(
    name: str, ours: tuple[str, dict[str, Any]], network: Any, points: Mapping[str, tuple[str, str]] | None = None
) -> Peer:
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part, tensor in network.state_dict().items():
            if part.endswith("num_batches_tracked"):
                continue
            if part.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim == 1 and part.endswith("weight"):
                # What ends a branch is small, or the numbers grow with depth.
                last = re.search(r"layer\d\.\d+\.bn[23]\.|body\.conv[23]\.bn\.", part) is not None
                tensor.uniform_(0.2 if last else 0.5, 0.4 if last else 1.5, generator=generator)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.1, generator=generator)
            elif points:
                # Without shortcuts, the numbers would vanish with depth.
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    network.eval()
    stages = {stage: places for stage, places in (points or {}).items() if stage != "logits"}

    def run(size: tuple[int, int]) -> dict[str, np.ndarray]:
        found, handles = {}, []

        def keep(stage: str, reads: bool) -> Callable[..., None]:
            def hook(module: Any, inputs: Any, output: Any) -> None:
                tensor = inputs[0] if reads else output
                # A copy, because a later activation may write over what it reads.
                found[stage] = (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy().copy()

            return hook

        theirs = {stage: place for stage, (place, _) in stages.items()}
        modules = {stage: network.get_submodule(place.removeprefix("<")) for stage, place in theirs.items()}
        for stage, module in modules.items() if modules else _stages(network):
            reads = theirs.get(stage, "").startswith("<")
            handles.append(module.register_forward_hook(keep(stage, reads)))
        with torch.no_grad():
            found[_END] = network(torch.from_numpy(images(size).transpose(0, 3, 1, 2).copy())).numpy()
        for handle in handles:
            handle.remove()
        return found

    def save(folder: Path) -> Path:
        from safetensors.torch import save_file

        save_file(network.state_dict(), folder / "model.safetensors")
        return folder / "model.safetensors"

    return Peer(name, ours, run, save, layers={stage: layer for stage, (_, layer) in stages.items()})


def _stages(network: Any) -> Iterator[tuple[str, Any]]:
    """Our stage ("conv2" … "conv5", on CIFAR to "conv4") and their module."""
    if hasattr(network, "layer1"):
        yield from ((f"conv{i + 1}", getattr(network, f"layer{i}")) for i in range(1, 5))
    elif hasattr(network, "stages"):
        yield from ((f"conv{i + 2}", stage) for i, stage in enumerate(network.stages))
    elif hasattr(network.features, "stage1"):
        yield from ((f"conv{i + 1}", getattr(network.features, f"stage{i}")) for i in range(1, 4))
    else:
        yield from ((f"conv{i + 1}", getattr(network.features, f"denseblock{i}")) for i in range(1, 5))


def keras_peers(patterns: list[str]) -> Iterator[Peer]:
    """keras.applications."""
    import keras

    rows = {f"ResNet{depth}": {"downsample": "1x1"} for depth in (50, 101, 152)}
    rows |= {f"ResNet{depth}V2": {"form": "keras"} for depth in (50, 101, 152)}
    rows |= {f"DenseNet{depth}": {} for depth in (121, 169, 201)}
    for name, options in rows.items():
        if not _wanted(f"keras/{name.lower()}", patterns):
            continue

        def build(size: tuple[int, int], name: str = name) -> Any:
            # With the classifier theirs are made for one size.
            return getattr(keras.applications, name)(weights=None, input_shape=(*size, 3), classifier_activation=None)

        yield _application_peer(f"keras/{name.lower()}", (name, options), build)
    for name in ("VGG16", "VGG19"):
        if _wanted(f"keras/{name.lower()}", patterns):
            yield _application_vgg(name)


def _application_vgg(name: str) -> Peer:
    """keras.applications' VGG. Its hidden layers have one size of images."""
    import keras

    build = getattr(keras.applications, name)
    network = build(weights=None, classifier_activation=None)
    rng = np.random.default_rng(0)
    for weight in network.weights:
        deviation = (2 / np.prod(weight.shape[:-1])) ** 0.5 if weight.name == "kernel" else 0.1
        weight.assign(rng.standard_normal(weight.shape, "float32") * np.float32(deviation))
    layers = {f"stage {stage}": f"block{stage}_pool" for stage in range(1, 6)} | {"hidden": "fc2"}

    def run(size: tuple[int, int]) -> dict[str, np.ndarray]:
        own = size == SIZES[0]
        sized = network if own else build(weights=None, include_top=False, input_shape=(*size, 3))
        if not own:
            sized.set_weights(network.get_weights()[: len(sized.weights)])
        outputs = {stage: sized.get_layer(layer).output for stage, layer in layers.items() if own or layer != "fc2"}
        outputs |= {_END: sized.output} if own else {}
        return {k: np.asarray(v) for k, v in keras.Model(sized.input, outputs)(images(size), training=False).items()}

    def save(folder: Path) -> Path:
        write_hdf5_of_2019(network, folder / "model.h5")
        return folder / "model.h5"

    return Peer(f"keras/{name.lower()}", (name, {}), run, save, layers=layers, fixed=("hidden", _END))


def keras_hub_peers(patterns: list[str]) -> Iterator[Peer]:
    """KerasHub's backbones, where it is installed: as their presets have them."""
    if importlib.util.find_spec("keras_hub") is None:
        print("KerasHub is not installed: its networks are left out", file=sys.stderr)
        return
    models = importlib.import_module("keras_hub").models
    named = {
        18: ("basic_block", [2, 2, 2, 2]),
        34: ("basic_block", [3, 4, 6, 3]),
        50: ("bottleneck_block", [3, 4, 6, 3]),
        101: ("bottleneck_block", [3, 4, 23, 3]),
        152: ("bottleneck_block", [3, 8, 36, 3]),
        200: ("bottleneck_block", [3, 12, 48, 3]),
    }
    for depth, (block, blocks) in named.items():
        basic = block == "basic_block"
        three = {} if basic else {"downsample": "3x3"}
        deep = {"blocks": tuple(blocks), "deep_stem": (32, 32, 64), "shortcut": "D"}
        deep |= {"project_first": True} if basic else {"block": "bottleneck", "downsample": "3x3"}
        kinds = {f"resnet_vd_{depth}": ("ResNet", deep, False, "_vd", [32, 32, 64], [3, 3, 3])}
        if depth < 200:  # ResNet-V2's 200 layers are other ones
            kinds[f"resnet_{depth}"] = (f"ResNet{depth}", three, False, "", [64], [7])
            kinds[f"resnet_v2_{depth}"] = (f"ResNet{depth}V2", {}, True, "", [64], [7])
        for name, (constructor, options, before, suffix, filters, kernels) in kinds.items():
            if not _wanted(f"kerashub/{name}", patterns):
                continue
            network = models.ResNetBackbone(
                input_conv_filters=filters,
                input_conv_kernel_sizes=kernels,
                stackwise_num_filters=[64, 128, 256, 512],
                stackwise_num_blocks=blocks,
                stackwise_num_strides=[1, 2, 2, 2],
                block_type=block + suffix,
                use_pre_activation=before,
                image_shape=(None, None, 3),
            )
            classifier = models.ResNetImageClassifier(backbone=network, num_classes=1000, preprocessor=None)
            yield _hub_peer(f"kerashub/{name}", (constructor, options), classifier)
    for depth, blocks in {121: [6, 12, 24, 16], 169: [6, 12, 32, 32], 201: [6, 12, 48, 32]}.items():
        if _wanted(f"kerashub/densenet_{depth}", patterns):
            network = models.DenseNetBackbone(stackwise_num_repeats=blocks)
            classifier = models.DenseNetImageClassifier(backbone=network, num_classes=1000, preprocessor=None)
            yield _hub_peer(f"kerashub/densenet_{depth}", (f"DenseNet{depth}", {"stem_padding": "same"}), classifier)


def _application_peer(name: str, ours: tuple[str, dict[str, Any]], build: Callable[..., Any]) -> Peer:
    """keras.applications', saved as their published files are: of 2019, with that time's name of the classifier."""
    network = build(SIZES[0])
    _fill_keras(network)
    dense = "densenet" in name

    def run(size: tuple[int, int]) -> dict[str, np.ndarray]:
        sized = build(size)
        sized.set_weights(network.get_weights())
        return _outputs(sized, size)

    def save(folder: Path) -> Path:
        write_hdf5_of_2019(network, folder / "model.h5", "fc1000" if dense else "probs", slashes=dense)
        return folder / "model.h5"

    return Peer(name, ours, run, save)


def _hub_peer(name: str, ours: tuple[str, dict[str, Any]], classifier: Any) -> Peer:
    """KerasHub's, a backbone with its classifier's head."""
    _fill_keras(classifier)

    def run(size: tuple[int, int]) -> dict[str, np.ndarray]:
        found = _outputs(classifier.backbone, size)
        return found | {_END: np.asarray(classifier(images(size), training=False))}

    def save(folder: Path) -> Path:
        classifier.save_weights(folder / "model.weights.h5")
        return folder / "model.weights.h5"

    return Peer(name, ours, run, save)


def _fill_keras(network: Any) -> None:
    """Random statistics, scales and shifts; kernels are random from the start."""
    rng = np.random.default_rng(0)
    for weight in network.weights:
        kind = weight.path.rpartition("/")[2]
        if kind in ("gamma", "moving_variance"):
            last = re.search(r"_(3|0)_bn", weight.path) is not None and kind == "gamma"
            weight.assign(rng.uniform(0.2 if last else 0.5, 0.4 if last else 1.5, weight.shape))
        elif kind != "kernel":
            weight.assign(rng.normal(0, 0.1, weight.shape))


def _outputs(network: Any, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Our stage to what theirs ends with, and its end."""
    import keras

    stages = {}
    for layer in network.layers:
        match = re.fullmatch(r"(conv\d)_block\d+_(out|concat)", layer.name)
        if match:
            stages[match[1]] = layer.output
        match = re.fullmatch(r"stack(\d)_block\d+_(out|concat)", layer.name)
        if match:  # their residual stages count from 0, their dense ones from 1
            stages[f"conv{int(match[1]) + (2 if match[2] == 'out' else 1)}"] = layer.output
    outputs = stages | {_END: network.output}
    return {k: np.asarray(v) for k, v in keras.Model(network.input, outputs)(images(size), training=False).items()}


def _wanted(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, f"*{pattern}") for pattern in patterns)


def compared(peer: Peer) -> tuple[float, dict[tuple[int, int], float]]:
    """Seconds to build and load, and size to largest relative difference."""
    import keras

    constructor, options = peer.ours
    with tempfile.TemporaryDirectory() as folder:
        source = peer.save(Path(folder))
        begin = time.perf_counter()
        model = getattr(kd, constructor)(input_shape=(None, None, 3), classifier_activation=None, **options)
        kd.load_weights(model, source)
        seconds = time.perf_counter() - begin
    ends = {stage: model.get_layer(layer).output for stage, layer in peer.layers.items()}
    for layer in [] if ends else model.layers:
        match = re.fullmatch(r"(conv\d)_block\d+_(out|concat)", layer.name)
        if match:
            ends[match[1]] = layer.output
    ends[_END] = model.output
    with deep_graphs():
        ours = keras.Model(model.input, ends)
    worst = {}
    for size in peer.sizes:
        theirs = peer.run(size)
        with deep_graphs():
            found = ours(images(size), training=False)
        assert theirs.keys() == ends.keys() - (set() if size == peer.sizes[0] else set(peer.fixed))
        worst[size] = max(
            float(np.abs(np.asarray(found[stage]).reshape(array.shape) - array).max() / np.abs(array).max())
            for stage, array in theirs.items()
        )
    return seconds, worst


def main(arguments: list[str]) -> None:
    """Prints the table, or what does not load."""
    patterns = [argument for argument in arguments if not argument.startswith("-")]
    if "--missing" in arguments:
        with without_compiled_operators():
            timm = importlib.import_module("timm")
        for name in sorted({name for pattern in PATTERNS for name in timm.list_models(pattern)}):
            if why_not(name):
                print(f"| {name} | {why_not(name)} |")
        return
    columns: tuple[tuple[int, int], ...] = ()
    for peers in (torch_peers, keras_peers, keras_hub_peers, cadene_peers, pytorchcv_peers):
        for peer in peers(patterns):
            sizes = CIFAR_SIZES if peer.sizes[0] == CIFAR_SIZES[0] else SIZES
            if columns != sizes:
                columns = sizes
                heads = " | ".join(f"{height} × {width}" for height, width in columns)
                print(f"| name | ours | seconds | {heads} |\n|---|---|---|---|---|", flush=True)
            seconds, worst = compared(peer)
            options = ", ".join(f"{k}={v!r}" for k, v in peer.ours[1].items())
            figures = " | ".join(
                f"{worst[size]:.1e}" + ("" if size == usual else f" at {size[0]} × {size[1]}")
                for size, usual in zip(peer.sizes, columns, strict=True)
            )
            print(f"| {peer.name} | `{peer.ours[0]}({options})` | {seconds:.1f} | {figures} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
