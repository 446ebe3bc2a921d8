"""Train on the JAX backend of Keras, then export with TensorFlow.

    pip install jax                      # for GPUs: jax[cuda12]
    python jax_backend.py                                              # CIFAR-10
    python jax_backend.py --data digits --limit 256 --epochs 2         # try-out: a minute

The network, the optimizer and the data pipeline are those of the other backends. `jit_compile` compiles the whole step.
The export starts a process with TensorFlow, which rebuilds the network and writes a SavedModel.
Estimated time on two CPU cores: 2 hours for 30 epochs of CIFAR-10, from 200 images per second on digits. The fast paths of this
library are TensorFlow's.
The script prints Keras' lines of the epochs, ``test accuracy … % on jax`` and the folder of the exported version.
"""

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="ResNet20", help="name of a constructor")
parser.add_argument("--data", default="cifar10", help="TFDS name, folder of class folders, or digits")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--limit", type=int, default=10**9, help="largest number of training and test images")
parser.add_argument("--backend", default="jax", choices=("jax", "torch", "tensorflow"))
parser.add_argument("--out", default="from_jax", help="folder of the exported versions")
args = parser.parse_args()
os.environ["KERAS_BACKEND"] = args.backend  # before the import of Keras

import keras  # noqa: E402

import keras_deepnets as kd  # noqa: E402

keras.utils.set_random_seed(0)
train, test = (kd.data.load(args.data, split).take(args.limit) for split in ("train", "test"))
options = {"input_shape": train.image_shape, "classes": train.classes}
scaling = kd.Scaling(*train.statistics(), crop_fraction=1.0)
model = getattr(kd, args.model)(**options, include_preprocessing=scaling)
model.labels = train.labels
optimizer = kd.training.CoupledSGD(kd.training.OneCycle(0.2, args.epochs * train.steps(64)), nesterov=True, l2=5e-4)
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=args.backend != "torch")
model.fit(train.batches(64, training=True, augment="pad_crop_flip"), epochs=args.epochs, shuffle=False, verbose=2)
print(f"test accuracy {100 * model.evaluate(test.batches(64), verbose=0)[1]:.2f} % on {keras.backend.backend()}")

print(kd.export.saved_model(model, args.out))
