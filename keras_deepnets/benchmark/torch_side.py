"""Sides that use PyTorch: torchvision, timm, pytorchcv. Runs in a worker."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Callable
from typing import Any

from keras_deepnets.benchmark.jobs import COMPILED, Job
from keras_deepnets.benchmark.process_memory import AllocatorMeter, Meter, ProcessMeter
from keras_deepnets.benchmark.side import Side
from keras_deepnets.versions import version


def build(job: Job) -> Side:
    """Build the side of a job as typical PyTorch: channels last, autocast for 16-bit types, eager or compiled."""
    start = time.perf_counter()
    import torch

    make = _builder(job)
    facts = {
        "import_seconds": time.perf_counter() - start,
        "device": device_name(),
        "versions": _versions(job.library),
    }
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # shapes are constant
    torch.backends.cuda.matmul.allow_tf32 = True  # as TensorFlow does
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    start = time.perf_counter()
    network = make().to(device, memory_format=torch.channels_last)
    size, classes = geometry(network)
    size = job.image_size or size
    facts |= {
        "build_seconds": time.perf_counter() - start,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "image_size": size,
    }
    if job.library == COMPILED:
        _freeze_for_inference()
        network = torch.compile(network)  # compiles in the first step
    images = torch.randn(job.batch, 3, size, size).to(device, memory_format=torch.channels_last)
    if job.mode == "inference":
        return Side(_inference(job, network, images), facts, meter())
    labels = torch.randint(0, classes, (job.batch,)).to(device)
    return Side(_training(job, network, images, labels), facts, meter())


def _freeze_for_inference() -> None:
    """Let the compiler treat weights as constants where no gradients are needed, which is its fastest mode."""
    setattr(importlib.import_module("torch._inductor.config"), "freezing", True)  # noqa: B010 - checkers do not see it


def geometry(network: Any) -> tuple[int, int]:
    """Return the side of the images that a network was designed for, and its number of classes.

    pytorchcv's networks know both. Those of the other libraries are for ImageNet.
    """
    return getattr(network, "in_size", (224, 224))[0], getattr(network, "num_classes", 1000)


def _training(job: Job, network: Any, images: Any, labels: Any) -> Callable[[], Any]:
    import torch

    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.001, momentum=0.9)
    scaler = torch.amp.GradScaler(images.device.type, enabled=job.dtype == "float16")

    def step() -> None:
        with _precision(job, images):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)  # last, so that gradients count as memory of the step, as in Keras
        _synchronise()

    return step


def _inference(job: Job, network: Any, images: Any) -> Callable[[], Any]:
    import torch

    network.eval()

    def step() -> None:
        with torch.inference_mode(), _precision(job, images):
            network(images)
        _synchronise()

    return step


def _precision(job: Job, images: Any) -> contextlib.AbstractContextManager[Any]:
    import torch

    if job.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(images.device.type, getattr(torch, job.dtype))


def _synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _builder(job: Job) -> Callable[[], Any]:
    """Import the library and return a function that builds the network."""
    assert job.peer is not None
    name, kwargs = job.peer
    with without_compiled_operators():
        if job.library in ("torchvision", COMPILED):
            models = importlib.import_module("torchvision").models
            if name == "ResNet":
                return lambda: models.ResNet(models.resnet.Bottleneck, **kwargs)
            return lambda: getattr(models, name)(**kwargs)
        if job.library == "timm":
            create_model = importlib.import_module("timm").create_model
            return lambda: create_model(name, **kwargs)
        if "." not in name:
            get_model = importlib.import_module("pytorchcv.model_provider").get_model
            return lambda: averaging_the_whole_map(get_model(name, pretrained=False))
        module, _, function = name.partition(".")
        make = getattr(importlib.import_module(f"pytorchcv.models.{module}"), function)
        return lambda: averaging_the_whole_map(make(num_classes=10, **kwargs))


def averaging_the_whole_map(network: Any) -> Any:
    """Use global average pooling. pytorchcv's CIFAR networks average over 8×8, the whole feature map only at 32 pixels.

    The pooling ignores the plan of drop-path that a FractalNet passes to each of its parts.
    """
    import torch

    class FinalPool(torch.nn.AdaptiveAvgPool2d):
        def forward(self, input: Any, **_: Any) -> Any:
            return super().forward(input)

    if hasattr(network.output, "final_pool"):  # NIN pools after its classifier
        network.output.final_pool = torch.nn.Sequential(FinalPool(1), torch.nn.Flatten())
    else:  # FractalNet has no such layer, because its last map is one pixel
        network.features.final_pool = FinalPool(1)
    return network


@contextlib.contextmanager
def without_compiled_operators() -> Any:
    """Allow importing torchvision if its compiled operators do not load, e.g. with a CPU build of torch.

    Registering the operators' shapes fails then. The operators are for detection, and classifiers do not need them.
    """
    import torch

    register = torch.library.register_fake

    def lenient(name: Any, *args: Any, **kwargs: Any) -> Any:
        def decorate(function: Any) -> Any:
            try:
                return register(name, *args, **kwargs)(function)
            except RuntimeError:
                return function

        return decorate

    torch.library.register_fake = lenient
    try:
        yield
    finally:
        torch.library.register_fake = register


def meter() -> Meter:
    """Meter of torch's memory: CUDA's statistics, or resident memory on a CPU, where torch returns unused memory to the system."""
    import torch

    if not torch.cuda.is_available():
        return ProcessMeter()
    cuda = torch.cuda
    return AllocatorMeter(
        "torch's allocator", cuda.reset_peak_memory_stats, cuda.memory_allocated, cuda.max_memory_allocated
    )


def device_name() -> str:
    """The GPU's name, or ``"CPU"``."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _versions(library: str) -> dict[str, str | None]:
    return {package: version(package) for package in ("torch", "torchvision" if library == COMPILED else library)}
