"""The network for inference: a `.keras` file without normalisations, a function with constants."""

import hashlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as kl

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.errors import InputError
from keras_deepnets.export import weight_precision
from tests.export.conftest import keras_probabilities, norms, unsettle


def test_inference_model_is_folded_and_the_same(resnet20, pictures, tmp_path):
    path = export.inference_model(resnet20, tmp_path / "model.keras")
    folded = keras.saving.load_model(path)
    assert not norms(folded)
    assert list(folded.labels) == list(resnet20.labels)
    np.testing.assert_allclose(
        keras_probabilities(folded, pictures), keras_probabilities(resnet20, pictures), atol=1e-5
    )
    with pytest.raises(InputError, match=r"does not end in .keras"):
        export.inference_model(resnet20, tmp_path / "model.h5")


@pytest.mark.slow
def test_the_card_beside_a_keras_file_says_how_to_load_it(resnet20, tmp_path):
    path = export.inference_model(resnet20, tmp_path / "model.keras")
    card = json.loads((tmp_path / "model.keras.json").read_text())
    assert card["load"] == "import keras_deepnets; keras.saving.load_model('model.keras')"
    assert card["labels"] == list(resnet20.labels) and card["input"]["shape"] == list(resnet20.input_shape[1:])
    assert card["scaling"] == resnet20.scaling.to_dict() and card["parameters"] == resnet20.count_params()
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.keras", "model.keras.json"]
    run = [sys.executable, "-c", f"import keras; {card['load']}; print('loaded')"]
    assert subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.endswith("loaded\n")
    without = [sys.executable, "-c", f"import keras; {card['load'].partition('; ')[2]}"]
    done = subprocess.run(without, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Could not locate class 'DeepNet'" in done.stderr


def test_a_keras_model_without_our_layers_needs_no_import(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)], name="plain")
    export.inference_model(model, tmp_path / "plain.keras")
    assert json.loads((tmp_path / "plain.keras.json").read_text())["load"] == "keras.saving.load_model('plain.keras')"


def test_a_function_gives_what_the_network_gives_for_any_batch(resnet20, pictures):
    infer = export.inference_function(resnet20)
    for images in (pictures, pictures[:1], tf.cast(pictures, tf.float64), pictures.astype("uint8")):
        expected = resnet20(np.asarray(images, "float32"), training=False)
        np.testing.assert_allclose(infer(images), expected, atol=1e-5)
    inside = tf.data.Dataset.from_tensor_slices(pictures).batch(2).map(infer)
    np.testing.assert_allclose(np.concatenate(list(inside.as_numpy_iterator())), infer(pictures), atol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_weights_are_those_of_its_making(policy):
    keras.config.set_dtype_policy(policy)
    model = unsettle(kd.ResNet20(input_shape=(16, 16, 3), classes=4))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    infer, before = export.inference_function(model), model(images, training=False)
    for weight in model.weights:
        weight.assign(weight * 0.5)
    tolerance = 1e-5 if policy == "float32" else 2e-2
    np.testing.assert_allclose(infer(images), before, atol=tolerance)
    assert np.abs(np.subtract(before, model(images, training=False))).max() > 2 * tolerance


def test_nothing_is_read_from_variables_but_what_is_too_large(resnet20, pictures, monkeypatch):
    def operations(infer):
        called = tf.function(infer).get_concrete_function(tf.TensorSpec([None, 32, 32, 3]))
        return {node.op for function in called.graph.as_graph_def().library.function for node in function.node_def}

    assert "Conv2D" in operations(export.inference_function(resnet20))
    assert "ReadVariableOp" not in operations(export.inference_function(resnet20))
    for limit in ("MOST_CONSTANTS", "LARGEST_CONSTANT"):
        with monkeypatch.context() as patch:
            patch.setattr(weight_precision, limit, 1000)
            infer = export.inference_function(resnet20)
        assert "ReadVariableOp" in operations(infer)
        np.testing.assert_allclose(infer(pictures), resnet20(pictures, training=False), atol=1e-5)


def test_dictionaries_lists_and_sequential_models():
    one, two = keras.Input((6, 6, 3), name="one"), keras.Input((6, 6, 3), name="two")
    total = kl.Conv2D(4, 3)(one) - kl.Conv2D(4, 3)(two)
    a, b = np.random.default_rng(0).normal(size=(2, 3, 6, 6, 3))
    named = keras.Model({"one": one, "two": two}, {"total": total})
    listed = keras.Model([one, two], total)
    expected = listed([a, b])
    infer = export.inference_function(named)
    np.testing.assert_allclose(infer({"one": a, "two": b})["total"], expected, atol=1e-5)
    for inputs in ({"one": a}, {"one": a, "two": b, "three": b}, [a, b], a):
        with pytest.raises(InputError, match=r"takes \{'one': \(None, 6, 6, 3\), 'two': .*of other parts") as error:
            infer(inputs)
        assert len(str(error.value)) < 200
    np.testing.assert_allclose(export.inference_function(listed)([a, b]), expected, atol=1e-5)
    stack = unsettle(keras.Sequential([keras.Input((6, 6, 3)), kl.Conv2D(4, 3), kl.BatchNormalization(), kl.ReLU()]))
    np.testing.assert_allclose(export.inference_function(stack)(a), stack(a), atol=1e-5)


def test_what_is_no_batch_or_no_network_is_refused(resnet20):
    infer = export.inference_function(resnet20)
    for images, message in (
        (np.zeros((32, 32, 3)), r"takes \(None, 32, 32, 3\); it was given \(32, 32, 3\)"),
        (np.zeros((1, 32, 33, 3)), r"it was given \(1, 32, 33, 3\)"),
        ("cat.png", "takes numbers .* not a str"),
        (None, "not a NoneType"),
    ):
        with pytest.raises(InputError, match=message):
            infer(images)
    with pytest.raises(InputError, match="is not built"):
        export.inference_function(keras.Sequential([kl.Conv2D(4, 3)]))


def test_other_backends_are_told_what_to_do(resnet20, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match="runs on jax; call fold_batchnorm"):
        export.inference_function(resnet20)
