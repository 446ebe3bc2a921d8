"""What type checkers and editors see of the package."""

import subprocess
import sys

import pytest

import keras_deepnets as kd
from keras_deepnets import registry
from tools import write_stub

pytestmark = pytest.mark.integration

CONSTRUCTORS = [registry.constructor_of(name).__name__ for name in [*registry.list_models(), *registry.builders()]]

GOOD = """
from pathlib import Path
import numpy as np
import keras_deepnets as kd

model: kd.models.DeepNet = kd.ResNet50(classes=7, input_shape=(64, 64, 3), shortcut="D", deep_stem=[32, 32, 64])
small = kd.ResNet20(include_preprocessing=kd.Scaling((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
dense = kd.DenseNet121(weights=Path("a.safetensors"), pooling="avg", include_top=False, memory_efficient=True)
names: list[str] = kd.list_models("resnet*", dataset="cifar10")
info: kd.ModelInfo = kd.model_info("resnet20")
parameters: int = info.parameters
any_model = kd.create_model("resnet20", classes=3)
images = kd.preprocess_input(np.zeros((1, 32, 32, 3)), "resnet20")
labels: list[list[tuple[str, str, float]]] = kd.decode_predictions(np.zeros((1, 1000)), top=3)
pyramid = kd.feature_pyramid(model)
head = kd.replace_classifier(model, 3)
frozen = kd.freeze(model, up_to="conv4_block6_out")
folded = kd.fold_batchnorm(model)
report: kd.weights.LoadReport = kd.load_weights(model, {"a": np.zeros(3)}, strict=False)
saved: Path = kd.save_weights(model, "b.safetensors")
data: kd.data.ImageData = kd.data.load("digits", split="test")
size: int = data.size
run: kd.training.Run = kd.training.train("resnet20", "digits", epochs=1, seed=3, validation=0.1)
folder: Path = run.path
evaluation: kd.training.Evaluation = kd.training.evaluate(model, data, crops=10)
accuracy: float = evaluation.top1
recipe: kd.training.Recipe = kd.training.get_recipe("fast", epochs=3)
recipes: list[str] = kd.training.recipes()
exported = kd.export.saved_model(model, "serving", labels=["a", "b"], version=1)
lite = kd.export.tflite(model, "a.tflite", quantize="float16")
onnx = kd.export.onnx(model, "a.onnx")
answers = kd.export.predict("a.tflite", ["a.jpg"])
infer = kd.export.inference_function(model)
cards = kd.weights.list_weights("resnet50")
kd.insight.draw_curves([Path("runs/a")], "curves.png")
optimizer = kd.training.Muon(4e-3, weight_decay=0.05)
"""
"""User code: thirty public functions and classes."""


def checked(text, folder, *options):
    """What mypy says of a program."""
    path = folder / "program.py"
    path.write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--ignore-missing-imports",
        "--cache-dir",
        str(folder),
        *options,
        str(path),
    ]
    root = write_stub.PATH.parents[1]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root).stdout


def test_the_stub_is_that_of_the_constructors():
    assert write_stub.PATH.read_text(encoding="utf-8") == write_stub.stub(), "run python -m tools.write_stub"


def test_user_code_is_clean(tmp_path):
    assert "Success" in checked(GOOD, tmp_path, "--follow-imports=silent")


def test_a_misspelt_and_a_wrong_argument_are_errors_of_every_constructor(tmp_path):
    assert set(CONSTRUCTORS) <= set(kd.__all__)
    lines = [f"kd.{name}(clases=3)\nkd.{name}(include_top='no')" for name in CONSTRUCTORS]
    said = checked("import keras_deepnets as kd\n" + "\n".join(lines) + "\n", tmp_path, "--follow-imports=skip")
    assert said.count('Unexpected keyword argument "clases"') == len(CONSTRUCTORS)
    assert said.count('Argument "include_top"') == len(CONSTRUCTORS)
