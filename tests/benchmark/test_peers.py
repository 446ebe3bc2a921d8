"""Which network of whose is the same as ours."""

import importlib.util

import pytest

from keras_deepnets import facts, registry
from keras_deepnets.benchmark import keras_side, peers, torch_side
from keras_deepnets.benchmark.jobs import Job
from keras_deepnets.cli import catalog

EVERY = [(library, ours) for library, networks in peers._NETWORKS.items() for ours in networks]


@pytest.mark.parametrize(("library", "ours"), EVERY)
def test_the_table_knows_our_networks_and_their_options(library, ours):
    _, options = peers._NETWORKS[library][ours]
    assert registry.constructor_of(ours).facts.name.lower() == ours
    assert set(options) <= {option["name"] for option in catalog.options_of(ours)}


@pytest.mark.parametrize(
    ("against", "model", "library", "build", "options", "description"),
    [
        ("keras", "ResNet50", "keras.applications", "ResNet50", {}, "keras.applications ResNet50"),
        ("keras", "resnet20", "keras-twin", "resnet20", {}, "stock Keras twin"),
        ("keras", "resnet50v2", "keras-twin", "resnet50v2", {}, "stock Keras twin"),
        ("keras-twin", "resnet50", "keras-twin", "resnet50", {}, "stock Keras twin"),
        ("torchvision", "resnet50", "torchvision", "resnet50", {"downsample": "3x3"}, "torchvision resnet50"),
        ("timm", "resnet50v2", "timm", "resnetv2_50", {}, "timm resnetv2_50"),
        (
            "pytorchcv",
            "densenetbc100_12",
            "pytorchcv",
            "densenet100_k12_bc_cifar10",
            {},
            "pytorchcv densenet100_k12_bc_cifar10",
        ),
        ("ours", "resnet20", "ours", "resnet20", {}, "ours, default options"),
        ("torch.compile", "resnet50", "torch.compile", "resnet50", {"downsample": "3x3"}, "torch.compile resnet50"),
        ("openvino", "resnet20", "openvino", "resnet20", {}, "ours in openvino"),
    ],
)
def test_find(against, model, library, build, options, description):
    peer = peers.find(against, model)
    assert (peer.library, peer.build[0], peer.options) == (library, build, options)
    assert peer.description == description


def test_who_has_none():
    assert peers.find("timm", "resnet20") is None
    assert peers.find("torchvision", "resnet50v2") is None
    assert peers.find("pytorchcv", "resnet50") is None


def test_what_an_engine_does_not_run():
    assert peers.unsupported("openvino", "inference", "bfloat16") is None
    assert peers.unsupported("keras", "export", "float32") is None
    assert peers.unsupported("openvino", "train", "float32") == (
        "openvino is for --mode inference, so --mode train skips it"
    )
    assert peers.unsupported("onnxruntime", "inference", "bfloat16") == "onnxruntime does not compute in bfloat16"
    assert peers.unsupported("torch.compile", "export", "float32").startswith("torch.compile writes no SavedModel")


def test_who_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "timm") else object())
    assert peers.missing("keras") is None
    assert peers.missing("torchvision") == "torch is missing: pip install torch"
    assert peers.missing("timm") == "torch and timm are missing: pip install torch timm"


CHEAP = [("torchvision", "resnet18"), ("timm", "resnet18"), ("pytorchcv", "resnet20"), ("pytorchcv", "wideresnet16_4")]


@pytest.mark.parametrize(
    ("library", "ours"),
    [pytest.param(*case, marks=[] if case in CHEAP else pytest.mark.slow) for case in EVERY],
)
def test_the_peer_is_the_same_network(library, ours):
    """As many parameters: with another width, depth, shortcut or classifier there would be more or fewer."""
    build, options = peers._NETWORKS[library][ours]
    channels = facts.model_info(ours).input_shape
    if library == "keras.applications":
        theirs, _ = keras_side._network(Job(library=library, peer=build, model=ours))
        # Its ResNets have biases in front of BN, as many as BN has of each of its parameters. VGG has no BN.
        biased = [] if ours.startswith("vgg") else theirs.layers[:-1]
        biases = sum(layer.bias.shape[0] for layer in biased if getattr(layer, "bias", None) is not None)
        parameters = keras_side._counts(theirs)["parameters"] - biases
        assert keras_side._counts(theirs)["multiply_adds"] == facts.model_info(ours).flops
    else:
        torch = pytest.importorskip("torch")
        pytest.importorskip(library) if library != "torchvision" else importlib.util.find_spec(library) or pytest.skip()
        make = torch_side._builder(Job(library=library, peer=build, model=ours))
        with torch.device("meta"):  # shapes alone
            parameters = sum(weight.numel() for weight in make().parameters())
    if "shortcut" in options:
        network = registry.create_model(ours, input_shape=channels, **options)
        assert parameters == keras_side._counts(network)["parameters"]
    else:
        assert parameters == facts.model_info(ours).parameters
