"""Run as a program by `test_distribution`: the same training on one device, and shared out over two by `tf.distribute`."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_deepnets import layers
from keras_deepnets.models import DeepNet
from keras_deepnets.training import Checkpoint, CheckpointStore, CoupledSGD, MetricsFile, OneCycle, SmoothedCrossentropy
from tests.training.common import images


def network():
    """Without batch normalisation, whose statistics are those of a device's images. With bounded norms, and slopes that do not decay."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    x = layers.prelu(layers.biased_dense(x, 16, max_norm=0.9, name="bounded"), name="rectifier")
    model = DeepNet(inputs, keras.layers.Dense(4, activation="softmax")(x))
    model.compile(
        CoupledSGD(OneCycle(0.1, 9), nesterov=True, l2=1e-3, l2_on="all"),
        SmoothedCrossentropy(0.1),
        metrics=["accuracy"],
    )
    return model


def fit(model, folder):
    history = []
    callbacks = [
        MetricsFile(folder / "metrics.csv", history, 32),
        Checkpoint(CheckpointStore(folder / "checkpoints"), history),
    ]
    # Keras takes a batch beforehand to build the metrics: only `repeat` still begins with epoch 0.
    batches = images().batches(32, training=True, augment="pad_crop_flip", repeat=True)
    model.fit(batches, epochs=3, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=callbacks)
    return history


def main(folder):
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    alone = network()
    fit(alone, folder / "one")
    with strategy.scope():
        shared = network()
    history = fit(shared, folder / "two")
    for ours, theirs in zip(shared.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    norms = np.sqrt((shared.get_layer("bounded").kernel.numpy() ** 2).sum(0))
    assert 0.89 < norms.max() < 0.9 * (1 + 1e-6)
    with strategy.scope():
        resumed = network()
    state = CheckpointStore(folder / "two" / "checkpoints").restore(resumed)
    assert (state.epoch, state.step, state.history) == (3, 9, history)
    for ours, theirs in zip(resumed.get_weights(), shared.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(resumed.optimizer.variables, shared.optimizer.variables, strict=True):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(variable) for variable in (ours, theirs)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
