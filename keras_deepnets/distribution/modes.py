"""The ways to distribute training."""

from __future__ import annotations

from keras_deepnets.distribution.cluster import CONFIG, from_environment
from keras_deepnets.errors import InputError

MODES = ("none", "mirrored", "multiworker", "auto")
"""One device; all devices of this process; one process per device, on any number of machines; what the environment describes."""


def mode_of(distribute: str) -> str:
    """Resolve ``"auto"``, and check that the environment describes what is asked for.

    Raises:
        InputError: The name is unknown, the backend is PyTorch, or no variable describes the workers.
    """
    if distribute not in MODES:
        raise InputError(f"distribute={distribute!r} must be one of {', '.join(MODES)}.")
    if distribute == "none":
        return distribute
    import keras

    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        if distribute == "auto":
            return "none"
        raise InputError(f"distribute={distribute!r} needs Keras on TensorFlow or JAX; it runs on {backend}.")
    cluster = from_environment()
    if distribute == "multiworker" and cluster is None:
        raise InputError(
            f"distribute='multiworker' needs at least two workers, and no variable describes them. Set {CONFIG}, or start the workers "
            "with srun."
        )
    if distribute != "auto":
        return distribute
    if cluster is not None:
        return "multiworker"
    return "mirrored" if gpus() > 1 else "none"


def gpus() -> int:
    """Number of GPUs or other accelerators on which Keras computes in this process."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.device_count()
    if backend == "jax":
        import jax

        return sum(device.platform != "cpu" for device in jax.local_devices())
    import tensorflow as tf

    return len(tf.config.list_logical_devices("GPU"))
