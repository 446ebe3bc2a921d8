"""Find objects in image files over REST with a detector that TF Serving serves. Needs only Python's standard library.

    python detect_client.py --model animals one.jpg two.png
    python detect_client.py --model animals --least 0.5 --draw found one.jpg

Prints one line per object: path, label, score, and the box as x1, y1, x2, y2 in pixels. ``--draw`` also writes the images with boxes,
as PNG files. It needs keras_deepnets. In a program: `DetectClient(url, model).find([bytes, ...])`.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from rest_client import RestClient, ServerError


class DetectClient(RestClient):
    """One connection to one detector. Arguments as for `RestClient`."""

    def find(self, files: Sequence[bytes], least: float = 0.0) -> list[list[dict[str, Any]] | None]:
        """Find objects in JPEG or PNG files, given as bytes.

        Args:
            files: The files.
            least: Objects with a smaller score are left out.

        Returns:
            For each file a list of objects, best first. An object is a dict with ``"label"``, ``"class"`` (the number of the label),
            ``"score"`` and ``"box"``. A box is x1, y1, x2, y2 in pixels of the upright image. If the model was exported with
            ``on_error="skip"``, a file that is not an image has None.

        Raises:
            ServerError: A file is not an image, the model is unknown, or the deadline has passed.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(file).decode("ascii")}} for file in files]
        return [_objects(row, least) for row in self.rows({"instances": instances})]


def _objects(row: dict[str, Any], least: float) -> list[dict[str, Any]] | None:
    if row["count"] < 0:
        return None
    columns = zip(row["labels"], row["classes"], row["scores"], row["boxes"], strict=True)
    found = [{"label": label, "class": kind, "score": score, "box": box} for label, kind, score, box in columns]
    return [each for each in found[: row["count"]] if each["score"] >= least]


def draw(path: Path, found: Sequence[dict[str, Any]], target: Path) -> None:
    """Write an image with boxes, labels and scores."""
    import numpy as np
    from PIL import Image, ImageOps

    from keras_deepnets.detection.pictures import draw_boxes

    with Image.open(path) as file:
        pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    numbers = [each["class"] for each in found]
    known = {each["class"]: each["label"] for each in found}
    classes = ["background", *(known.get(number, str(number)) for number in range(1, max(numbers, default=1) + 1))]
    boxes = np.asarray([each["box"] for each in found], "float32").reshape(-1, 4)
    picture = draw_boxes(pixels, boxes, numbers, [each["score"] for each in found], classes)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(target)


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="JPEG or PNG files")
    parser.add_argument("--model", required=True, help="name of the model in models.config")
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--version", type=int, help="version number; by default the largest that the server serves")
    parser.add_argument("--label", help="version label, instead of --version")
    parser.add_argument("--deadline", type=float, default=60.0, help="time limit in seconds, including retries")
    parser.add_argument("--least", type=float, default=0.5, help="smallest score of the objects to print")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the images with boxes into this folder")
    args = parser.parse_args()
    try:
        client = DetectClient(args.url, args.model, args.version, args.label, args.deadline)
        rows = client.find([path.read_bytes() for path in args.images], args.least)
        for path, found in zip(args.images, rows, strict=True):
            if found is None:
                print(f"{path}\tskipped")
                continue
            for each in found:
                box = " ".join(f"{side:.1f}" for side in each["box"])
                print(f"{path}\t{each['label']}\t{each['score']:.4f}\t{box}")
            if args.draw is not None:
                draw(path, found, args.draw / f"{path.stem}.png")
    except (ServerError, OSError, ValueError) as error:
        print(f"detect_client: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
