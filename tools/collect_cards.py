"""Generate ``cards.json`` from the weight metadata of torchvision, timm, keras.applications and pytorchcv.

Run it in an environment with torch, torchvision, timm, pytorchcv and Keras: ``python -m tools.collect_cards``.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_deepnets import registry
from keras_deepnets.benchmark.torch_side import without_compiled_operators
from keras_deepnets.scaling import Scaling
from keras_deepnets.weights.cards import Card, networks
from keras_deepnets.weights.cards.networks import BUILDERS, NETWORKS, PYTORCHCV_CIFAR10

_APPLICATIONS = "https://storage.googleapis.com/tensorflow/keras-applications"
_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10"
_IMGCLSMOB = "https://github.com/osmr/imgclsmob"
# Depth, first digits of the file's SHA-256, test error in percent.
_CIFAR = ((20, "12fca82f", 8.27), (32, "d509ac18", 7.37), (44, "014dd654", 6.90), (56, "4bfd9763", 6.61))
_CIFAR += ((110, "1d1ed7c2", 6.32), (1202, "f3b1deed", 6.18))


def _scaling(mean: Any, std: Any, crop: float, interpolation: str, order: str = "RGB") -> Scaling:
    return Scaling([255 * m for m in mean], [255 * s for s in std], order, round(crop, 4), interpolation)


def torchvision_cards() -> Iterator[Card]:
    """Cards of torchvision's weights. The first card of each network is torchvision's DEFAULT."""
    with without_compiled_operators():
        models = importlib.import_module("torchvision").models
    for name, (constructor, options) in NETWORKS.items():
        if name not in models.list_models():
            continue
        weights = models.get_model_weights(name)
        for entry in sorted(weights, key=lambda entry: entry is not weights.DEFAULT):
            transform = entry.transforms()
            # torchvision undoes the statistics inside this network and scales to [-1, 1] (`transform_input`).
            own = name == "googlenet"
            metrics = entry.meta["_metrics"]["ImageNet-1K"]
            if metrics["acc@1"] != metrics["acc@1"]:
                continue  # features without a classifier have no accuracy
            yield Card(
                name=f"torchvision/{entry.name.lower()}",
                constructor=constructor,
                options=options,
                url=entry.url,
                checksum="sha256:" + re.search(r"-([0-9a-f]{8})\.pth$", entry.url)[1],
                scaling=_scaling(
                    (0.5,) * 3 if own else transform.mean,
                    (0.5,) * 3 if own else transform.std,
                    transform.crop_size[0] / transform.resize_size[0],
                    transform.interpolation.value,
                ),
                image_size=transform.crop_size[0],
                metrics={"top1": metrics["acc@1"], "top5": metrics["acc@5"]},
                licence="BSD-3-Clause",
                source="https://docs.pytorch.org/vision/stable/models.html",
            )


DETECTORS = {
    "fasterrcnn_resnet50_fpn": ("FasterRCNN_ResNet50_FPN", {"frozen_batch_norm": True}),
    "fasterrcnn_resnet50_fpn_v2": ("FasterRCNN_ResNet50_FPN_V2", {"frozen_batch_norm": False}),
}
"""torchvision's detectors, and the constructors with the options that their weights need."""


def torchvision_detector_cards() -> Iterator[Card]:
    """Cards of torchvision's weights of detectors. Their classes are COCO's 91 numbers, with gaps."""
    with without_compiled_operators():
        models = importlib.import_module("torchvision").models
    for name, (constructor, options) in DETECTORS.items():
        for entry in models.get_model_weights(name):
            yield Card(
                name=f"torchvision/{entry.name.lower()}",
                constructor=constructor,
                options=options,
                url=entry.url,
                checksum="sha256:" + re.search(r"-([0-9a-f]{8})\.pth$", entry.url)[1],
                classes=len(entry.meta["categories"]),
                labels=None,
                scaling=_scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1.0, "bilinear"),
                image_size=800,
                metrics={"box_ap": entry.meta["_metrics"]["COCO-val2017"]["box_map"]},
                licence="BSD-3-Clause",
                source="https://docs.pytorch.org/vision/stable/models.html",
            )


def timm_cards() -> Iterator[Card]:
    """Cards of timm's weights on the hub, for named constructors and for builders' networks with one input scaling."""
    with without_compiled_operators():
        timm = importlib.import_module("timm")
    configs = importlib.import_module("timm.models").get_pretrained_cfg
    for name, (constructor, options) in NETWORKS.items():
        if name not in timm.list_models():
            continue
        for full in timm.list_pretrained(f"{name}.*"):
            config = configs(full)
            if not config.hf_hub_id:
                continue
            size, crop = _test_view(config)
            yield Card(
                name=f"timm/{full if constructor in BUILDERS else config.tag}",
                constructor=constructor,
                options=options,
                url=f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors",
                classes=config.num_classes,
                labels="imagenet" if config.num_classes == 1000 else None,
                scaling=_scaling(config.mean, config.std, crop, config.interpolation),
                image_size=size,
                licence=config.license or "",
                source=f"https://huggingface.co/{config.hf_hub_id}",
            )


def _test_view(config: Any) -> tuple[int, float]:
    """Image side and crop fraction of timm's evaluation. Both come from the test-time settings if timm has them."""
    if config.test_input_size is None:
        return config.input_size[-1], config.crop_pct
    return config.test_input_size[-1], config.test_crop_pct or config.crop_pct


def keras_cards() -> Iterator[Card]:
    """keras.applications'."""
    resnet = importlib.import_module("keras.src.applications.resnet")
    caffe = {"mean": [103.939, 116.779, 123.68], "std": [1, 1, 1], "channel_order": "BGR"}
    for depth in (50, 101, 152):
        checksum = resnet.WEIGHTS_HASHES[f"resnet{depth}"][0]
        url = f"{_APPLICATIONS}/resnet/resnet{depth}_weights_tf_dim_ordering_tf_kernels.h5"
        yield _keras_card(f"ResNet{depth}", url, checksum, Scaling(**caffe), {"downsample": "1x1"})
        checksum = resnet.WEIGHTS_HASHES[f"resnet{depth}v2"][0]
        url = url.replace(f"resnet{depth}_", f"resnet{depth}v2_")
        yield _keras_card(f"ResNet{depth}V2", url, checksum, Scaling([127.5] * 3, [127.5] * 3), {"form": "keras"})
    densenet = Path(importlib.import_module("keras.src.applications.densenet").__file__).read_text(encoding="utf-8")
    for depth in (16, 19):
        source = Path(importlib.import_module(f"keras.src.applications.vgg{depth}").__file__)
        checksum = re.search(r'kernels\.h5",.*?file_hash="([0-9a-f]+)"', source.read_text(encoding="utf-8"), re.S)[1]
        url = f"{_APPLICATIONS}/vgg{depth}/vgg{depth}_weights_tf_dim_ordering_tf_kernels.h5"
        yield _keras_card(f"VGG{depth}", url, checksum, Scaling(**caffe), {})
    statistics = Scaling([255 * m for m in (0.485, 0.456, 0.406)], [255 * s for s in (0.229, 0.224, 0.225)])
    for depth in (121, 169, 201):
        file = f"densenet{depth}_weights_tf_dim_ordering_tf_kernels.h5"
        checksum = re.search(rf'"{file}",.*?file_hash="([0-9a-f]+)"', densenet, re.S)[1]
        yield _keras_card(f"DenseNet{depth}", f"{_APPLICATIONS}/densenet/{file}", checksum, statistics, {})


def _keras_card(constructor: str, url: str, checksum: str, scaling: Scaling, options: dict[str, Any]) -> Card:
    return Card(
        name="keras/imagenet",
        constructor=constructor,
        options=options,
        url=url,
        checksum=f"md5:{checksum}",
        scaling=scaling,
        licence="MIT",
        source="https://keras.io/api/applications/",
    )


def cifar_cards() -> Iterator[Card]:
    """Cards of Y. Idelbayev's CIFAR-10 ResNets with the paper's shortcut A."""
    for depth, digits, error in _CIFAR:
        yield Card(
            name="akamaster/cifar10",
            constructor=f"ResNet{depth}",
            options={"shortcut": "A"},
            url=f"{_AKAMASTER}/raw/master/pretrained_models/resnet{depth}-{digits}.th",
            checksum=f"sha256:{digits}",
            classes=10,
            labels="cifar10",
            scaling=_scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1.0, "bilinear"),
            image_size=32,
            metrics={"top1": round(100 - error, 2)},
            licence="BSD-2-Clause",
            source=_AKAMASTER,
        )


def pytorchcv_cards() -> Iterator[Card]:
    """Cards of O. Sémery's CIFAR-10 networks (pytorchcv)."""
    path = Path(importlib.util.find_spec("pytorchcv").origin).parent / "models" / "common" / "model_metainfos.csv"
    with path.open(encoding="utf-8", newline="") as file:
        published = {row["model_name"]: row for row in csv.DictReader(file)}
    for name, (constructor, options) in PYTORCHCV_CIFAR10.items():
        row = published[name]
        digits, error = row["checksum"], row["error_value"]
        file_name = f"{name}-{error}-{digits[:8]}.pth.zip"
        yield Card(
            name=f"pytorchcv/{name if constructor in BUILDERS else 'cifar10'}",
            constructor=constructor,
            options=options,
            url=f"{_IMGCLSMOB}/releases/download/{row['repo_release_tag']}/{file_name}",
            checksum=f"sha1:{digits}",
            classes=10,
            labels="cifar10",
            scaling=_scaling((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 1.0, "bilinear"),
            image_size=32,
            metrics={"top1": round(100 - int(error) / 100, 2)},
            licence="MIT",
            source=_IMGCLSMOB,
        )


def cadene_cards() -> Iterator[Card]:
    """The card of R. Cadene's port of BN-Inception from Caffe. The checksum is part of the file's name."""
    source = "https://github.com/Cadene/pretrained-models.pytorch"
    yield Card(
        name="cadene/imagenet",
        constructor="BNInception",
        url="http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
        checksum="sha256:52deb4733",
        scaling=Scaling([104, 117, 128], [1, 1, 1], "BGR"),
        metrics={"top1": 73.524, "top5": 91.562},
        licence="BSD-3-Clause",
        source=source,
    )


def main() -> None:
    """Write the file."""
    classifiers = [
        *torchvision_cards(),
        *timm_cards(),
        *keras_cards(),
        *cifar_cards(),
        *pytorchcv_cards(),
        *cadene_cards(),
    ]
    cards = [*classifiers, *torchvision_detector_cards()]
    named = {
        registry.constructor_of(name).__name__ for task in registry.TASKS for name in registry.list_models(task=task)
    }
    path = Path(networks.__file__).with_name("cards.json")
    path.write_text("[\n" + ",\n".join(json.dumps(card.to_dict()) for card in cards) + "\n]\n", encoding="utf-8")
    print(f"{len(cards)} cards, {sum(card.constructor in named for card in cards)} of named networks")


if __name__ == "__main__":
    main()
