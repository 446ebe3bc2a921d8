"""A small Pascal VOC folder of rectangles, and a small detector."""

import numpy as np
from PIL import Image

import keras_deepnets as kd

CLASSES = ("background", "dark", "light")


def voc_folder(folder, count=8, side=64, seed=0):
    """Writes images of dark and light rectangles on grey noise, with their boxes. A quarter is the split ``val``."""
    rng = np.random.default_rng(seed)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    names = [f"image{at}" for at in range(count)]
    for at, name in enumerate(names):
        pixels = rng.integers(110, 146, (side, side, 3)).astype(np.uint8)
        objects = []
        for kind in ("dark", "light")[: 1 + at % 2]:
            x, y = rng.integers(2, side // 2, 2)
            w, h = rng.integers(side // 4, side // 2 - 2, 2)
            pixels[y : y + h, x : x + w] = 10 if kind == "dark" else 245
            box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            objects.append(f"<object><name>{kind}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>")
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
        size = f"<size><width>{side}</width><height>{side}</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{name}.jpg</filename>{size}{''.join(objects)}</annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(xml)
    held = count // 4
    for split, part in (("train", names[held:]), ("val", names[:held]), ("trainval", names)):
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(part) + "\n")
    return folder


def tiny(classes=3, **options):
    """A detector with 0.4 million parameters for images of 64 pixels."""
    backbone = kd.ResNet(include_top=False, blocks=(1, 1, 1, 1), filters=(16, 24, 32, 48), name="tiny")
    numbers = {"candidates": 60, "proposals": 30, "training_candidates": 60, "training_proposals": 60}
    given = {"min_size": 64, "max_size": 64, "pyramid_channels": 32, "anchor_sizes": (12, 16, 24, 32, 48)}
    return kd.detection.FasterRCNN(
        backbone, classes, **(numbers | given | {"frozen_batch_norm": False} | options), name="tiny_detector"
    )
