"""Run as a program by `test_interruption`: trains, and kills itself as `kill -9` would, at a given moment."""

import os
import signal
import sys

import keras
import tensorflow as tf

from keras_deepnets.training import checkpoints, train
from tests.training.common import images, network


class Kill(keras.callbacks.Callback):
    """In the middle of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(epoch):
    """The weights are on disk, the checkpoint has not been renamed yet."""
    of_file = checkpoints.digest

    def digest(path):
        if f"epoch-{epoch:05d}" in str(path) and "partial" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return of_file(path)

    checkpoints.digest = digest


def run(path, seed, callbacks=(), epochs=5):
    return train(
        network(seed),
        images(),
        "fast",
        path,
        validation=images(40, seed=1, split="test"),
        epochs=epochs,
        batch_size=32,
        augmentation="pad_crop_flip",
        ema=0.9,
        verbose=2,
        callbacks=callbacks,
    )


def main(folder, moment):
    tf.config.experimental.enable_op_determinism()
    if moment == "in an epoch":
        run(f"{folder}/run", 3, [Kill(1, 1)])
    elif moment == "at any moment":
        begun = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: print("begun", flush=True))
        run(f"{folder}/run", 3, [begun], epochs=60)
    elif moment == "at no moment":
        run(f"{folder}/run", 5, epochs=60).model.save_weights(f"{folder}/resumed.weights.h5")
        run(f"{folder}/whole", 3, epochs=60).model.save_weights(f"{folder}/whole.weights.h5")
    elif moment == "in a checkpoint":
        kill_while_writing(3)
        run(f"{folder}/run", 4)
    else:
        run(f"{folder}/run", 5).model.save_weights(f"{folder}/resumed.weights.h5")
        run(f"{folder}/whole", 3).model.save_weights(f"{folder}/whole.weights.h5")


if __name__ == "__main__":
    main(*sys.argv[1:])
