"""The scripts of `examples/`, as a user starts them, at toy size."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import keras_deepnets as kd
from keras_deepnets.weights import naming_tables
from tests.cli.conftest import COLOURS, paint
from tests.detection.training.common import voc_folder
from tests.weights.common import fill, peer_tensors

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
# Two devices on a machine that has one processor: what a second GPU would be.
TWO_DEVICES = """
import runpy, sys
import tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(script, folder, *words, two_devices=False):
    """The lines that a script prints; it must end well."""
    begin = ["-c", TWO_DEVICES] if two_devices else []
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, *begin, str(ROOT / "examples" / script), *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def number(pattern, line):
    found = re.fullmatch(pattern, line)
    assert found, line
    return float(found.group(1).replace(",", ""))


def test_every_script_is_here():
    assert [script.stem for script in SCRIPTS] == [
        "custom_variant",
        "detect_objects",
        "feature_pyramid",
        "fine_tune_folder",
        "jax_backend",
        "load_timm_checkpoint",
        "near_duplicates",
        "own_pieces",
        "tflite_on_device",
        "train_cifar10",
        "train_imagenet",
    ]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_short_enough_to_copy(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    assert f"`{script.name}`" in (ROOT / "examples" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_the_python_of_the_readme(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    names = "['resnet20', 'resnet32', …, 'resnet1202']"  # what its comments promise
    assert f'kd.list_models("resnet*", dataset="cifar10")  # {names}\n' in code
    assert 'kd.model_info("resnet110").parameters  # 1727962\n' in code
    found = kd.list_models("resnet*", dataset="cifar10")
    assert (found[:2], found[-1], kd.model_info("resnet110").parameters) == (
        ["resnet20", "resnet32"],
        "resnet1202",
        1727962,
    )
    assert code.count('"digits", epochs=12') == 1
    (tmp_path / "readme.py").write_text(code.replace('"digits", epochs=12', '"digits", epochs=1, limit=64'), "utf-8")
    run(tmp_path / "readme.py", tmp_path)
    assert (tmp_path / "serving" / "digits" / "1" / "saved_model.pb").is_file()
    assert (tmp_path / "runs" / "digits" / "model.keras").is_file() and (tmp_path / "digits.tflite").is_file()


@pytest.mark.slow
def test_train_cifar10(tmp_path):
    lines = run("train_cifar10.py", tmp_path, "--data", "digits", "--limit", 64, "--epochs", 4, "--out", "toy")
    error = number(r"resnet20: test error ([\d.]+) % on 64 images; toy\.keras", lines[-1])
    assert 0 <= error <= 100
    model = keras.saving.load_model(tmp_path / "toy.keras")
    assert (
        model.count_params() == kd.ResNet20(input_shape=(32, 32, 1), include_preprocessing=model.scaling).count_params()
    )
    assert model.input_shape == (None, 32, 32, 1)
    assert model.labels == tuple("0123456789")
    test = kd.data.load("digits", "test").take(64)
    assert kd.training.evaluate(model, test).top1 == pytest.approx(1 - error / 100, abs=1e-4)
    with (tmp_path / "toy.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Four epochs of one step each: the rate drops after a half and after three quarters.
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.1, 0.1, 0.01, 0.001])


@pytest.mark.slow
def test_train_imagenet_on_two_devices(tmp_path):
    folder = paint(tmp_path / "colours", COLOURS, 20)
    words = ("--data", folder, "--model", "resnet20", "--image-size", 16, "--batch", 8, "--devices", "CPU:0", "CPU:1")
    for epochs in (1, 2):  # the second call goes on where the first has ended
        lines = run("train_imagenet.py", tmp_path, *words, "--epochs", epochs, two_devices=True)
        error = number(r"resnet20, 2 device\(s\): top-1 error ([\d.]+) % on 6 images", lines[-1])
        rows = kd.training.read_metrics(tmp_path / "imagenet" / "metrics.csv")
        assert [row["step"] for row in rows] == [6, 12][:epochs]
        assert error == pytest.approx(100 * (1 - rows[-1]["val_accuracy"]), abs=0.01)
    model = keras.saving.load_model(tmp_path / "imagenet" / "model.keras")
    held = kd.data.load(folder, "validation")
    assert kd.training.evaluate(model, held).top1 == pytest.approx(1 - error / 100, abs=1e-4)


@pytest.mark.slow
def test_fine_tune_folder(tmp_path):
    folder = paint(tmp_path / "colours", COLOURS, 20)
    kd.save_weights(kd.ResNet20(), tmp_path / "learnt.safetensors")
    words = ("--model", "resnet20", "--weights", "learnt.safetensors", "--image-size", 16, "--epochs", 1, 1)
    lines = run("fine_tune_folder.py", tmp_path, folder, *words)
    rows = kd.training.read_metrics(tmp_path / "fine_tuning" / "metrics.csv")
    assert [row["phase"] for row in rows] == [1, 2]
    accuracy = number(r"test accuracy ([\d.]+) % on 6 images", lines[-2])
    assert lines[-1] == str(Path("fine_tuned", "1"))
    test = kd.data.load(folder, "test")
    images, truth = (np.stack(values) for values in zip(*test.examples().as_numpy_iterator(), strict=True))
    served = kd.export.predict(tmp_path / "fine_tuned", images)
    assert 100 * (served["classes"] == truth).mean() == pytest.approx(accuracy, abs=0.01)
    assert set(served["labels"]) <= set(COLOURS)


def test_feature_pyramid(tmp_path):
    folder = paint(tmp_path / "colours", COLOURS, 20)
    kd.save_weights(kd.ResNet20(), tmp_path / "learnt.safetensors")
    words = ("--model", "resnet20", "--weights", "learnt.safetensors", "--image-size", 32)
    lines = run("feature_pyramid.py", tmp_path, folder, *words)
    for line, size in zip(lines, ("P0: 32 x 32 x 16", "P1: 16 x 16 x 32", "P2: 8 x 8 x 64"), strict=True):
        assert number(f"{size}, test accuracy ([\\d.]+) %", line) == 100  # the classes are colours
    written = np.load(tmp_path / "features.npz")
    assert {name: written[name].shape for name in written} == {
        "labels": (6,),
        "P0": (6, 16),
        "P1": (6, 32),
        "P2": (6, 64),
    }


def test_detect_objects(tmp_path):
    """Also a detector by its name in the precision that the machine decides."""
    folder = voc_folder(tmp_path / "shapes")
    words = ("--backbone", "resnet18", "--epochs", 1, "--image-size", 64)
    *classes, picture, exported = run("detect_objects.py", tmp_path, folder, *words)[-4:]
    for line in classes:
        assert 0 <= number(r"\w+: AP50 ([\d.]+) % of \d+ objects", line) <= 100
    assert Image.open(tmp_path / picture).width > 64
    assert exported == str(Path("detector", "1")) and (tmp_path / exported / "saved_model.pb").is_file()


def test_load_timm_checkpoint(tmp_path, rng):
    model = fill(
        kd.ResNet(
            blocks=(2, 2, 2, 2),
            deep_stem=(32, 32, 64),
            shortcut="D",
            downsample="3x3",
            classes=7,
            input_shape=(64, 64, 3),
        )
    )
    tensors = peer_tensors(model, naming_tables.TIMM_RESNET_D)
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, tmp_path / "mine.safetensors")
    lines = run("load_timm_checkpoint.py", tmp_path, "resnet18d", "mine.safetensors", "--image-size", 64)
    assert lines[0].startswith("resnet18d: {") and lines[0].endswith("}, 7 classes") and lines[-1] == "resnet18d.keras"
    images = rng.normal(size=(2, 64, 64, 3)).astype("float32")
    again = keras.saving.load_model(tmp_path / "resnet18d.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_tflite_on_device(tmp_path, quantize):
    """Without this library, and with the answer that it gives."""
    folder = paint(tmp_path / "colours", COLOURS, 4)
    model = kd.ResNet20(classes=3, include_preprocessing=kd.Scaling((120,) * 3, (60,) * 3, crop_fraction=0.9))
    model.labels = tuple(sorted(COLOURS))
    photos = sorted(folder.rglob("*.png"))[::4]
    calibration = {"calibration": kd.data.load(folder, "all")} if quantize else {}
    kd.export.tflite(model, tmp_path / "file.tflite", quantize=quantize, **calibration)
    lines = run("tflite_on_device.py", tmp_path, "file.tflite", *photos)
    expected = kd.export.predict(tmp_path / "file.tflite", photos)
    for line, photo, label, chances in zip(lines, photos, expected["labels"], expected["probabilities"], strict=True):
        begin = f"{photo}: {label} "
        assert line.startswith(begin)
        assert float(line[len(begin) :].split(" %")[0]) == pytest.approx(100 * max(chances), abs=2 if quantize else 0.1)


@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=pytest.mark.slow)])
def test_jax_backend(tmp_path, backend):
    pytest.importorskip(backend)
    words = ("--data", "digits", "--limit", 64, "--epochs", 1, "--backend", backend)
    lines = run("jax_backend.py", tmp_path, *words)
    assert 0 <= number(rf"test accuracy ([\d.]+) % on {backend}", lines[-2]) <= 100
    assert lines[-1] == str(Path("from_jax", "1")) and (tmp_path / lines[-1] / "saved_model.pb").is_file()


@pytest.mark.slow
def test_near_duplicates(tmp_path):
    pytest.importorskip("apache_beam", reason="pip install '.[beam]'")
    folder = paint(tmp_path / "colours", COLOURS, 4)
    # A second copy, as an editor might save it: with other compression.
    Image.open(folder / "red" / "02.png").save(folder / "blue" / "copy.jpg", quality=95)
    kd.ResNet20(classes=3, include_preprocessing=True).save(tmp_path / "model.keras")
    lines = run("near_duplicates.py", tmp_path, "model.keras", "colours", "--least", 0)
    assert lines[-1] == "78 pairs among 13 images"
    similarity, *names = lines[0].split()
    assert set(names) == {str(Path("colours", "red", "02.png")), str(Path("colours", "blue", "copy.jpg"))}
    assert 0.9 < float(similarity) <= 1
    again = run("near_duplicates.py", tmp_path, "model.keras", "colours", "--least", float(similarity) - 1e-4)
    assert again[0] == lines[0]


@pytest.mark.slow
def test_custom_variant(tmp_path):
    lines = run("custom_variant.py", tmp_path, "--data", "digits", "--limit", 64, "--epochs", 1)
    parameters = number(r"se-resnet20: ([\d,]+) parameters; ResNet20 269,722", lines[0])
    line = r"variant\.keras reloaded: outputs differ by 0; test accuracy ([\d.]+) % on 64 images"
    assert 0 <= number(line, lines[-1]) <= 100
    model = keras.saving.load_model(tmp_path / "variant.keras")
    assert model.count_params() == parameters
    assert {"attention", "stochastic_depth"} <= set(model.architecture["options"])


@pytest.mark.slow
def test_own_pieces(tmp_path):
    lines = run("own_pieces.py", tmp_path, "--limit", 64, "--epochs", 2)
    assert [line.partition(":")[0] for line in lines[:-1]] == ["epoch 1", "epoch 2"]
    assert 0 <= number(r"test accuracy ([\d.]+) %", lines[-1]) <= 100
    config = json.loads((tmp_path / "own" / "run" / "config.json").read_text())
    assert config["recipe"]["name"] == "mine" and config["resolved"]["batch_size"] == 32
    assert config["pieces"]["optimizer"]["class"] == "AdamW" and config["pieces"]["loss"]["class"] == "GradeOfDoubt"
