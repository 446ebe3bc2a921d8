"""Classify photos with an exported TFLite file on a small device, without TensorFlow, Keras or this library.

    pip install ai-edge-litert numpy pillow               # on the device, e.g. a Raspberry Pi
    python tflite_on_device.py flowers.tflite a.jpg b.jpg

Copy `flowers.tflite` and `flowers.tflite.json` to the device. Both come from
``keras-deepnets export RUN flowers.tflite --format tflite --quantize int8 --calibration photos``.
A ResNet50 with int8 weights has 26 MB. ``--repeat 50`` measures the time of one image on the device.
The script prints a line for each photo: ``a.jpg: rose 93.1 %, tulip 4.0 %, daisy 1.2 % (8.1 ms)``.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # on a computer with TensorFlow
    from tensorflow.lite.python.interpreter import Interpreter

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="TFLite file; its .json file lies beside it")
parser.add_argument("photos", nargs="+")
parser.add_argument("--repeat", type=int, default=1, help="runs per photo, for the time")
args = parser.parse_args()

card = json.loads(Path(f"{args.model}.json").read_text("utf-8"))
view, interpolations = card["input"], {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
interpreter = Interpreter(args.model)
interpreter.allocate_tensors()
entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def pixels(path):
    """The centre of the upright photo in the size of the network, as the library's evaluation cuts it."""
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB" if view["channels"] == 3 else "L")
    cover = [round(view[side] / view["crop_fraction"]) for side in ("width", "height")]
    scale = max(new / old for new, old in zip(cover, photo.size, strict=True))
    photo = photo.resize([round(side * scale) for side in photo.size], interpolations[view["interpolation"]])
    left, top = round((photo.width - view["width"]) / 2), round((photo.height - view["height"]) / 2)
    photo = photo.crop((left, top, left + view["width"], top + view["height"]))
    return np.asarray(photo, "float32").reshape(entry["shape"])


for path in args.photos:
    image, (scale, zero) = pixels(path), entry["quantization"]  # a scale of zero: the file takes floats
    interpreter.set_tensor(entry["index"], (np.round(image / scale) + zero if scale else image).astype(entry["dtype"]))
    begin = time.perf_counter()
    for _ in range(args.repeat):
        interpreter.invoke()
    seconds = (time.perf_counter() - begin) / args.repeat
    answer, (scale, zero) = interpreter.get_tensor(end["index"])[0].astype("float32"), end["quantization"]
    chances = (answer - zero) * scale if scale else answer
    best = ", ".join(f"{card['labels'][k]} {100 * chances[k]:.1f} %" for k in np.argsort(-chances)[:3])
    print(f"{path}: {best} ({seconds * 1000:.1f} ms)")
