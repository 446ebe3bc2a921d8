"""Small detectors, inputs and slow references in NumPy."""

import numpy as np

import keras_deepnets as kd

SMALL = {
    "candidates": 100,
    "proposals": 50,
    "training_candidates": 200,
    "training_proposals": 100,
    "pyramid_channels": 16,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "detections": 10,
    "min_size": 64,
    "max_size": 96,
}


def backbone(**kwargs):
    """A residual network of four blocks for images of any size."""
    kwargs = {"blocks": (1, 1, 1, 1), "filters": (8, 16, 32, 64), "input_shape": (None, None, 3)} | kwargs
    return kd.ResNet(include_top=False, **kwargs)


def small_detector(classes=5, **kwargs):
    """A detector of 2 million weights for images of 64 to 96 pixels."""
    return kd.detection.FasterRCNN(backbone(), classes, **(SMALL | kwargs))


def images(sizes=((64, 96), (50, 70)), height=64, width=96, seed=0):
    """Noise, and the sizes without padding."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0, 255, (len(sizes), height, width, 3)).astype("float32")
    return {"images": pixels, "sizes": np.asarray(sizes, "int32")}


def truths(boxes, labels, most):
    """True boxes and labels, filled up with zeros, and their number."""
    count = np.array([len(each) for each in boxes], "int32")
    all_boxes, all_labels = np.zeros((len(boxes), most, 4), "float32"), np.zeros((len(boxes), most), "int32")
    for place, (own, kinds) in enumerate(zip(boxes, labels, strict=True)):
        if len(own):
            all_boxes[place, : len(own)], all_labels[place, : len(own)] = own, kinds
    return {"boxes": all_boxes, "labels": all_labels, "count": count}


def random_boxes(rng, count, size=100.0, smallest=1.0):
    """Boxes inside a square: float32 ``[count, 4]``."""
    start = rng.uniform(0, 0.8 * size, (count, 2))
    return np.concatenate([start, start + rng.uniform(smallest, 0.5 * size, (count, 2))], 1).astype("float32")


def iou(first, second):
    """Intersection over union of two boxes, float64."""
    x1, y1, x2, y2 = (float(value) for value in first)
    a1, b1, a2, b2 = (float(value) for value in second)
    common = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
    union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - common
    return common / union if union > 0 else 0.0


def iou_table(first, second):
    """All pairs: ``[m, k]``."""
    return np.array([[iou(a, b) for b in second] for a in first]).reshape(len(first), len(second))


def encode(box, reference, weights):
    """Regression targets of one box, float64."""
    (x1, y1, x2, y2), (a1, b1, a2, b2) = np.asarray(box, "float64"), np.asarray(reference, "float64")
    width, height = a2 - a1, b2 - b1
    values = [
        ((x1 + x2) / 2 - (a1 + a2) / 2) / width,
        ((y1 + y2) / 2 - (b1 + b2) / 2) / height,
        np.log((x2 - x1) / width),
        np.log((y2 - y1) / height),
    ]
    return np.array(values) * weights


def decode(deltas, reference, weights):
    """The box of one regression output, float64."""
    dx, dy, dw, dh = np.asarray(deltas, "float64") / weights
    x1, y1, x2, y2 = np.asarray(reference, "float64")
    width, height = x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + dx * width, (y1 + y2) / 2 + dy * height
    bound = np.log(1000 / 16)
    width, height = width * np.exp(min(dw, bound)), height * np.exp(min(dh, bound))
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def clip(box, height, width):
    """A box moved into its image."""
    return np.clip(box, 0, [width, height, width, height])


def greedy(boxes, scores, threshold):
    """Indices of the boxes that suppression keeps, best first. The first of equal scores is better."""
    kept = []
    for place in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        if scores[place] >= 0 and all(iou(boxes[place], boxes[other]) <= threshold for other in kept):
            kept.append(place)
    return kept


def suppressed(boxes, scores, threshold, most):
    """Suppression in groups for one image: ``[m, g, 4]`` and ``[m, g]`` to a list of (score, group, box), best first."""
    found = []
    for group in range(scores.shape[1]):
        for place in greedy(boxes[:, group], scores[:, group], threshold):
            found.append((float(scores[place, group]), group, boxes[place, group]))
    return sorted(found, key=lambda entry: (-entry[0], entry[1]))[:most]
