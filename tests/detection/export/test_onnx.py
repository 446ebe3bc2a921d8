"""ONNX files of detectors."""

import json

import pytest

from keras_deepnets import export
from keras_deepnets.detection import export as detector_export
from keras_deepnets.errors import InputError
from tests.detection.export.conftest import LABELS, assert_same, at_fixed_size


def test_the_packages_that_are_missing_are_named(small, tmp_path, monkeypatch):
    from keras_deepnets.export import onnx_export

    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ONNX needs onnx and tf2onnx, not installed here"):
        export.onnx(small, tmp_path / "no.onnx", image_size=64)


def test_it_finds_what_keras_finds(small, images, tmp_path):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    path = export.onnx(small, tmp_path / "small.onnx", image_size=(96, 160), labels=LABELS)
    assert_same(detector_export.predict(path, images), at_fixed_size(small, images, 96, 160), pixels=0.01, scores=1e-4)
    import onnx

    file = onnx.load(str(path))
    told = {entry.key: json.loads(entry.value) for entry in file.metadata_props}
    assert told["labels"] == list(LABELS) and told["task"] == "detection"
    assert {node.domain for node in file.graph.node} == {""}
    assert "NonMaxSuppression" in {node.op_type for node in file.graph.node}
    with pytest.raises(InputError, match="is a detector, not a classifier"):
        export.predict(path, images[0][None])
