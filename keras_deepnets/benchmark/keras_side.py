"""Sides that use Keras: this library, keras.applications and the stock twin. Also the ceiling. Runs in a worker."""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_deepnets.benchmark.jobs import DTYPES, FOLDED, OURS, Job
from keras_deepnets.benchmark.process_memory import AllocatorMeter, Meter, ProcessMeter
from keras_deepnets.benchmark.side import Side
from keras_deepnets.versions import version

_SIZES = (512, 1024, 2048, 4096, 8192, 16384)
_LONG_ENOUGH = 0.1  # seconds of one matrix product


def build(job: Job) -> Side:
    """Build the side of a job."""
    start = time.perf_counter()
    import keras

    if job.kind == "network" and job.library in (OURS, FOLDED):
        from keras_deepnets import registry

        registry.constructor_of(job.model)  # imports the family
    facts = {"import_seconds": time.perf_counter() - start, "device": _device(), "versions": _versions()}
    if job.kind == "ceiling":
        return Side(lambda: None, facts | {"gflops": _ceiling(job)})
    keras.config.set_dtype_policy(DTYPES[job.dtype])
    keras.utils.set_random_seed(0)
    network, building = network_of(job)
    facts |= counts(network) | {"image_size": network.input_shape[1]}
    makers = {"train": _training, "inference": _inference, "export": _exported}
    step, more = makers[job.mode](job, network)
    # A twin is a copy of an existing network, so the time is not comparable with building one.
    facts["build_seconds"] = None if job.library == "keras-twin" else building
    return Side(step, facts | more, _meter())


def network_of(job: Job) -> tuple[Any, float]:
    """Build the network. Return it and the seconds that building took."""
    import keras

    from keras_deepnets import export, registry
    from keras_deepnets.benchmark.twins import stock_twin

    ours = registry.constructor_of(job.model)
    kwargs: dict[str, Any] = {}
    if job.image_size is not None:
        channels = ours.facts.spec_with(job.options).domain.input_shape[-1]
        kwargs["input_shape"] = (job.image_size, job.image_size, channels)
    start = time.perf_counter()
    if job.library == "keras.applications":
        assert job.peer is not None
        network = getattr(keras.applications, job.peer[0])(weights=None, **kwargs)
    else:
        options = _stock_options(ours, job.options) if job.library == "keras-twin" else job.options
        network = ours(**kwargs, **options)
        if job.library not in (OURS, FOLDED):
            network = stock_twin(network)
    seconds = time.perf_counter() - start
    if job.mode != "train":
        settle(network)
    if job.library == FOLDED:
        start = time.perf_counter()
        network = export.fold_batchnorm(network)
        seconds += time.perf_counter() - start
    return network, seconds


def settle(network: Any) -> None:
    """Give batch normalisation statistics and parameters that differ from their initial values.

    A freshly built network is not representative of inference. Its folded biases are zeros, which TensorFlow optimises away. Without
    a bias, TensorFlow does not fuse a convolution with its ReLU.
    """
    import numpy as np

    random = np.random.default_rng(0)
    ranges = {"moving_mean": (-0.1, 0.1), "moving_variance": (0.9, 1.1), "beta": (-0.1, 0.1)}
    for weight in network.weights:
        if weight.name in ranges:
            weight.assign(random.uniform(*ranges[weight.name], weight.shape))


def _stock_options(constructor: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options for the same network with layers that Keras also has: without recomputing and without block layers."""
    plain = {"memory_efficient": False, "block_layers": False}
    known = inspect.signature(constructor).parameters
    return options | {name: value for name, value in plain.items() if name in known}


def counts(network: Any) -> dict[str, int]:
    """Multiply-adds and trainable parameters."""
    from keras_deepnets import models

    return {"multiply_adds": models.multiply_adds(network), "parameters": models.trainable_parameters(network)}


def _data(job: Job, network: Any) -> tuple[Any, Any]:
    """Images and labels on the device."""
    import keras
    import numpy as np

    generator = np.random.default_rng(0)
    images = generator.standard_normal((job.batch, *network.input_shape[1:]), dtype="float32")
    labels = generator.integers(0, network.output_shape[-1], job.batch)
    return keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)


def _training(job: Job, network: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
    import keras

    images, labels = _data(job, network)
    network.compile(
        keras.optimizers.SGD(0.001, momentum=0.9),
        "sparse_categorical_crossentropy",
        # XLA is not faster on a CPU and takes minutes to compile. JAX supports only XLA.
        jit_compile=keras.backend.backend() == "jax",
    )
    if keras.backend.backend() != "tensorflow":
        return lambda: float(network.train_on_batch(images, labels)), {}
    import tensorflow as tf

    # Run the compiled step itself on existing data, so that input pipelines and Keras' bookkeeping are not measured.
    batch = (images, labels, None)
    compiled = None

    def step() -> None:
        nonlocal compiled
        if compiled is None:
            network.train_on_batch(images, labels)
            compiled = network.train_function
            return
        for value in tf.nest.flatten(compiled(iter([batch]))):
            value.numpy()

    return step, {}


def _inference(job: Job, network: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
    import keras

    images, _ = _data(job, network)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        from keras_deepnets import export

        if job.library == FOLDED:
            forward = export.inference_function(network)
        else:
            forward = tf.function(lambda x: network(x, training=False), autograph=False)
        return lambda: forward(images).numpy(), {}
    if backend == "jax":
        import jax

        compiled = jax.jit(lambda trained, others, x: network.stateless_call(trained, others, x, training=False)[0])
        trained = [variable.value for variable in network.trainable_variables]
        others = [variable.value for variable in network.non_trainable_variables]
        return lambda: compiled(trained, others, images).block_until_ready(), {}
    import torch

    def step() -> None:
        with torch.inference_mode():
            network(images, training=False).cpu()

    return step, {}


def _exported(job: Job, network: Any) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Write a SavedModel and load it. This library's network uses `export.saved_model`, others use Keras' export."""
    import numpy as np
    import tensorflow as tf

    from keras_deepnets import export

    generator = np.random.default_rng(0)
    shape = (job.batch, *network.input_shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if job.library == OURS:
            path = export.saved_model(network, folder)
            images = tf.constant(generator.integers(0, 256, shape, dtype="uint8"))
            name = "serving_images"
        else:
            path = Path(folder) / "model"
            network.export(path, verbose=False)
            images = tf.constant(generator.standard_normal(shape, dtype="float32"))
            name = "serving_default"
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures[name]
    (argument,) = signature.structured_input_signature[1]

    def step(_keep: Any = loaded) -> None:  # the signature alone does not keep the weights alive
        for value in signature(**{argument: images}).values():
            value.numpy()

    return step, {"artifact_bytes": size, "export_seconds": seconds}


def _ceiling(job: Job) -> float:
    """Best GFLOP/s of a few square matrix products, each large enough to take a tenth of a second."""
    import keras

    best = 0.0
    for size in (job.size,) if job.size else _SIZES:
        a = keras.ops.cast(keras.random.normal((size, size)), job.dtype)

        def product(a: Any = a) -> None:
            keras.ops.convert_to_numpy(keras.ops.cast(keras.ops.matmul(a, a)[0, 0], "float32"))

        seconds = min(_timed(product) for _ in range(2))
        best = max(best, 2 * size**3 / seconds / 1e9)
        if seconds >= _LONG_ENOUGH:
            break
    seconds = min(_timed(product) for _ in range(5))
    return max(best, 2 * size**3 / seconds / 1e9)


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _meter() -> Meter:
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
        info, reset = tf.config.experimental.get_memory_info, tf.config.experimental.reset_memory_stats
        try:
            info(device)
        except ValueError:  # an allocator without statistics, such as the CPU's default one
            return ProcessMeter()
        # With oneDNN, the CPU allocator keeps its arena, so the process does not show a single step's use of it. Allocations below
        # 256 KiB do not use the arena. They appear only in the memory of the process, not in the statistics.
        return AllocatorMeter(
            "TensorFlow's allocator",
            lambda: reset(device),
            lambda: info(device)["current"],
            lambda: info(device)["peak"],
            with_process=device.startswith("CPU"),
        )
    if backend == "torch":
        from keras_deepnets.benchmark.torch_side import meter

        return meter()
    import jax

    stats = jax.devices()[0].memory_stats
    if not stats():
        return ProcessMeter()
    return AllocatorMeter(
        "JAX's allocator", lambda: None, lambda: stats()["bytes_in_use"], lambda: stats()["peak_bytes_in_use"]
    )


def _device() -> str:
    """The accelerator's name, or ``"CPU"``."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    if backend == "torch":
        from keras_deepnets.benchmark.torch_side import device_name

        return device_name()
    import jax

    device = jax.devices()[0]
    return "CPU" if device.platform == "cpu" else device.device_kind


def _versions() -> dict[str, str | None]:
    import keras

    package = {"torch": "torch", "jax": "jax"}.get(keras.backend.backend(), "tensorflow")
    return {
        "keras-deepnets": version("keras-deepnets"),
        "keras": keras.__version__,
        package: version(package),
    }
