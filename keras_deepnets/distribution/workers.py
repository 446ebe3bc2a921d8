"""Communication between the processes of a job, by the collective operations of TensorFlow's `MultiWorkerMirroredStrategy`.

Only sums and texts travel through the strategy. Each process trains an ordinary model with ordinary variables, because Keras 3 cannot
run `fit` in the strategy's scope (https://github.com/keras-team/keras/issues/20585).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_deepnets.distribution import meeting
from keras_deepnets.distribution.cluster import CONFIG, Cluster, from_environment
from keras_deepnets.distribution.groups import ALONE, SILENCE, Connected, Group
from keras_deepnets.distribution.jax_workers import JaxWorkers
from keras_deepnets.distribution.modes import mode_of
from keras_deepnets.errors import InputError

BUCKET = 16 << 20
"""Bytes of tensors that are summed together."""
_LOST = ("UnavailableError", "AbortedError", "DeadlineExceededError", "CancelledError")


class Workers(Connected):
    """The workers of a job, connected. `start` creates it.

    Args:
        cluster: The workers.
    """

    def __init__(self, cluster: Cluster):
        import tensorflow as tf

        super().__init__(cluster)
        os.environ[CONFIG] = cluster.tf_config()
        _use_one_device(cluster.local_index)
        on_gpu = bool(tf.config.get_visible_devices("GPU"))
        kinds = tf.distribute.experimental.CommunicationImplementation
        options = tf.distribute.experimental.CommunicationOptions(implementation=kinds.NCCL if on_gpu else kinds.RING)
        _bound_silence(cluster)
        try:
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        except tf.errors.OpError as error:
            raise InputError(
                f"Worker {cluster.index} of {cluster.size} stops, because another worker stopped while TensorFlow connected them. Start "
                "all workers again."
            ) from error
        except RuntimeError as error:
            if "program startup" not in str(error):
                raise
            raise InputError(
                "TensorFlow ran operations before the workers were connected. Call keras_deepnets.distribution.start() at the start of "
                "the program."
            ) from error
        self._eager: dict[Any, Callable[..., Any]] = {}

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sums of tensors over all workers, inside or outside a graph. All workers must call it in the same order."""
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        if not tensors:
            return []
        if not tf.executing_eagerly():
            return self._sum(*tensors)
        kinds = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        if kinds not in self._eager:
            self._eager[kinds] = tf.function(self._sum, autograph=False)
        return self._eager[kinds](*tensors)

    def _sum(self, *tensors: Any) -> list[Any]:
        import tensorflow as tf

        def reduce(*values: Any) -> Any:
            placed = [tf.identity(value) for value in values]  # on the device of the replica
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, placed)

        found: list[Any] = [None] * len(tensors)
        for places in _buckets(tensors):
            flat = tf.concat([tf.reshape(tensors[place], [-1]) for place in places], 0)
            (total,) = self._strategy.run(reduce, args=(flat,))
            parts = tf.split(total, [tensors[place].shape.num_elements() for place in places])
            for place, part in zip(places, parts, strict=True):
                found[place] = tf.reshape(part, tensors[place].shape)
        return found

    def abandon(self) -> None:
        """Leave the job. TensorFlow does not wait for the others."""


def _buckets(tensors: Sequence[Any]) -> list[list[int]]:
    """Places of tensors that are summed together: of one dtype, and of about `BUCKET` bytes.

    One sum per tensor would pay the delay of the network hundreds of times. One sum of all would wait for the first layer's gradient.
    """
    found: list[list[int]] = []
    room: dict[Any, tuple[list[int], int]] = {}
    for place, tensor in enumerate(tensors):
        size = tensor.shape.num_elements() * tensor.dtype.size
        bucket, left = room.get(tensor.dtype, ([], 0))
        if size > left:
            bucket, left = [], BUCKET
            found.append(bucket)
        bucket.append(place)
        room[tensor.dtype] = (bucket, left - size)
    return found


def _bound_silence(cluster: Cluster) -> None:
    """Make TensorFlow report a silent worker after `SILENCE` seconds, and give up connecting after twice that time.

    TensorFlow's own times are 10 seconds, which a busy machine can exceed, and an hour. A version without these settings keeps its own.
    """
    from keras_deepnets.layers.fast import internals

    with contextlib.suppress(ImportError, AttributeError, TypeError):
        internals.bound_silence(cluster.size, connect=2 * SILENCE, heartbeat=SILENCE)


def _use_one_device(local_index: int) -> None:
    """Use one GPU per process: the one of its number among the processes of the machine."""
    import tensorflow as tf

    devices = tf.config.get_visible_devices("GPU")
    if len(devices) > 1:
        try:
            tf.config.set_visible_devices(devices[local_index % len(devices)], "GPU")
        except RuntimeError:  # they are in use already
            print("Several GPUs are visible; this worker uses the first one.", file=sys.stderr, flush=True)


_started: list[Connected] = []


def start(cluster: Cluster | None = None, within: float = meeting.CONNECT) -> Connected:
    """Connect this process with the other workers, and wait for them. Later calls return the same object.

    Args:
        cluster: The workers. None: those that ``TF_CONFIG`` or Slurm's variables describe.
        within: Seconds to wait for the other workers. Missing ones are named after 10 seconds, and then every minute.

    Raises:
        InputError: No variable describes the workers, or the backend has run operations before. A worker did not connect in
            time, or stopped meanwhile.
    """
    if _started:
        return _started[0]
    cluster = cluster or from_environment()
    if cluster is None:
        raise InputError(f"No variable describes the workers. Set {CONFIG}, or start the workers with srun.")
    others = cluster.size - 1
    print(
        f"Worker {cluster.index} of {cluster.size} at {cluster.workers[cluster.index]} waits for {others} other{'s' * (others > 1)}.",
        flush=True,
    )
    meeting.meet(cluster, within, lambda line: print(line, file=sys.stderr, flush=True))
    import keras

    _started.append(JaxWorkers(cluster) if keras.backend.backend() == "jax" else Workers(cluster))
    return _started[0]


def join(distribute: str, within: float = meeting.CONNECT) -> tuple[str, Group]:
    """Resolve a way to distribute training, and connect with the other workers if there are any.

    Args:
        distribute: One of `MODES`.
        within: Seconds to wait for the other workers.

    Returns:
        The way, which is not ``"auto"``, and the group of processes.

    Raises:
        InputError: As for `mode_of` and `start`.
    """
    mode = mode_of(distribute)
    return mode, start(within=within) if mode == "multiworker" else ALONE


@contextlib.contextmanager
def watched(group: Group, advice: Callable[[], str] | None = None) -> Iterator[None]:
    """A scope that turns the loss of another worker into one clear error.

    Args:
        group: The workers.
        advice: Returns the end of the message: what is left, and what to do.

    Raises:
        InputError: Another worker stopped.
    """
    try:
        yield
    except Exception as error:
        if group.size == 1 or not is_loss(error):
            raise
        group.abandon()
        end = f" {advice()}" if advice else ""
        raise InputError(
            f"Worker {group.index} of {group.size} stops, because {_lost(error, group)}.{end} Start all workers again with the same "
            "command to resume."
        ) from error


def _lost(error: BaseException, group: Group) -> str:
    """Say which workers an error of TensorFlow is about, if the error says so."""
    text = str(error)
    _, _, unhealthy = text.partition("stopped sending heartbeats")
    found = re.findall(r"^/job:worker/replica:0/task:(\d+)$", unhealthy, re.MULTILINE)
    if not found and "CoordinationService/Heartbeat" in text:
        found = ["0"]  # the chief answers it
    if found:
        names = meeting.listed([group.name_of(index) for index in sorted({int(each) for each in found})])
        return f"there is no sign of life from {names}"
    return "another worker stopped or cannot be reached"


def is_loss(error: BaseException) -> bool:
    """Whether an error of TensorFlow or JAX means that another process cannot be reached."""
    text = str(error)
    known = ("Connection reset", "Socket closed", "failed to connect", "peer", "Collective", "GrpcError", "unavailable")
    if type(error).__name__ in _LOST:
        return True
    if type(error).__name__ in ("ValueError", "JaxRuntimeError", "XlaRuntimeError"):
        return any(word in text for word in ("Gloo", "NCCL", "UNAVAILABLE", "coordination service"))
    return type(error).__name__ in ("InternalError", "UnknownError", "InvalidArgumentError") and any(
        word in text for word in known
    )
