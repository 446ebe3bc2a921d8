"""Published weights."""

import dataclasses
import re
import zipfile

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import registry
from keras_deepnets.files import digest
from keras_deepnets.weights import cards, naming_tables, open_model
from keras_deepnets.weights.cards import networks
from keras_deepnets.weights.cards.networks import NETWORKS, why_not
from tests.weights.common import arrays, assert_same, fill, peer_tensors


def all_cards():
    return cards._all()


def test_every_card_is_of_a_network_that_takes_its_options():
    seen = set()
    for card in all_cards():
        facts = registry.constructor_of(card.constructor).facts
        spec = facts.family.spec(**(facts.row | card.options))
        assert set(card.options) <= set(facts.options)
        assert spec.domain.classes == card.classes or card.labels is None
        assert card.scaling.channels == 3
        assert card.url.startswith("https://") or (card.url.startswith("http://") and card.checksum)
        assert card.checksum is None or re.fullmatch(
            r"(sha256:[0-9a-f]{8,64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32})", card.checksum
        )
        assert card.path.name.endswith(cards._suffix(card.url))
        seen.add((card.constructor, card.name))
        assert cards.is_name(card.name)
    assert len(seen) == len(all_cards()) > 220
    assert len({card.path for card in all_cards()}) == len(all_cards())


def test_the_default_weights_are_torchvisions_best():
    names = {name: kd.model_info(name).weights for name in kd.list_models(dataset="imagenet2012")}
    assert names["resnet50"][:2] == ("torchvision/imagenet1k_v2", "torchvision/imagenet1k_v1")
    assert names["densenet121"][0] == "torchvision/imagenet1k_v1" and "keras/imagenet" in names["densenet121"]
    assert cards.card("ResNet50", "imagenet").metrics["top1"] == 80.858
    assert names["plainnet18"] == ()
    with pytest.raises(ValueError, match="PlainNet18 has no published weights"):
        kd.PlainNet18(weights="imagenet")
    with pytest.raises(ValueError, match="ResNet50 has no weights 'torchvision/imagenet1k_v3'; it has torchvision"):
        kd.ResNet50(weights="torchvision/imagenet1k_v3")


def test_a_card_from_the_cache_to_a_network(tmp_path, monkeypatch):
    """The way of a published checkpoint, with a file of the same form in the place of the download."""
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    card = cards.card("ResNet20", "akamaster/cifar10")
    source = fill(kd.ResNet20())
    tensors = peer_tensors(source, naming_tables.PLAIN_CIFAR_RESNET, prefix="module.")
    card.path.parent.mkdir(parents=True)
    torch.save(
        {"state_dict": {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, "best_prec1": 91.0}, card.path
    )
    model = kd.ResNet20(weights="akamaster/cifar10", include_preprocessing=True)
    assert_same(model, arrays(source))
    assert model.labels[0] == "airplane" and model.includes_preprocessing
    assert kd.ResNet20(weights="akamaster/cifar10").scaling == card.scaling != kd.ResNet20().scaling
    report = kd.load_weights(kd.ResNet20(classes=3), "akamaster/cifar10", skip_head=True)
    assert report.naming == "plain CIFAR ResNet" and len(report.skipped) == 2
    with pytest.raises(ValueError, match="need shortcut='A' and shortcut='B' was given"):
        kd.ResNet20(weights="akamaster/cifar10", shortcut="B")


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(ran), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="is refused: it is a pickle that holds more than tensors"):
        kd.load_weights(kd.ResNet20(), tmp_path / "evil.pth")
    assert not ran.exists()


def test_the_published_checkpoints_checksum_is_the_one_in_their_name():
    for card in all_cards():
        found = re.search(r"-([0-9a-f]{8})\.(pth|th|pth\.zip)$", card.url)
        if found:
            kind, digits = card.checksum.split(":")
            assert digits.startswith(found[1]) and kind == ("sha1" if card.member else "sha256")


def test_timms_names():
    assert NETWORKS["resnet50d"] == (
        "ResNet",
        {
            "blocks": (3, 4, 6, 3),
            "deep_stem": (32, 32, 64),
            "shortcut": "D",
            "block": "bottleneck",
            "downsample": "3x3",
        },
    )
    assert NETWORKS["wide_resnet50_2"] == ("WideResNet50_2", {})
    assert NETWORKS["densenetblur121d"] == (
        "DenseNet",
        {"blocks": (6, 12, 24, 16), "deep_stem": (32, 32, 64), "antialias": "blur"},
    )
    assert why_not("resnet50") == "" and why_not("resnet50_clip").startswith("attention pooling")


def test_a_card_whose_file_is_zipped(tmp_path, monkeypatch):
    """pytorchcv's: the file in the archive has the name and the checksum; it is known by that wherever it lies."""
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    published = cards.card("ResNet20", "pytorchcv/cifar10")
    assert published.member == "resnet20_cifar10-0597-9b0024ac.pth" and published.path.suffix == ".pth"
    assert published.metrics == {"top1": 94.03}
    source = fill(kd.ResNet20(shortcut="B"))
    tensors = peer_tensors(source, naming_tables.PYTORCHCV_CIFAR_RESNET)
    path = tmp_path / published.member
    torch.save({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, path)
    with zipfile.ZipFile(tmp_path / f"{path.name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, path.name)
    card = dataclasses.replace(
        published, url=(tmp_path / f"{path.name}.zip").as_uri(), checksum=f"sha1:{digest(path, 'sha1')}"
    )
    monkeypatch.setattr(cards, "_all", lambda: (card,))
    model = kd.ResNet20(weights="pytorchcv/cifar10")
    assert_same(model, arrays(source))
    assert model.labels[0] == "airplane" and model.scaling == card.scaling
    assert sorted(file.name for file in card.path.parent.iterdir() if file.suffix != ".lock") == [card.path.name]
    assert cards.of_file(path) == card


def test_builders_have_no_default():
    """Which of a hundred networks would it be?"""
    for constructor in (kd.ResNet, kd.PreActResNet, kd.DenseNet):
        with pytest.raises(
            ValueError,
            match=r"builds many networks and has no default weights; name specific weights, e\.g\. (timm|pytorchcv)/",
        ):
            constructor(weights="imagenet")
    with pytest.raises(ValueError, match="WideResNet builds many networks"):
        kd.WideResNet(weights="imagenet")


def test_a_card_that_contradicts_the_network_is_not_downloaded(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("it was asked for")

    monkeypatch.setattr(cards.download, "fetch", fail)
    with pytest.raises(
        ValueError, match="weights in torchvision/imagenet1k_v2 need downsample='3x3', but it was built with"
    ):
        kd.load_weights(kd.ResNet50(), "torchvision/imagenet1k_v2")
    with pytest.raises(
        ValueError, match=r"need blocks=\(3, 4, 6, 3\), .*, but it was built with blocks=\(1, 1, 1, 1\), "
    ):
        kd.load_weights(kd.ResNet(blocks=(1, 1, 1, 1)), "timm/resnet50d.ra2_in1k")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("resnet50", ("ResNet50", {})),
        ("timm/resnet50", ("ResNet50", {"downsample": "3x3"})),
        ("torchvision/wide_resnet50_2", ("WideResNet50_2", {})),
        ("resnet50d", NETWORKS["resnet50d"]),
        ("densenet", ("DenseNet", {})),
        ("pytorchcv/wrn16_10_cifar10", ("WideResNet", {"depth": 16, "widen_factor": 10})),
    ],
)
def test_networks_by_anybodys_name(name, expected):
    assert networks.named(name) == expected


@pytest.mark.parametrize(
    "name, hint", [("timm/resnet50e", "timm/resnet50"), ("reznet50", "resnet50"), ("keras/§", "list --weights")]
)
def test_nobodys_name(name, hint):
    with pytest.raises(ValueError, match=f"Unknown network '{name}'. .*{hint}"):
        networks.named(name)


def test_sizes_and_crops_are_those_of_timms_evaluation():
    """timm's package: a1h_in1k was trained at 176 pixels and is tested whole at 224, a1_in1k at 288."""
    found = {tag: cards.card("ResNet50", f"timm/{tag}_in1k") for tag in ("a1h", "a1", "a3", "gluon")}
    sizes = {tag: (card.image_size, card.scaling.crop_fraction) for tag, card in found.items()}
    assert sizes == {"a1h": (224, 1.0), "a1": (288, 1.0), "a3": (224, 0.95), "gluon": (224, 0.875)}
    assert found["a1"].metrics == {}  # its package tells none
    card = cards.card("ResNet", "timm/resnet26t.ra2_in1k")
    assert (card.image_size, card.scaling.crop_fraction) == (320, 1.0)


def test_a_constructor_takes_the_cards_size(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = fill(kd.ResNet18(classes=1000, input_shape=(None, None, 3)))
    card = dataclasses.replace(cards.card("ResNet18", "timm/a1_in1k"), image_size=96)
    card.path.parent.mkdir(parents=True)
    tensors = peer_tensors(source, naming_tables.TORCHVISION_RESNET)
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, card.path)
    known = dataclasses.replace(card, checksum="sha256:" + digest(card.path))
    monkeypatch.setattr(cards, "_all", lambda: (known,))
    assert kd.ResNet18(weights="timm/a1_in1k").input_shape == (None, 96, 96, 3)
    assert kd.ResNet18(weights=card.path).input_shape == (None, 96, 96, 3)  # recognised by its checksum
    assert kd.ResNet18(weights="timm/a1_in1k", input_shape=(64, 64, 3)).input_shape == (None, 64, 64, 3)
    assert kd.ResNet18(weights="timm/a1_in1k", include_top=False).input_shape == (None, None, None, 3)
    model = open_model("timm/a1_in1k")
    assert model.input_shape == (None, 96, 96, 3) and model.scaling.crop_fraction == 1.0
    assert kd.ResNet18().input_shape == (None, 224, 224, 3)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"])
def test_cards_of_detectors(name, monkeypatch):
    """A file of the publisher's names, in the place of the download, loads strictly by the card's name."""
    (card,) = [cards.card(kd.model_info(name).constructor, weights) for weights in kd.model_info(name).weights]
    assert (card.name, card.classes) == ("torchvision/coco_v1", 91)
    source = fill(kd.create_model(name))
    naming = naming_tables.TORCHVISION_FASTER_RCNN_V2 if name.endswith("v2") else naming_tables.TORCHVISION_FASTER_RCNN
    found = cards.described(cards.reading.read(peer_tensors(source, naming)), card)
    monkeypatch.setattr(cards, "tensors", lambda card: found)
    model = kd.create_model(name, weights="torchvision/coco_v1")
    assert_same(model, arrays(source))
    with pytest.raises(ValueError, match="has no weights 'imagenet'"):
        kd.create_model(name, weights="imagenet")
    other = kd.create_model(name, frozen_batch_norm=not card.options["frozen_batch_norm"])
    with pytest.raises(ValueError, match="frozen_batch_norm"):
        kd.load_weights(other, "torchvision/coco_v1")
