"""The diagram of a network: its boxes say what the paper's table says."""

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.insight.diagram import boxes, draw_network
from keras_deepnets.models import trainable_parameters


def test_boxes_of_resnet50_are_table_1():
    model = kd.ResNet50()
    rows = boxes(model)
    blocks = [row for row in rows if row.kind == "block"]
    assert [row.repeats for row in blocks] == [1, 2, 1, 3, 1, 5, 1, 2]
    assert [row.shortcut for row in blocks] == ["projection", "identity"] * 4
    assert blocks[2].lines == ("1×1 conv, 128, /2", "3×3 conv, 128", "1×1 conv, 512")
    assert blocks[-1].shape == (7, 7, 2048)
    assert sum(row.parameters for row in rows) == trainable_parameters(model)
    assert [row.title for row in rows[-2:]] == ["avg_pool", "predictions"]


@pytest.mark.parametrize("name", ["ResNet18V2", "PlainNet20", "ResNeXt29_8x64d", "StochasticDepthResNet110"])
def test_no_parameter_is_lost(name):
    model = getattr(kd, name)()
    assert sum(row.parameters for row in boxes(model)) == trainable_parameters(model)


def test_plain_net_has_no_shortcuts():
    assert {row.shortcut for row in boxes(kd.PlainNet20())} == {None}


@pytest.mark.parametrize("suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_pictures(tmp_path, suffix, magic):
    path = draw_network(kd.ResNet20(), tmp_path / f"net.{suffix}")
    assert path.read_bytes().startswith(magic)
    if suffix == "png":
        from PIL import Image

        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg, \.pdf"):
        draw_network(kd.ResNet20(), tmp_path / "net.gif")
