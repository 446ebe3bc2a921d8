"""`examples/serving/detect_client.py` against the stand-in, with a small detector."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_deepnets import export
from keras_deepnets.detection import export as detector_export
from tests.detection.export.conftest import LABELS, images_of, jpeg_turned, png, small_detector
from tests.serving.stand_in import Model, StandIn
from tests.serving.test_clients import EXAMPLES, module, script

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detectors") / "animals"
    export.saved_model(small_detector(), folder, LABELS, on_error="skip", batch_sizes=(1, 2))
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with StandIn({"animals": Model(folder)}) as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    first, second = images_of([(100, 140), (170, 240)])
    (folder / "one.png").write_bytes(png(first))
    (folder / "two.jpg").write_bytes(jpeg_turned(second, 6))
    return [folder / "one.png", folder / "two.jpg"]


def lines_for(path, found, least):
    rows = zip(found["labels"], found["scores"], found["boxes"], strict=True)
    return [
        f"{path}\t{LABELS[label]}\t{score:.4f}\t{' '.join(f'{side:.1f}' for side in box)}"
        for label, score, box in rows
        if score >= least
    ]


@pytest.mark.slow
def test_it_prints_what_predict_finds_and_draws_it(server, folder, files, tmp_path):
    expected = detector_export.predict(folder, files, 2)
    lines = [line for path, found in zip(files, expected, strict=True) for line in lines_for(path, found, 0.3)]
    assert len(lines) > 2
    words = ["--model", "animals", "--url", server.url, "--least", 0.3, "--draw", tmp_path / "found", *files]
    assert script("detect_client.py", *words) == lines
    pictures = [Image.open(tmp_path / "found" / name) for name in ("one.png", "two.png")]
    assert [picture.size for picture in pictures] == [(280, 200), (170, 240)]  # small ones are enlarged; upright
    assert len(np.unique(np.asarray(pictures[1]).reshape(-1, 3), axis=0)) > 10


def test_it_needs_only_python_and_skips_broken_files(server, folder, files, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    # -I -S: without site-packages.
    command = [sys.executable, "-I", "-S", str(EXAMPLES / "detect_client.py"), "--model", "animals"]
    words = ["--url", server.url, "--least", "0.3", str(tmp_path / "text.jpg"), str(files[0])]
    done = subprocess.run([*command, *words], capture_output=True, timeout=60, check=True)
    (found,) = detector_export.predict(folder, files[0])
    expected = [f"{tmp_path / 'text.jpg'}\tskipped", *lines_for(files[0], found, 0.3)]
    assert done.stdout.decode().splitlines() == expected


def test_errors_are_one_line(server, files, tmp_path):
    said = script("detect_client.py", "--model", "other", "--url", server.url, files[0], expected=1)
    assert said.startswith("detect_client: 404") and said.count("\n") == 1
    assert "missing" in script("detect_client.py", "--model", "animals", tmp_path / "missing.png", expected=1)


def test_in_a_program(server, folder, files):
    client = module("detect_client").DetectClient(server.url, "animals", version=1)
    (found,) = client.find([files[0].read_bytes()])
    (expected,) = detector_export.predict(folder, files[0])
    np.testing.assert_allclose([each["box"] for each in found], expected["boxes"], atol=1e-3)
    assert [each["class"] for each in found] == expected["labels"].tolist()
    client.close()
