"""Makes ``detection.npz``: what torchvision's detectors compute in double precision.

Run from the root of the repository, in an environment with torch and torchvision:

    python -m tests.golden.make_detection

It prints how far torch itself is away in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from keras_deepnets.detection import resizing
from keras_deepnets.weights.naming import BOOKKEEPING
from tests.golden import detection
from tests.golden.detection import BIAS, CASES, LEVELS, LOSSES, SCALED, Detection
from tests.golden.deterministic import summary
from tests.golden.make_goldens import channels_last


def build(case: Detection) -> Any:
    """The peer without weights."""
    from torchvision.models import detection as peers
    from torchvision.models import resnet
    from torchvision.models.detection import _utils, backbone_utils, faster_rcnn
    from torchvision.ops import misc
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    options, sampling = case.options, case.sampling
    kwargs: dict[str, Any] = {
        "min_size": options["min_size"],
        "max_size": options["max_size"],
        "rpn_pre_nms_top_n_test": options["candidates"],
        "rpn_post_nms_top_n_test": options["proposals"],
        "rpn_pre_nms_top_n_train": options["training_candidates"],
        "rpn_post_nms_top_n_train": options["training_proposals"],
        "box_detections_per_img": options["detections"],
        "rpn_batch_size_per_image": sampling["anchors"],
        "box_batch_size_per_image": sampling["regions"],
    }
    norm = misc.FrozenBatchNorm2d if case.frozen else nn.BatchNorm2d
    if not case.small:
        if case.version == 2:
            return peers.fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **kwargs)
        body = resnet.resnet50(weights=None, norm_layer=norm)
        net = peers.FasterRCNN(backbone_utils._resnet_fpn_extractor(body, 5), num_classes=case.classes, **kwargs)
    else:
        channels = options["pyramid_channels"]
        body = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], norm_layer=norm)
        layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
        fpn_norm = nn.BatchNorm2d if case.version == 2 else None
        backbone = backbone_utils.BackboneWithFPN(
            body, layers, [64, 128, 256, 512], channels, LastLevelMaxPool(), fpn_norm
        )
        sizes = tuple((size,) for size in options["anchor_sizes"])
        kwargs["rpn_anchor_generator"] = peers.rpn.AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
        if case.version == 2:
            kwargs["rpn_head"] = peers.rpn.RPNHead(channels, 3, conv_depth=2)
            kwargs["box_head"] = faster_rcnn.FastRCNNConvFCHead(
                (channels, 7, 7), [256] * 4, [1024], norm_layer=nn.BatchNorm2d
            )
        net = peers.FasterRCNN(backbone, num_classes=case.classes, **kwargs)
    if case.frozen:
        _utils.overwrite_eps(net, 0.0)
    return net


def fill(case: Detection, net: Any, calibration: dict[str, Any]) -> None:
    """Gives the peer the golden weights."""
    state = {name: value for name, value in net.state_dict().items() if not name.endswith(BOOKKEEPING)}
    net.load_state_dict(
        {name: torch.from_numpy(case.weights(name, tuple(value.shape), calibration)) for name, value in state.items()},
        strict=False,
    )


def tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    """The images as torchvision wants them."""
    return [torch.from_numpy(image).permute(2, 0, 1).to(dtype) / 255 for image in detection.images()]


@torch.no_grad()
def calibrate(case: Detection, net: Any) -> dict[str, Any]:
    """Scales of the last layers, and the bias of the classes, with which no class is likely in all regions."""
    fill(case, net, {})
    net.eval().double()
    batch, _ = net.transform(tensors(torch.float64))
    maps = net.backbone(batch.tensors)
    outputs = net.rpn.head(list(maps.values()))
    found: dict[str, Any] = {}
    for name, values, wanted in zip(SCALED, outputs, (2.0, 0.3), strict=False):
        found[name] = np.float32(wanted / torch.cat([each.flatten() for each in values]).std())
    fill(case, net, found)
    proposals, _ = net.rpn(batch, maps)
    features = net.roi_heads.box_head(net.roi_heads.box_roi_pool(maps, proposals, batch.image_sizes))
    logits, deltas = net.roi_heads.box_predictor(features)
    found[SCALED[2]] = np.float32(2.0 / (logits - logits.mean(0)).std())
    found[SCALED[3]] = np.float32(0.5 / deltas.std())
    weight = net.roi_heads.box_predictor.cls_score.weight * float(found[SCALED[2]])
    found[BIAS] = -(features @ weight.T).mean(0).float().numpy()
    fill(case, net, found)
    return found


@torch.no_grad()
def inference(net: Any, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """All stages in inference."""
    net.eval().to(dtype)
    images = tensors(dtype)
    batch, _ = net.transform(images)
    maps = net.backbone(batch.tensors)
    outputs = net.rpn.head(list(maps.values()))
    proposals, _ = net.rpn(batch, maps)
    found = {
        f"pyramid {level}": summary(channels_last(each)) for level, each in zip(LEVELS, maps.values(), strict=True)
    }
    for kind, values in zip(("objectness", "deltas"), outputs, strict=True):
        found |= {f"{kind} {level}": summary(channels_last(each)) for level, each in zip(LEVELS, values, strict=True)}
    found["proposals"] = np.stack([each[:20].numpy() for each in proposals])
    for place, each in enumerate(net(images)):
        rows = [each["boxes"].numpy(), each["scores"].numpy()[:, None], each["labels"].numpy()[:, None]]
        found[f"detections {place}"] = np.concatenate(rows, 1)
    return found


class Sampler:
    """Chooses by given random numbers, in the place of torchvision's `BalancedPositiveNegativeSampler`."""

    def __init__(self, most: int, share: float, numbers: Callable[[int, int], np.ndarray]):
        self.most, self.share, self.numbers = most, share, numbers

    def __call__(self, kinds: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Masks of positives and of negatives for each image."""
        positives, negatives = [], []
        for place, kind in enumerate(kinds):
            numbers = torch.from_numpy(self.numbers(place, len(kind)))
            left = self.most
            for mask, most, into in (
                (kind >= 1, int(self.most * self.share), positives),
                (kind == 0, None, negatives),
            ):
                places = torch.where(mask)[0]
                chosen = places[torch.argsort(-numbers[places])[: left if most is None else most]]
                left -= len(chosen)
                into.append(torch.zeros(len(kind), dtype=torch.uint8).index_fill(0, chosen, 1))
        return positives, negatives


def training(case: Detection, net: Any, dtype: torch.dtype, proposals: Any = None) -> dict[str, np.ndarray]:
    """Proposals of a training step, losses and gradients. Given proposals take the place of the network's."""
    net.train().to(dtype)
    images, most = detection.images(), case.options["training_proposals"]
    _, sizes = resizing.batched(images, case.options["min_size"], case.options["max_size"])
    truths = detection.objects(case, sizes)
    targets = []
    for place, (image, size) in enumerate(zip(images, sizes, strict=True)):
        ratios = np.tile((np.array(image.shape[:2]) / size)[::-1], 2)
        boxes = truths["boxes"][place, : truths["count"][place]].astype("float64") * ratios
        labels = truths["labels"][place, : truths["count"][place]]
        targets.append({"boxes": torch.from_numpy(boxes).to(dtype), "labels": torch.from_numpy(labels).long()})
    anchors, regions = detection.draws("anchor", 100_000), detection.draws("region", most + detection.MOST_OBJECTS)

    def of_region(place: int, length: int) -> np.ndarray:
        own = int(truths["count"][place])
        return np.concatenate([regions[place, : length - own], regions[place, most : most + own]])

    net.rpn.fg_bg_sampler = Sampler(case.sampling["anchors"], 0.5, lambda place, length: anchors[place, :length])
    net.roi_heads.fg_bg_sampler = Sampler(case.sampling["regions"], 0.25, of_region)
    kept: dict[str, Any] = {}
    original = type(net.roi_heads).add_gt_proposals

    def add_gt_proposals(found: Any, boxes: Any) -> Any:
        kept["proposals"] = [each.detach() for each in found]
        given = found if proposals is None else [torch.from_numpy(each).to(dtype) for each in proposals]
        return original(net.roi_heads, given, boxes)

    net.roi_heads.add_gt_proposals = add_gt_proposals
    losses = net(tensors(dtype), targets)
    del net.roi_heads.add_gt_proposals
    net.zero_grad()
    sum(losses.values()).backward()
    found = {"losses": np.array([float(losses[name]) for name in LOSSES.values()])}
    rows = [each.numpy() for each in kept["proposals"]]
    assert {len(each) for each in rows} == {most}, "fewer proposals than wanted; choose other images"
    found["training proposals"] = np.stack(rows)
    gradients = {}
    for name, parameter in net.named_parameters():
        ours = case.naming.ours(name)
        layer = ours.rpartition("/")[0]
        dimensions = 2 if layer.startswith(("predictions", "head_fc")) else parameter.ndim
        if parameter.grad is not None:
            gradients[ours] = case.naming.our_array(parameter.grad.numpy(), dimensions, layer)
    for name in case.gradients():
        found[f"gradient {name}"] = summary(gradients[name])
    return found


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """The largest difference relative to the largest number, or infinity if the shapes differ."""
    if first.shape != second.shape:
        return float("inf")
    return float(np.abs(first - second).max() / max(np.abs(second).max(), 1e-12))


def main() -> None:
    """Makes the file."""
    arrays: dict[str, np.ndarray] = {}
    for case in CASES:
        net = build(case)
        calibration = calibrate(case, net)
        found = inference(net, torch.float64)
        worst = {name: difference(value, found[name]) for name, value in inference(net, torch.float32).items()}
        fill(case, net.double(), calibration)
        exact = training(case, net, torch.float64)
        fixed = exact["training proposals"].astype("float32")
        fill(case, net, calibration)
        exact |= {key: value for key, value in training(case, net, torch.float64, fixed).items() if "prop" not in key}
        fill(case, net, calibration)
        worst |= {
            name: difference(value, exact[name])
            for name, value in training(case, net.float(), torch.float32, fixed).items()
        }
        found |= exact
        found["scales"] = np.array([calibration[name] for name in SCALED])
        found["bias"] = calibration[BIAS]
        print(case.name, {name: f"{value:.1e}" for name, value in worst.items()}, exact["losses"], file=sys.stderr)
        print({name: value[:8].round(3).tolist() for name, value in found.items() if name.startswith("detections")})
        arrays |= {f"{case.name}/{name}": value.astype(np.float32) for name, value in found.items()}
    np.savez_compressed(detection.PATH, **arrays)


if __name__ == "__main__":
    main()
