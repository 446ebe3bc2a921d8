"""Random detections, and the results of pycocotools on them."""

import contextlib
import io

import numpy as np

CLASSES = ("background", "cat", "dog", "owl", "yak")


def random_case(seed, images=8, most=25):
    """Truths and detections with crowds, difficult objects, empty images, equal scores and a class without objects."""
    random = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        count = int(random.integers(0, 8))
        corner = random.integers(0, 300, (count, 2))
        boxes = np.concatenate([corner, corner + np.exp(random.uniform(1.5, 5.5, (count, 2))).round() + 1], 1)
        labels = random.integers(1, 4, count)  # no yak
        truths.append(
            {
                "boxes": boxes.astype(float),
                "labels": labels,
                "crowd": random.random(count) < 0.15,
                "difficult": random.random(count) < 0.15,
                "area": np.prod(boxes[:, 2:] - boxes[:, :2], 1) * random.uniform(0.4, 1, count),
            }
        )
        detections.append(_detections(random, boxes, labels, int(random.integers(0, most))))
    return truths, detections


def _detections(random, boxes, labels, count):
    found = np.zeros((count, 4))
    named = random.integers(1, 5, count)
    for at in range(count):
        if len(boxes) and random.random() < 0.7:
            near = random.integers(len(boxes))
            found[at] = boxes[near] + random.integers(-3, 4, 4)
            named[at] = labels[near]
        else:
            corner = random.integers(0, 300, 2)
            found[at] = [*corner, *(corner + random.integers(5, 90, 2))]
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
    return {"boxes": found, "scores": random.integers(0, 9, count) / 8, "labels": named}


def of_pycocotools(truths, detections, classes=CLASSES):
    """Twelve numbers, AP per class and AP50 per class of pycocotools; nan instead of -1. Difficult objects are out of every area range."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows, found = [], []
    for image, (truth, detection) in enumerate(zip(truths, detections, strict=True), start=1):
        for at, (x1, y1, x2, y2) in enumerate(truth["boxes"].tolist()):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": image,
                    "category_id": int(truth["labels"][at]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": -1.0 if truth["difficult"][at] else float(truth["area"][at]),
                    "iscrowd": int(truth["crowd"][at]),
                }
            )
        for at, (x1, y1, x2, y2) in enumerate(detection["boxes"].tolist()):
            score, label = float(detection["scores"][at]), int(detection["labels"][at])
            found.append([image, x1, y1, x2 - x1, y2 - y1, score, label])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image + 1} for image in range(len(truths))],
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes) if label],
            "annotations": rows,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.array(found)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    precision = np.where(precision < 0, np.nan, precision)
    stats = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    return stats, precision.mean(axis=(0, 1)), precision[0].mean(axis=0)
