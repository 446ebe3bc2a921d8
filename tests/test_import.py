"""What importing costs and does, in fresh interpreters."""

import os
import subprocess
import sys

import pytest


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


@pytest.mark.parametrize(
    "order",
    ["import keras, keras_deepnets", "import keras_deepnets, keras", "import keras_deepnets; from keras import ops"],
)
def test_layers_are_registered_in_either_order(order):
    code = f"{order}; import keras; print(keras.saving.get_registered_object('keras_deepnets>BatchNormalization'))"
    assert "keras_deepnets.layers.normalization.BatchNormalization" in run(code)


@pytest.mark.parametrize("order", ["import keras, keras_deepnets", "import keras_deepnets, keras"])
def test_what_models_are_compiled_with_is_registered_too(order):
    names = ("CoupledSGD", "HalfCosine", "OneCycle", "PiecewiseDrops", "WarmUp", "SmoothedCrossentropy")
    code = f"{order}; print(*(keras.saving.get_registered_object('keras_deepnets>' + name) for name in {names}))"
    found = run(code)
    assert all(f".{name}'" in found for name in names)


@pytest.mark.parametrize("name", ["layers.conv2d", "layers.average_pool", "training.Muon"])
def test_a_name_of_a_lazy_package_may_be_the_first_thing_used(name):
    code = f"import keras_deepnets as kd; print(kd.{name}.__module__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"keras_deepnets.{name.partition('.')[0]}.")
