"""Train with your own recipe, optimizer, loss, callback and data. The run stays resumable.

    python own_pieces.py                                  # the embedded digits, 5 epochs: about a minute on two CPU cores
    python own_pieces.py --limit 256 --epochs 1           # try-out: half a minute

The try-out prints ``epoch 1: …`` with the loss, then ``test accuracy … %``.
"""

import argparse
from pathlib import Path

import keras

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--limit", type=int, default=1437, help="largest number of training and test images")
parser.add_argument("--epochs", type=float, default=5)
parser.add_argument("--out", type=Path, default=Path("own"), help="folder of the recipe and the run")
args = parser.parse_args()

recipe = args.out / "mine.yaml"  # a base recipe and the fields that differ
recipe.parent.mkdir(parents=True, exist_ok=True)
recipe.write_text("base: fast\nbatch_size: 32\naugmentation: shift\nema: null\n")


class GradeOfDoubt(keras.losses.Loss):
    """Focal cross entropy (Lin et al. 2017). Images that the network classifies confidently have little weight."""

    def call(self, labels, outputs):
        """Return the loss of each image from integer labels and probabilities."""
        targets = keras.ops.one_hot(keras.ops.cast(labels, "int32"), outputs.shape[-1])
        return keras.losses.categorical_focal_crossentropy(targets, outputs, gamma=1.0)


def pairs(split):
    """Return a data set of (image, label) pairs; any other `tf.data.Dataset` of pairs works too."""
    return kd.data.load("digits", split).take(args.limit).examples()


run = kd.training.train(
    "resnet20",
    pairs("train"),
    recipe,
    args.out / "run",
    validation=pairs("test"),
    optimizer=keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(2e-3, 220), weight_decay=0.01),
    loss=GradeOfDoubt(),
    callbacks=[
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print(f"epoch {epoch + 1}: {logs['loss']:.3f}"))
    ],
    epochs=args.epochs,
    verbose=0,
)
print(f"test accuracy {100 * run.metrics['val_accuracy']:.2f} %")
