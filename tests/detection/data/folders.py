"""Small detection data sets in every format, written by the tests."""

import json

import numpy as np
from PIL import Image

from tests.data.conftest import picture

BOXES = [(4, 6, 30, 40), (20, 10, 60, 44)]


def save(path, seed=0, height=48, width=64, **options):
    """Save a random picture and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture(seed, height, width)
    Image.fromarray(image).save(path, **options)
    return image


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def xml(objects, width=64, height=48):
    """A VOC file; an object is a name, xmin, ymin, xmax, ymax and maybe more elements."""
    parts = [f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"]
    for name, x1, y1, x2, y2, *more in objects:
        parts.append(
            f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
            f"{''.join(more)}</object>"
        )
    return "".join(parts) + "</annotation>"


def write_voc(folder, images, splits, suffix="png"):
    """A VOC folder of ``{name: objects}`` and ``{split: names}``."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for seed, (name, objects) in enumerate(images.items()):
        save(folder / "JPEGImages" / f"{name}.{suffix}", seed)
        (folder / "Annotations" / f"{name}.xml").write_text(xml(objects))
    for split, names in splits.items():
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def write_coco(folder, split, images, categories):
    """A COCO folder of ``{file name: [(category, x, y, w, h, other keys), …]}`` and ``{number: name}``."""
    entries, annotations = [], []
    for number, (name, items) in enumerate(images.items(), start=7):
        save(folder / split / name, number)
        entries.append({"id": number, "file_name": name, "width": 64, "height": 48})
        for category, x, y, w, h, more in items:
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "bbox": [x, y, w, h]} | more
            )
    (folder / "annotations").mkdir(exist_ok=True)
    values = {
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(values))
    return path


def write_yolo(folder, images, split="train", config=None):
    """A YOLO folder of ``{name: lines}``; None writes no text file."""
    for seed, (name, lines) in enumerate(images.items()):
        save(folder / "images" / split / f"{name}.png", seed)
        (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        if lines is not None:
            (folder / "labels" / split / f"{name}.txt").write_text("\n".join(lines))
    if config is not None:
        (folder / "data.yaml").write_text(config)
    return folder


def plain(annotation):
    """The boxes and labels as lists."""
    return annotation.boxes.tolist(), annotation.labels.tolist()


def many(folder, count=10):
    """A VOC folder of that many pictures of several sizes, some without objects."""
    rng = np.random.default_rng(0)
    images = {}
    for number in range(count):
        corners = rng.integers(1, 20, (number % 4, 2))
        images[f"{number:03d}"] = [("cat" if x % 2 else "dog", x, y, x + 20, y + 15) for x, y in corners]
    write_voc(folder, images, {"train": list(images)})
    for number in range(0, count, 3):
        name = f"{number:03d}"
        save(folder / "JPEGImages" / f"{name}.png", number, 64, 48)
        (folder / "Annotations" / f"{name}.xml").write_text(xml(images[name], 48, 64))
    return folder
