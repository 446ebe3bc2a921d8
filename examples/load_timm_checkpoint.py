"""Load a checkpoint of timm, compare it with timm itself, and save it for Keras.

    python load_timm_checkpoint.py resnet50d resnet50d.safetensors     # a file that you trained with timm
    python load_timm_checkpoint.py resnet50d timm/resnet50d            # published weights, downloads once

The architecture's options follow from timm's name: a deep stem, attention, anti-aliasing. The classes follow from the
file. The loader raises an error unless each tensor has its place. It reads `.pth`, `.pt` and `.safetensors` without torch.
If timm is installed (``pip install timm``), the script compares the outputs of both networks for random images.
It takes seconds. It prints the options of the network, ``outputs differ by … of the largest logit`` where timm is
installed, and the name of the file that `keras.saving.load_model` reads.
"""

import argparse
import importlib.util
from pathlib import Path

import keras
import numpy as np

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("name", help="timm's name of the network")
parser.add_argument("weights", help="file, or timm/NAME for published weights")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--out", help="by default NAME.keras")
args = parser.parse_args()

shape = (args.image_size, args.image_size, 3)
model = kd.weights.open_model(args.weights, f"timm/{args.name}", input_shape=shape)
print(f"{args.name}: {model.architecture['options']}, {model.output_shape[-1]} classes")
out = args.out or f"{args.name}.keras"
model.save(out)

if importlib.util.find_spec("timm") and Path(args.weights).is_file():
    import timm
    import torch

    peer = timm.create_model(args.name, num_classes=model.output_shape[-1], checkpoint_path=args.weights).eval()
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    with torch.inference_mode():
        theirs = peer(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    model.layers[-1].activation = keras.activations.linear
    ours = keras.ops.convert_to_numpy(model(images))
    print(f"outputs differ by {np.abs(ours - theirs).max() / np.abs(theirs).max():.1e} of the largest logit")
print(out)
