"""Several devices of one process, by TensorFlow's `MirroredStrategy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_deepnets.errors import InputError


def mirrored() -> Any:
    """A `MirroredStrategy` over the GPUs of this process, or over its logical CPUs if it has no GPU.

    Raises:
        InputError: There is only one device.
    """
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        raise InputError(
            f"distribute='mirrored' needs at least two GPUs, and this process sees {devices[0].name}. Use distribute='none'."
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])


class Devices:
    """The devices of a strategy, as layers see them inside a training step.

    Args:
        strategy: A `MirroredStrategy`.
    """

    def __init__(self, strategy: Any):
        self.size = strategy.num_replicas_in_sync

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sums of tensors over the devices."""
        import tensorflow as tf

        return list(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))
