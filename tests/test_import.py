"""What importing costs and does, in fresh interpreters."""

import os
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_package_and_its_list_need_no_tensorflow():
    code = (
        "import sys, keras_deepnets as kd; assert len(kd.list_models()) >= 18; "
        "kd.model_info('resnet50'); print(*({'keras', 'tensorflow', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(code).split() == []


@pytest.mark.parametrize("order", ["import keras, keras_deepnets", "import keras_deepnets; from keras import ops"])
def test_everything_is_registered_in_either_order(order):
    """Layers, and what models are compiled with."""
    names = {
        "BatchNormalization": "layers.normalization",
        "CoupledSGD": "training",
        "HalfCosine": "training",
        "OneCycle": "training",
        "PiecewiseDrops": "training",
        "WarmUp": "training",
        "SmoothedCrossentropy": "training",
    }
    code = f"{order}; import keras; print(*(keras.saving.get_registered_object('keras_deepnets>' + name) for name in {list(names)}))"
    found = re.findall(r"<class '([\w.]+)'>", run(code))
    assert len(found) == len(names)
    for path, (name, module) in zip(found, names.items(), strict=True):
        assert path.startswith(f"keras_deepnets.{module}.") and path.endswith(f".{name}")


@pytest.mark.parametrize(
    "name",
    [
        "layers.conv2d",
        pytest.param("layers.average_pool", marks=pytest.mark.slow),
        pytest.param("training.Muon", marks=pytest.mark.slow),
    ],
)
def test_a_name_of_a_lazy_package_may_be_the_first_thing_used(name):
    code = f"import keras_deepnets as kd; print(kd.{name}.__module__)"
    assert run(code).startswith(f"keras_deepnets.{name.partition('.')[0]}.")
