"""Exports of every family, run by a C program: what a server without Python computes."""

import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export
from tests.export.conftest import photographs, unsettle

SOURCE = Path(__file__).with_name("run_saved_model.c")
SHAPE = {"input_shape": (16, 16, 3), "classes": 5, "include_preprocessing": True}
CIFAR = SHAPE | {"stem": "cifar", "filters": (8, 16, 32)}
NETWORKS = {
    "resnet": lambda: kd.ResNet(depth=8, **CIFAR),
    "preactivation": lambda: kd.PreActResNet(depth=8, **CIFAR),
    "stochastic_depth": lambda: kd.ResNet(depth=8, stochastic_depth=0.5, **CIFAR),
    "wide": lambda: kd.WideResNet(depth=10, widen_factor=1, **SHAPE),
    "resnext": lambda: kd.ResNeXt(depth=11, groups=4, base_width=16, **CIFAR),
    "densenet": lambda: kd.DenseNet(blocks=(2, 2, 2), growth_rate=4, stem="cifar", **SHAPE),
    "highway": lambda: kd.Highway(filters=(8, 12, 16), convolutions=(2, 2, 2), hidden=20, **SHAPE),
    "fitnet": lambda: kd.FitNet(filters=((8, 8), (12, 12), (16, 16)), hidden=20, **SHAPE),
    "plain": lambda: kd.PlainNet(depth=8, **CIFAR),
    "grey": lambda: kd.HighwayMLP(depth=4, width=20, classes=5, include_preprocessing=True),
    "options": lambda: kd.ResNet(depth=8, **CIFAR),
}
OPTIONS = {"options": {"precision": "bfloat16", "top_k": 2, "features": True, "on_error": "skip"}}
QUICK = ("densenet", "grey", "options")
GROUPS = [QUICK, pytest.param([name for name in NETWORKS if name not in QUICK], marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled program, linked against the TensorFlow that is installed."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) on the PATH")
    library = Path(tf.sysconfig.get_lib())
    if not list(library.glob("libtensorflow_cc.so.2")):
        pytest.skip(f"{library} has no libtensorflow_cc.so.2")
    path = tmp_path_factory.mktemp("compiled") / "run_saved_model"
    libraries = [str(library / name) for name in ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")]
    command = [compiler, "-std=c11", "-O1", "-Wall", "-Werror", f"-I{tf.sysconfig.get_include()}", str(SOURCE)]
    done = subprocess.run(
        [*command, *libraries, f"-Wl,-rpath,{library}", "-o", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


def exported(name, folder):
    keras.utils.set_random_seed(3)
    model = unsettle(NETWORKS[name]())
    return export.saved_model(model, folder / name, labels=["ä", "b", "c c", "d", "e"], **OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of two sizes as files, and three pixel arrays of one."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size in enumerate([(16, 16), (40, 25)]):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(tf.io.encode_jpeg(photographs(1, *size, seed=number)[0]).numpy())
    return paths, photographs(3, 20, 31, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("names", GROUPS, ids=["quick", "others"])
def test_both_signatures_give_what_predict_gives(names, program, folder, files, tmp_path):
    """One process runs all exports of a group: starting it takes seconds."""
    paths, pixels = files
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    exports = [exported(name, folder) for name in names]
    words = [tmp_path / "pixels", *pixels.shape[:3], *paths, "--", *exports]
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {}
    for line in done.stdout.splitlines():
        path, signature, winner, label, values = line.split("\t")
        rows.setdefault((path, signature), []).append((int(winner), label, np.array(values.split(), "float32")))
    assert len(rows) == 2 * len(names)
    for path in exports:
        for signature, images in zip(("serving_default", "serving_images"), files, strict=True):
            expected = export.predict(path, images)
            winners, labels, probabilities = zip(*rows[str(path), signature], strict=True)
            np.testing.assert_allclose(np.stack(probabilities), expected["probabilities"], rtol=0, atol=1e-6)
            assert list(winners) == expected["classes"].tolist() and list(labels) == expected["labels"].tolist()
            np.testing.assert_allclose(np.sum(probabilities, -1), 1, atol=1e-5)
            assert np.ptp(expected["probabilities"], axis=0).max() > 1e-4  # images make a difference


def test_a_broken_file_is_skipped(program, files, tmp_path):
    paths, pixels = files
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    path = exported("options", tmp_path)
    words = [tmp_path / "pixels", *pixels.shape[:3], paths[0], tmp_path / "broken.jpg", paths[1], "--", path]
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    _, _, winners, labels, values = zip(*(line.split("\t") for line in done.stdout.splitlines()[:3]), strict=True)
    expected = export.predict(path, paths)
    assert winners[1] == "-1" and labels[1] == "" and np.isnan(np.array(values[1].split(), "float32")).all()
    for row, number in ((0, 0), (2, 1)):
        found = np.array(values[row].split(), "float32")
        np.testing.assert_allclose(found, expected["probabilities"][number], rtol=0, atol=1e-6)
        assert labels[row] == expected["labels"][number]


def test_the_program_says_what_is_wrong(program, files, tmp_path):
    (tmp_path / "pixels").write_bytes(bytes(3))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    path = exported("plain", tmp_path)

    def error(*words):
        words = [tmp_path / "pixels", *words, "--", path]
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 1 and done.stdout == ""
        return done.stderr

    assert f"{tmp_path}/pixels has 3 bytes, expected 12" in error(1, 2, 2, files[0][0])
    assert "run_saved_model: serving_default: " in error(1, 1, 1, tmp_path / "broken.jpg")
