"""Communication between the processes of a job, and several devices as one, by JAX.

The processes compute one program over the whole batch: `keras.distribution.DataParallel`. JAX itself splits the batch and adds up the
gradients. Batch normalisation uses the statistics of the whole batch.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_deepnets.distribution.cluster import Cluster
from keras_deepnets.distribution.groups import SILENCE, Connected
from keras_deepnets.errors import InputError

_PIECE = 64 << 20  # bytes that are exchanged together: each process holds them once per process
_FAREWELL = 3.0  # seconds in which the other workers can say what happened


class JaxWorkers(Connected):
    """The workers of a job, connected by `jax.distributed`. `distribution.start` creates it.

    Each process uses all devices of its machine, or one device if other workers are on the machine.

    Args:
        cluster: The workers.
    """

    one_program = True

    def __init__(self, cluster: Cluster):
        import jax

        super().__init__(cluster)
        self._lost = False
        atexit.register(self._end)
        hosts = [worker.rpartition(":")[0] for worker in cluster.workers]
        shared = hosts.count(hosts[cluster.index]) > 1
        # In their order. Two collective operations at the same time may meet in another order on another process.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM, which saves the state here
        try:
            jax.distributed.initialize(
                cluster.workers[0],
                cluster.size,
                cluster.index,
                local_device_ids=[cluster.local_index] if shared else None,
                heartbeat_timeout_seconds=int(SILENCE),
            )
        except RuntimeError as error:
            if "before any JAX" not in str(error):
                raise
            raise InputError(
                "JAX ran operations before the workers were connected. Call keras_deepnets.distribution.start() at the start of the "
                "program."
            ) from error

    def abandon(self) -> None:
        """Leave the job without the others. The process will end with status 1 after an uncaught error, otherwise with 2."""
        self._lost = True
        if self.is_chief:  # JAX aborts the others as soon as the chief ends
            time.sleep(_FAREWELL)

    def _end(self) -> None:
        """End the process after the loss of a worker. JAX would wait for all workers first, and then abort it."""
        if self._lost:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(1 if getattr(sys, "last_value", None) is not None else 2)

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sums of tensors over all workers, as NumPy arrays. All workers must call it in the same order."""
        return [self._one_sum(np.asarray(tensor)) for tensor in tensors]

    def _one_sum(self, values: np.ndarray) -> np.ndarray:
        """Exchange bytes and add them up here, because JAX has no 64-bit numbers by default."""
        from jax.experimental import multihost_utils

        own = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        pieces = [own[start : start + _PIECE] for start in range(0, len(own), _PIECE)]
        totals = []
        for piece in pieces:
            rows = np.asarray(multihost_utils.process_allgather(piece))
            totals.append(sum(row.copy().view(values.dtype) for row in rows.reshape(self.size, -1)))
        flat = np.concatenate(totals) if totals else np.zeros(0)
        return flat.astype(values.dtype).reshape(values.shape)


class OneProgram:
    """All devices as one: variables have a copy on each device, and each device computes a part of the batch.

    Attributes:
        size: Number of devices of all processes.
    """

    def __init__(self) -> None:
        import keras

        devices = keras.distribution.list_devices()
        self.size = len(devices)
        self._whole = keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)

    @contextlib.contextmanager
    def training(self, model: Any, batches: Iterable[Any]) -> Iterator[None]:
        """A scope in which `fit` of a model uses all devices. Its validation uses one device of each process.

        Args:
            model: Compiled model. Its variables are on one device before and after.
            batches: The training data, of which one batch is read.
        """
        from keras_deepnets.layers.fast import internals

        evaluate = model.evaluate

        def on_one_device(*args: Any, **kwargs: Any) -> Any:
            """Each process has its own number of images."""
            self._to_one_device(_variables(model))
            with _no_distribution():
                found = evaluate(*args, **kwargs)
            self._to_all_devices(_variables(model))
            return found

        internals.create_variables(model, next(iter(batches)))
        self._to_all_devices(_variables(model))
        model.evaluate = on_one_device
        try:
            with self._whole.scope():
                yield
        finally:
            del model.evaluate
        self._to_one_device(_variables(model))  # not after an error: Keras has given the variables' values away

    def _to_all_devices(self, variables: Iterable[Any]) -> None:
        """Copy variables from one device of each process to all its devices. Their values are equal on all processes."""
        import jax

        from keras_deepnets.layers.fast import internals

        for variable in variables:
            layout = self._whole.get_variable_layout(variable)
            sharding = layout.backend_layout
            copies = [jax.device_put(variable.value, device) for device in sharding.addressable_devices]
            internals.set_layout(variable, layout)
            variable.assign(jax.make_array_from_single_device_arrays(tuple(variable.shape), sharding, copies))

    def _to_one_device(self, variables: Iterable[Any]) -> None:
        """Keep the copy of one device of this process. The variables are then those of an ordinary model."""
        from keras_deepnets.layers.fast import internals

        for variable in variables:
            copy = variable.value.addressable_data(0)
            internals.set_layout(variable, None)
            variable.assign(copy)


def _variables(model: Any) -> list[Any]:
    """The variables that a training step reads or writes."""
    found = {id(each): each for each in (*model.variables, *model.metrics_variables, *model.optimizer.variables)}
    return list(found.values())


@contextlib.contextmanager
def _no_distribution() -> Iterator[None]:
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def one_program() -> OneProgram:
    """All devices of all processes as one.

    Raises:
        InputError: There is only one device.
    """
    import jax

    if jax.device_count() < 2:
        raise InputError(
            f"distribute='mirrored' needs at least two devices, and JAX sees {jax.devices()[0]}. Use distribute='none'."
        )
    return OneProgram()
