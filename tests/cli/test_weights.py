"""Anybody's weights from the command line."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.cli import artifacts, use
from keras_deepnets.labels import imagenet_classes
from keras_deepnets.weights import cards, naming_tables, open_model
from tests.weights.common import arrays, assert_same, fill, peer_tensors, tiny

pytestmark = pytest.mark.integration


@pytest.fixture
def checkpoint(tmp_path):
    """A torch-named ResNet-20 for three classes."""
    from safetensors.numpy import save_file

    model = fill(kd.ResNet20(classes=3))
    tensors = peer_tensors(model, naming_tables.PLAIN_CIFAR_RESNET, prefix="module.")
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "theirs.safetensors")
    return model, tmp_path / "theirs.safetensors"


def test_convert(cli, checkpoint, tmp_path):
    model, path = checkpoint
    values = cli("convert", path, tmp_path / "ours.keras", "--json").json
    assert values["naming"] == "plain CIFAR ResNet" and values["weights"] == len(model.weights)
    assert_same(open_model(tmp_path / "ours.keras"), arrays(model))
    text = cli("convert", path, tmp_path / "again.weights.h5", "--network", "resnet20").out
    assert text.startswith(f"{path} (plain CIFAR ResNet): {len(model.weights)} weights in ")
    assert_same(kd.ResNet20(weights=tmp_path / "again.weights.h5"), arrays(model))


def test_bad_conversions(cli, checkpoint, tmp_path):
    _, path = checkpoint
    before = sorted(tmp_path.iterdir())
    assert "there is no weights file" in cli("convert", tmp_path / "none.pth", tmp_path / "x.keras").error
    assert "weights are saved as" in cli("convert", path, tmp_path / "x.onnx").error
    assert "Did you mean" in cli("convert", path, tmp_path / "x.keras", "--network", "resnet2").error
    assert "do not fit; missing" in cli("convert", path, tmp_path / "x.keras", "--network", "resnet32").error
    assert (
        "have the names of plain CIFAR ResNet"
        in cli("convert", path, tmp_path / "x.keras", "--network", "densenet40_12").error
    )
    assert sorted(tmp_path.iterdir()) == before


PREACT = ("--option", "depth=20", "--option", "stem=cifar", "--option", "activate_first=False")
NAMES = [
    ("--network", "pytorchcv/preresnet20_cifar10"),
    ("--network", "preresnet20_cifar10"),
    ("--network", "PreActResNet", *PREACT),
]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A card whose file lies in another folder, and the network that it is of."""
    from safetensors.numpy import save_file

    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    model = fill(kd.PreActResNet(depth=20, stem="cifar", activate_first=False))
    tensors = peer_tensors(model, naming_tables.PYTORCHCV_CIFAR_PREACT)
    path = tmp_path / "published.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    card = cards.card("PreActResNet", "pytorchcv/preresnet20_cifar10")
    card = dataclasses.replace(card, url=path.as_uri(), checksum=None)
    monkeypatch.setattr(cards, "_all", lambda: (card,))
    return model, card


@pytest.mark.parametrize("words", NAMES)
def test_a_network_by_its_publishers_name(cli, published, tmp_path, words):
    model, _ = published
    cli("convert", tmp_path / "published.safetensors", tmp_path / "x.keras", *words, "--json")
    again = open_model(tmp_path / "x.keras")
    assert_same(again, arrays(model))
    assert again.architecture["constructor"] == "PreActResNet"
    assert again.architecture["options"].items() >= model.architecture["options"].items()


def test_convert_a_card(cli, published, tmp_path):
    model, card = published
    values = cli("convert", card.name, tmp_path / "x.safetensors", "--json").json
    assert values["source"] == card.name and values["weights"] == len(model.weights) and card.path.is_file()
    again = open_model(tmp_path / "x.safetensors")
    assert_same(again, arrays(model))
    assert again.labels[0] == "airplane" and again.scaling == card.scaling
    card.path.unlink()
    assert (
        "need depth=20 and depth=56 was given"
        in cli("convert", card.name, tmp_path / "y.keras", "--option", "depth=56").error
    )
    assert "No network has weights 'pytorchcv/x'" in cli("convert", "pytorchcv/x", tmp_path / "y.keras").error
    assert "means the default weights of a network" in cli("convert", "imagenet", tmp_path / "y.keras").error
    assert not card.path.exists()


def test_evaluate_published_weights(cli, published, patches, tmp_path):
    from safetensors.numpy import save_file

    _, card = published
    classes = fill(kd.PreActResNet(depth=20, stem="cifar", activate_first=False, classes=3))
    tensors = peer_tensors(classes, naming_tables.PYTORCHCV_CIFAR_PREACT)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, tmp_path / "three.safetensors")
    weights = ("--weights", tmp_path / "three.safetensors", "--data", patches, "--split", "all", "--json")
    found = [
        cli("evaluate", "pytorchcv/preresnet20_cifar10", *weights).json,
        cli("evaluate", "PreActResNet", *PREACT, *weights).json,
    ]
    assert found[0]["images"] == 60 and found[0]["top1"] == found[1]["top1"]
    error = cli("evaluate", "--weights", card.name, "--data", patches).error
    assert "has outputs of shape (None, 10), but data" in error
    error = cli("evaluate", "pytorchcv/preresnet20_cifar10", "--option", "depht=20", *weights[:-1]).error
    assert "PreActResNet has no option 'depht'; its options: blocks, depth" in error
    assert "--option is for --weights" in cli("evaluate", "nosuch.keras", patches, "--option", "depth=20").error


def test_evaluate_weights(cli, trained, patches, tmp_path):
    network = kd.weights.open_model(trained / "model.keras")
    path = kd.save_weights(network, tmp_path / "w.safetensors")
    options = ("--split", "all", "--seed", "3", "--json")
    expected = cli("evaluate", trained, patches, *options).json
    found = cli("evaluate", "--weights", path, "--data", patches, *options).json
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-5)
    ours, theirs = found.pop("worst"), expected.pop("worst")
    assert [error["file"] for error in ours] == [error["file"] for error in theirs]
    assert [error["loss"] for error in ours] == pytest.approx([error["loss"] for error in theirs], rel=1e-5)
    assert {**found, "model": "", "images_per_second": 0} == {**expected, "model": "", "images_per_second": 0}
    assert "name a trained model, or give --weights FILE" in cli("evaluate").error
    assert "name the DATA" in cli("evaluate", "--weights", path).error
    assert "there is no weights file" in cli("evaluate", "--weights", tmp_path / "none.pth", "--data", patches).error


def test_which_network_cannot_be_told(cli, tmp_path):
    path = kd.save_weights(tiny(include_top=False), tmp_path / "headless.safetensors")
    from safetensors.numpy import load_file, save_file

    save_file(load_file(path), tmp_path / "bare.safetensors")
    assert "name the network" in cli("convert", tmp_path / "bare.safetensors", tmp_path / "x.keras").error


def test_imagenets_ids_are_its_names():
    classes = imagenet_classes()
    ids, names = zip(*classes, strict=True)
    artifact = artifacts.Artifact(Path("model"), artifacts.SAVED_MODEL)
    for labels, given in ((ids, names), (names, ids), (ids, ids)):
        images = SimpleNamespace(labels=given)
        use.check_classes(artifact, images, labels)
    with pytest.raises(ValueError, match="has 1000 classes"):
        use.check_classes(artifact, SimpleNamespace(labels=ids[::-1]), names)
