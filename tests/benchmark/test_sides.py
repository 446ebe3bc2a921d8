"""The sides that a worker builds, here in this process."""

import importlib.util

import keras
import pytest

from keras_deepnets import facts, registry
from keras_deepnets.benchmark import keras_side, peers, torch_side, worker
from keras_deepnets.benchmark.jobs import Job
from keras_deepnets.benchmark.process_memory import AllocatorMeter, ProcessMeter, lifetime_peak

pytestmark = pytest.mark.integration


def network_of(monkeypatch):
    """The networks that are built from here on."""
    built = []
    real = keras_side.network_of

    def spy(job):
        built.append(real(job)[0])
        return built[-1], 1.5

    monkeypatch.setattr(keras_side, "network_of", spy)
    return built


@pytest.mark.parametrize("library", ["ours", "keras-twin"])
def test_training(monkeypatch, library):
    built = network_of(monkeypatch)
    side = keras_side.build(Job(library=library, model="resnet20", dtype="bfloat16", batch=2, image_size=8))
    (network,) = built
    before = network.get_weights()
    side.step()
    middle = network.get_weights()
    side.step()
    after = network.get_weights()
    for old, new in ((before, middle), (middle, after)):
        assert all((a != b).any() for a, b in zip(old, new, strict=True) if a.ndim == 4)
    assert network.dtype_policy.name == "mixed_bfloat16"
    assert (network.optimizer.momentum, network.jit_compile) == (0.9, False)
    expected = registry.create_model("resnet20", input_shape=(8, 8, 3))
    assert side.facts["multiply_adds"] == (facts.model_info("resnet20").flops - 640) // 16 + 640
    assert side.facts["parameters"] == keras_side.counts(expected)["parameters"]
    assert side.facts["image_size"] == 8
    assert side.facts["build_seconds"] == (1.5 if library == "ours" else None)
    assert side.facts["versions"]["keras"] == keras.__version__
    own = any(type(layer).__module__.startswith("keras_deepnets") and layer.weights for layer in network.layers)
    assert own == (library == "ours")
    assert side.meter.measure(side.step) > 0 or side.meter.source == "resident memory"


def test_inference_of_a_folded_network(monkeypatch):
    built = network_of(monkeypatch)
    side = keras_side.build(Job(library="ours-folded", model="resnet20", mode="inference", batch=2, image_size=8))
    assert side.step().shape == (2, 10)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in built[0].layers)


def test_a_constructor_with_options(monkeypatch):
    built = network_of(monkeypatch)
    options = {"depth": 10, "growth_rate": 4, "stem": "cifar", "memory_efficient": True}
    keras_side.build(Job(model="DenseNet", options=options, mode="inference", image_size=8))
    assert built[0].architecture["options"]["depth"] == 10


def test_a_twin_has_stock_layers_only(monkeypatch):
    built = network_of(monkeypatch)
    options = {"depth": 10, "growth_rate": 4, "stem": "cifar", "memory_efficient": True}
    keras_side.build(Job(library="keras-twin", model="DenseNet", options=options, mode="inference", image_size=8))
    kinds = {type(layer) for layer in built[0].layers if layer.weights}
    assert kinds == {keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Dense}


@pytest.mark.parametrize("library", ["ours", pytest.param("keras-twin", marks=pytest.mark.slow)])
def test_an_export(library):
    side = keras_side.build(Job(library=library, model="resnet20", mode="export", batch=2, image_size=8))
    assert side.facts["artifact_bytes"] > 4 * side.facts["parameters"]
    assert side.facts["export_seconds"] > 0
    side.step()


def need(*libraries):
    for library in libraries:  # not by importing: torchvision may need help with that
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is missing")


@pytest.mark.parametrize(
    ("library", "name", "size", "mode"),
    [
        ("pytorchcv", "resnet20_cifar10", 8, "train"),
        ("torchvision", "resnet18", 32, "inference"),
        pytest.param("torchvision", "resnet18", 32, "train", marks=pytest.mark.slow),
        pytest.param("timm", "resnetv2_18", 32, "train", marks=pytest.mark.slow),
        pytest.param("torch.compile", "resnet18", 32, "inference", marks=pytest.mark.slow),
        pytest.param("torch.compile", "resnet18", 32, "train", marks=pytest.mark.slow),
    ],
)
def test_torch(library, name, size, mode):
    package = "torchvision" if library == "torch.compile" else library
    need("torch", package)
    side = torch_side.build(
        Job(library=library, peer=(name, {}), mode=mode, dtype="bfloat16", batch=2, image_size=size)
    )
    side.step()
    side.step()
    assert side.facts["image_size"] == size
    assert set(side.facts["versions"]) == {"torch", package}


def test_memory_of_a_step_of_the_process():
    peak = lifetime_peak()
    meter = ProcessMeter()
    held = meter.measure(lambda: bytearray(b"x" * 40_000_000) and None)
    assert held is None or 40e6 <= held < 200e6
    assert lifetime_peak() >= peak > 10**7


def test_memory_of_a_step_by_an_allocator():
    state = {"current": 100, "peak": 900}

    def step():
        state["peak"] = 350

    meter = AllocatorMeter("x", lambda: state.update(peak=100), lambda: state["current"], lambda: state["peak"])
    assert meter.measure(step) == 250


def test_small_tensors_count_too():
    """TensorFlow's arena on a CPU with oneDNN does not see what is smaller than 256 KiB."""
    held = []
    meter = keras_side._meter()
    for _ in range(2):  # the first time, the arena may grow
        held.clear()
        bytes_held = meter.measure(lambda: held.extend(keras.ops.ones((20_000,)) + 1 for _ in range(250)))
    assert bytes_held is None or 15e6 < bytes_held < 40e6


@pytest.mark.parametrize("kind", ["final_pool", "no pooling", "pooling after the classifier"])
def test_pytorchcvs_networks_average_the_whole_map(kind):
    """FractalNet has no pooling at its end, and NIN has it after its classifier."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    pool = nn.AvgPool2d(8)
    network = nn.Module()
    network.features = nn.Sequential()
    network.output = nn.Linear(3, 2)
    if kind == "final_pool":
        network.features.add_module("final_pool", pool)
    elif kind == "pooling after the classifier":
        network.output = nn.Sequential()
        network.output.add_module("final_pool", pool)
    torch_side.averaging_the_whole_map(network)
    pooling = network.output if kind == "pooling after the classifier" else network.features
    other = network.features if pooling is network.output else network.output
    x = torch.arange(30.0).view(1, 1, 6, 5)
    assert pooling(x).flatten().tolist() == [14.5] and not hasattr(other, "final_pool")


@pytest.mark.parametrize("engine", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_another_runtime_runs_our_network(monkeypatch, engine):
    for package in peers.LIBRARIES[engine]:
        pytest.importorskip(package)
    built = network_of(monkeypatch)
    side = worker.build(Job(library=engine, model="resnet20", mode="inference", batch=2, image_size=8))
    assert side.step().shape == (2, 10)
    assert side.facts["parameters"] == keras_side.counts(built[0])["parameters"]
    assert side.facts["versions"][engine] and side.facts["artifact_bytes"] > 4 * side.facts["parameters"]
