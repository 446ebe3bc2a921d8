"""Run as a program by `test_interruption`: trains, and kills itself as `kill -9` would, at a given moment."""

import os
import shutil
import signal
import sys
from pathlib import Path

import keras
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets.training import checkpoints, fit, train
from tests.training.common import images, network

PLAIN = {"recipe": "fast", "epochs": 5, "batch_size": 32, "augmentation": "pad_crop_flip", "ema": 0.9}
MIXED = "pad_crop_flip+mixup(0.2)+cutmix(1.0)"
TUNED = {"recipe": "fine_tune", "head_epochs": 2, "epochs": 3, "batch_size": 32, "augmentation": "pad_crop_flip"}
LAMB = {"recipe": "wightman2021_a3", "epochs": 5, "batch_size": 32, "warmup": "1 epochs", "image_size": None}


def resnet(seed, **options):
    keras.utils.set_random_seed(seed)
    return kd.ResNet(
        depth=8,
        stem="cifar",
        input_shape=(8, 8, 1),
        classes=4,
        include_preprocessing=kd.Scaling([60], [70]),
        stochastic_depth=0.2,
        **options,
    )


def blocks(seed):
    return resnet(seed, block_layers=True, drop_unit="batch")


# What is trained: the network of a seed, and the arguments of `train`.
CASES = {
    "plain": (network, PLAIN),
    "fine-tuning": (network, TUNED),
    "stochastic depth, EMA": (resnet, PLAIN | {"augmentation": MIXED}),
    "blocks, LAMB, shards": (blocks, LAMB | {"augmentation": MIXED}),
    "blocks, repeated": (blocks, LAMB | {"augmentation": "pad_crop_flip+rand_augment(7)", "repeated_augmentation": 2}),
}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Kill(keras.callbacks.Callback):
    """In the middle of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            die()


def kill_while_writing(epoch):
    """The weights are on disk, the checkpoint has not been renamed yet."""
    of_file = checkpoints.digest

    def digest(path):
        if f"epoch-{epoch:05d}" in str(path) and "partial" in str(path):
            die()
        return of_file(path)

    checkpoints.digest = digest


def kill_at_rename(name, count, after):
    """Before or after the file or folder of that name is put in its place for the `count`th time."""
    replace, seen = Path.replace, []

    def replace_and_die(self, target):
        seen.append(Path(target).name)
        last = seen.count(name) == count and seen[-1] == name
        if last and not after:
            die()
        replace(self, target)
        if last:
            die()

    Path.replace = replace_and_die


def kill_while_removing():
    """An old checkpoint has lost one of its two files."""

    def rmtree(path, **options):
        next(Path(path).iterdir()).unlink()
        die()

    shutil.rmtree = rmtree


# In this order, one process each; what is there afterwards stands in the test.
MOMENTS = {
    "before the first metrics": lambda: kill_at_rename("metrics.csv", 1, after=False),
    "after metrics": lambda: kill_at_rename("metrics.csv", 1, after=True),
    "before the rename": lambda: kill_at_rename("epoch-00001", 1, after=False),
    "after the rename": lambda: kill_at_rename("epoch-00001", 1, after=True),
    "removing": kill_while_removing,
    "before the model": lambda: kill_at_rename("model.keras", 1, after=False),
}


def run(path, seed, callbacks=(), case="plain", **overrides):
    build, arguments = CASES[case]
    fit.HEAD_SECONDS = 0  # a checkpoint after each epoch of the classifier too
    arguments = arguments | overrides
    shards = Path(path).parent / "shards"
    data = {"data": images(), "validation": images(40, seed=1, split="test")}
    if "shards" in case:
        data = {"data": shards_of(shards)}
    return train(build(seed), run_dir=path, verbose=2, callbacks=callbacks, **data, **arguments)


def shards_of(folder):
    """The quadrants as record files, written once."""
    if not folder.exists():
        pictures = folder.parent / "pictures"
        for split, data in (("train", images()), ("test", images(40, seed=1, split="test"))):
            for number, (image, label) in enumerate(data.examples().as_numpy_iterator()):
                path = pictures / split / data.labels[label] / f"{number:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tf.io.encode_png(image).numpy())
        kd.data.write_shards(pictures, folder, 3)
    return folder


def main(folder, moment, case="plain"):
    tf.config.experimental.enable_op_determinism()
    if moment == "in an epoch":
        run(f"{folder}/run", 3, [Kill(1, 1)], case)
    elif moment == "at any moment":
        begun = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: print("begun", flush=True))
        run(f"{folder}/run", 3, [begun], case, epochs=60)
    elif moment == "at no moment":
        run(f"{folder}/run", 5, (), case, epochs=60).model.save_weights(f"{folder}/resumed.weights.h5")
        run(f"{folder}/whole", 3, (), case, epochs=60).model.save_weights(f"{folder}/whole.weights.h5")
    elif moment == "in a checkpoint":
        kill_while_writing(3)
        run(f"{folder}/run", 4, (), case)
    elif moment in MOMENTS:
        MOMENTS[moment]()
        run(f"{folder}/run", 4 if (Path(folder) / "run" / "config.json").exists() else 3, (), case)
    else:
        run(f"{folder}/run", 5, (), case).model.save_weights(f"{folder}/resumed.weights.h5")
        run(f"{folder}/whole", 3, (), case).model.save_weights(f"{folder}/whole.weights.h5")


if __name__ == "__main__":
    main(*sys.argv[1:])
