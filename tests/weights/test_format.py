"""Files of today's format, committed: later versions must read them, with the same outputs.

``python -m tests.weights.test_format`` made them.
"""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.records import FORMAT_VERSION
from keras_deepnets.weights import open_model
from tests.weights.common import fill

FOLDER = Path(__file__).with_name("fixtures")
SUFFIXES = (".safetensors", ".weights.h5", ".keras")
PLAIN = FOLDER / "format1.safetensors"
SCALING = kd.Scaling((1, 2, 3), (4, 5, 6), "BGR")
RESIDUAL = {"blocks": (1, 1), "filters": (4, 8), "stem": "cifar", "shortcut": "A"}
DENSE = {"blocks": (2, 1), "growth_rate": 2, "stem": "cifar"}
FORMS = {
    "format1": lambda: kd.ResNet(**RESIDUAL, classes=2, input_shape=(None, None, 3)),
    "blocks1": lambda: kd.ResNet(**RESIDUAL, block_layers=True, classes=2, input_shape=(8, 8, 3)),
    "recomputing1": lambda: kd.DenseNet(**DENSE, memory_efficient=True, classes=2, input_shape=(8, 8, 3)),
}
OUTPUTS = {
    "format1": ((0.0590420, 0.9409580), (0.0655740, 0.9344261)),
    "blocks1": ((0.0590420, 0.9409580), (0.0655740, 0.9344261)),
    "recomputing1": ((0.6579536, 0.3420464), (0.6553147, 0.3446853)),
}
OPTIONS = {
    "format1": {"blocks": [1, 1], "filters": [4, 8], "stem": "cifar", "shortcut": "A"},
    "blocks1": {"blocks": [1, 1], "filters": [4, 8], "stem": "cifar", "shortcut": "A", "block_layers": True},
    "recomputing1": {"blocks": [2, 1], "growth_rate": 2, "stem": "cifar", "memory_efficient": True},
}


def images():
    return np.linspace(-1, 1, 2 * 8 * 8 * 3, dtype="float32").reshape(2, 8, 8, 3)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("form", FORMS)
def test_todays_format_stays_readable(form, suffix):
    path = FOLDER / f"{form}{suffix}"
    models = [open_model(path)]
    if suffix == ".keras":
        models.append(keras.saving.load_model(path))
    for model in models:
        assert model.architecture["options"] == OPTIONS[form]
        assert model.labels == ("cat", "dog") and model.scaling == SCALING
        np.testing.assert_allclose(model(images()), OUTPUTS[form], atol=1e-5)


@pytest.mark.parametrize("form, other", [("format1", "blocks1"), ("blocks1", "format1")])
def test_the_forms_exchange_the_files(form, other):
    model = FORMS[other]()
    for suffix in SUFFIXES:
        assert kd.load_weights(model, FOLDER / f"{form}{suffix}").complete
        np.testing.assert_allclose(model(images()), OUTPUTS[form], atol=1e-5)


def test_the_fixtures_are_small():
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert set(sizes) == {f"{form}{suffix}" for form in FORMS for suffix in SUFFIXES}
    assert sum(sizes.values()) < 500_000, sizes


def later(suffix, folder, version=FORMAT_VERSION + 1):
    """The plain fixture with another format version, or with none."""
    path = shutil.copy(FOLDER / f"format1{suffix}", folder / f"later{suffix}")
    change = {} if version is None else {"format": version}
    if suffix == ".safetensors":
        from safetensors.numpy import load_file, save_file

        save_file(load_file(PLAIN), path, metadata={"keras_deepnets": json.dumps(change)})
    elif suffix == ".weights.h5":
        import h5py

        with h5py.File(path, "r+") as file:
            file.attrs["keras_deepnets"] = json.dumps(change)
    else:
        with zipfile.ZipFile(FOLDER / "format1.keras") as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    del config["config"]["record"]["format"]
                    config["config"]["record"] |= change
                    content = json.dumps(config).encode()
                new.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_later_format_is_refused(tmp_path, suffix):
    message = r"has format 2 and this version of keras_deepnets reads up to 1; upgrade keras_deepnets\."
    path = later(suffix, tmp_path)
    with pytest.raises(ValueError, match=message):
        open_model(path)
    with pytest.raises(ValueError, match=message):
        kd.load_weights(FORMS["format1"](), path)
    if suffix == ".keras":
        with pytest.raises(ValueError, match=message):
            keras.saving.load_model(path)


def test_keras_files_from_before_there_was_a_format(tmp_path):
    path = later(".keras", tmp_path, version=None)
    for model in (open_model(path), keras.saving.load_model(path)):
        np.testing.assert_allclose(model(images()), OUTPUTS["format1"], atol=1e-5)


def make_fixtures():
    """How the files were made."""
    for form, build in FORMS.items():
        model = fill(build())
        model.labels, model.scaling = ["cat", "dog"], SCALING
        for suffix in SUFFIXES:
            path = FOLDER / f"{form}{suffix}"
            if path != PLAIN:  # that one is older
                kd.save_weights(model, path)
        print(form, np.array(model(images())).tolist())


if __name__ == "__main__":
    make_fixtures()
