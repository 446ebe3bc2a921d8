"""The benchmark for GPUs at toy size on a CPU, and its twins in PyTorch."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_deepnets as kd
from benchmarks import gpu

ROOT = Path(__file__).parents[2]


IN_ITS_OWN_PROCESS = """
import sys
import numpy as np, torch
from benchmarks import torch_twins as twins

for name in ("resnet20", "resnet56", "wideresnet28_10"):
    print(sum(weight.numel() for weight in twins.twin(name).parameters()))

labels = np.arange(64) % 2
images = (np.random.default_rng(0).integers(0, 60, (64, 8, 8, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
settings = dict(steps=12, batch_size=16, learning_rate=0.05, milestones=(0.5, 0.75), drop=0.1, momentum=0.9, weight_decay=1e-4)
done = twins.train(twins.twin("resnet8", classes=2), (images, labels), (images, labels), padding=1, compiled=False, **settings)
assert done.accuracy == 1 and done.seconds > 0

torch.manual_seed(0)
images = torch.arange(1, 17, dtype=torch.float32).reshape(1, 1, 4, 4).repeat(200, 1, 1, 1)
found = {tuple(image.flatten().int().tolist()) for image in twins.augmented(images, 1)}
padded = np.pad(np.arange(1, 17).reshape(4, 4), 1)
windows = [padded[row : row + 4, column : column + 4] for row in range(3) for column in range(3)]
assert found == {tuple(cut.flatten().tolist()) for window in windows for cut in (window, window[:, ::-1])}
"""


def test_the_twins():
    """They have the parameters of the networks and learn. The augmentation gives all windows of a padded image, also mirrored."""
    pytest.importorskip("torch")
    command = [sys.executable, "-c", IN_ITS_OWN_PROCESS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("resnet20", "resnet56", "wideresnet28_10")
    assert [int(line) for line in done.stdout.split()] == [kd.model_info(name).parameters for name in names]


@pytest.mark.slow
def test_the_pieces_at_toy_size(tmp_path):
    if not all(map(importlib.util.find_spec, ("jax", "torch"))):
        pytest.skip("needs jax and torch")
    pieces = ["memory", "resnet20", "resnet20-torch", "fast", "imagenette"]
    pieces += ["resnet50"] if importlib.util.find_spec("torchvision") else ["wideresnet28_10"]
    for some in (pieces[:1], pieces[1:]):  # the second call keeps the results of the first
        command = [sys.executable, "-m", "benchmarks.gpu", *some, "--toy", "--runs", str(tmp_path / "runs")]
        environment = {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "gpu.json")],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "gpu.json").read_text())["pieces"]
    assert list(found) == pieces
    plain, efficient = (row["kept MB"] for row in found["memory"])
    assert 0 < efficient < 0.9 * plain
    assert all(row["temporary MB"] > 0 for row in found["memory"])  # on CPUs, XLA removes the recomputation
    assert [row["mode"] for row in found[pieces[-1]]] == ["train", "inference"]
    for row in found[pieces[-1]]:
        assert row["ours / torch.compile"] == pytest.approx(row["ours img/s"] / row["torch.compile img/s"], rel=0.01)
    for name in ("resnet20", "resnet20-torch", "fast", "imagenette"):
        assert 0 <= found[name][0]["test error %"] <= 100
    lines = (tmp_path / "gpu.md").read_text().splitlines()
    trained = [
        line.split("|")[1].strip() for line in lines if line.startswith("| resnet") and len(line.split("|")) == 6
    ]
    assert trained == ["resnet20", "resnet20-torch", "resnet20", "resnet18"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet19"], "resnet19: choose from resnet50"),
        (["fast"], "piece fast needs --cifar FOLDER"),
        (["imagenette", "--cifar", "x"], "piece imagenette needs --imagenette FOLDER"),
    ],
)
def test_wrong_words(words, message, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SystemExit) as ended:
        gpu.main(words)
    assert ended.value.code == 2 and message in capsys.readouterr().err
