"""Time the parts of Faster R-CNN on ResNet-50 with a feature pyramid, against torchvision's.

    python -m benchmarks.detection --dtype float32 bfloat16 --pairs 3

One image of 640 × 480 pixels is resized to 800 × 1066, as both libraries do. A training step has two images with eight objects each, and
512 sampled regions per image. The parts that torchvision computes with its own compiled operators (proposals, regions) are timed here
only, because these operators are not available everywhere. Each side runs in a separate process, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SHAPE = (800, 1088)
SIZES = ((800, 1066), (800, 1066))
REPEATS = 5


def seconds(run: Callable[[], Any]) -> float:
    """Median time of a call after two calls to warm up."""
    run()
    run()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def ours(dtype: str) -> dict[str, float]:
    """Times of the parts of this library's detector."""
    import keras
    import numpy as np
    import tensorflow as tf

    import keras_deepnets as kd

    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else "float32")
    model = kd.detection.FasterRCNN_ResNet50_FPN(frozen_batch_norm=False)
    training = kd.detection.training_form(model, kd.detection.Sampling(seed=0))
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 255, (2, *SHAPE, 3)), tf.float32)
    sizes = tf.constant(SIZES, tf.int32)
    start = rng.uniform(0, 600, (2, 8, 2))
    truths = {
        "boxes": tf.constant(np.concatenate([start, start + rng.uniform(40, 200, (2, 8, 2))], -1), tf.float32),
        "labels": tf.ones((2, 8), tf.int32),
        "count": tf.constant([8, 8]),
    }
    layer = model.get_layer

    def done(value: Any) -> Any:
        for tensor in tf.nest.flatten(value):
            tensor.numpy()
        return value

    def gradients(part: keras.Model, inputs: Any) -> Callable[[], Any]:
        @tf.function
        def step() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = [part(each, training=True) for each in inputs]
                loss = sum(tf.reduce_sum(tf.cast(tensor, tf.float32)) for tensor in tf.nest.flatten(outputs))
            found = tape.gradient(loss, [[weight.value for weight in part.trainable_weights], inputs])
            return [tf.reduce_sum(tf.cast(tensor, tf.float32)) for tensor in tf.nest.flatten(found)]

        return lambda: done(step())

    def scaled(count: int) -> Any:
        return layer("padding_mask")([layer("input_scaling")(images[:count]), sizes[:count]])

    one, two = scaled(1), scaled(2)
    body = tf.function(lambda: list(layer("body")(one).values()))
    maps = body()
    rpn = tf.function(lambda: [layer("rpn")(features) for features in maps])
    outputs, anchors = rpn(), layer("anchors")([one, *maps])
    given = {
        "sizes": sizes[:1],
        "objectness": [each[0] for each in outputs],
        "deltas": [each[1] for each in outputs],
        "anchors": anchors,
    }
    proposals = tf.function(lambda: layer("proposals")(given))
    boxes = proposals()["boxes"]
    align = tf.function(lambda: layer("region_align")([boxes, *maps[:4]]))
    regions = tf.reshape(align(), (-1, 7, 7, 256))
    head = tf.function(lambda: layer("head")(regions))
    whole = tf.function(lambda: model({"images": images[:1], "sizes": sizes[:1]}, training=False))
    both = list(layer("body")(two).values())
    sampled = tf.cast(tf.random.normal((1024, 7, 7, 256)), regions.dtype)
    training.compile(keras.optimizers.SGD(1e-6, momentum=0.9))
    batch = tf.data.Dataset.from_tensors({"images": images, "sizes": sizes, **truths}).repeat(1)
    return {
        "inference: body": seconds(lambda: done(body())),
        "inference: rpn": seconds(lambda: done(rpn())),
        "inference: proposals": seconds(lambda: done(proposals())),
        "inference: regions": seconds(lambda: done(align())),
        "inference: head": seconds(lambda: done(head())),
        "inference: all": seconds(lambda: done(whole())),
        "training: body": seconds(gradients(layer("body"), [two])),
        "training: rpn": seconds(gradients(layer("rpn"), both)),
        "training: head": seconds(gradients(layer("head"), [sampled])),
        "training: all": seconds(lambda: training.fit(batch, verbose=0)),
    }


def theirs(dtype: str) -> dict[str, float]:
    """Times of the same parts of torchvision's detector, channels last."""
    import torch
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None).to(memory_format=torch.channels_last)
    half = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    images = torch.rand(2, 3, *SHAPE).to(memory_format=torch.channels_last)
    body, rpn, box_head, predictor = (
        model.backbone,
        model.rpn.head,
        model.roi_heads.box_head,
        model.roi_heads.box_predictor,
    )

    def head(regions: Any) -> Any:
        return predictor(box_head(regions))

    def forward(part: Any, *inputs: Any) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode(), half:
                return part(*inputs)

        return run

    def gradients(part: Any, inputs: Any) -> Callable[[], Any]:
        def run() -> None:
            model.zero_grad(set_to_none=True)
            with half:
                found = part(inputs)
            tensors = found.values() if isinstance(found, dict) else found
            flat = [tensor for each in tensors for tensor in (each if isinstance(each, list) else [each])]
            sum(tensor.float().sum() for tensor in flat).backward()

        return run

    model.eval()
    maps = list(forward(body, images[:1])().values())
    regions = torch.rand(1000, 256, 7, 7)
    times = {
        "inference: body": seconds(forward(body, images[:1])),
        "inference: rpn": seconds(forward(rpn, maps)),
        "inference: head": seconds(forward(head, regions)),
    }
    model.train()
    with torch.no_grad(), half:
        both = [each.detach().requires_grad_() for each in body(images).values()]
    sampled = torch.rand(1024, 256, 7, 7, requires_grad=True)
    return times | {
        "training: body": seconds(gradients(body, images.requires_grad_())),
        "training: rpn": seconds(gradients(rpn, both)),
        "training: head": seconds(gradients(head, sampled)),
    }


def run_side(side: str, dtype: str) -> dict[str, float]:
    """The times of one side, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.detection", "--side", side, "--dtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure both sides in turn and print a table per dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--side", choices=["ours", "theirs"])
    given = parser.parse_args()
    if given.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[given.side](given.dtype[0])))
        return
    for dtype in given.dtype:
        pairs = [(run_side("ours", dtype), run_side("theirs", dtype)) for _ in range(given.pairs)]
        print(f"{dtype}: seconds here, seconds torchvision, ratio")
        for part in pairs[0][0]:
            here = statistics.median(pair[0][part] for pair in pairs)
            if part in pairs[0][1]:
                there = statistics.median(pair[1][part] for pair in pairs)
                ratio = statistics.median(pair[1][part] / pair[0][part] for pair in pairs)
                print(f"{part:24}{here:8.3f}{there:8.3f}{ratio:8.2f}")
            else:
                print(f"{part:24}{here:8.3f}")


if __name__ == "__main__":
    main()
