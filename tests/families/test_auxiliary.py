"""Auxiliary classifiers: DSN's companions and GoogLeNet's."""

import functools
import json

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export, layers, models, training
from keras_deepnets.training.losses import SquaredHinge, fading
from keras_deepnets.weights import naming_tables
from tests.weights.common import arrays, assert_same, fill, peer_tensors

pytestmark = pytest.mark.integration

SMALL = [[[4, 4, 8, 4, 8, 4]], [[4, 4, 8, 4, 8, 4]] * 4]


def dsn(**options):
    return kd.DSN(input_shape=(8, 8, 3), classes=3, **options)


def googlenet(side=80, **options):
    return kd.GoogLeNet(modules=SMALL, input_shape=(side, side, 3), classes=3, **options)


@pytest.mark.parametrize(
    "build, parameters",
    [
        (kd.DSN, 3_547_496),
        pytest.param(kd.GoogLeNet, 13_378_280, marks=pytest.mark.slow),
        (functools.partial(kd.GoogLeNet, batch_norm=True), 13_004_888),
    ],
)
def test_parameters_of_the_training_forms(build, parameters):
    assert models.trainable_parameters(build(auxiliary=True)) == parameters


@pytest.mark.parametrize(
    "build, weights",
    [
        (dsn, {"companion1": 0.3, "companion2": 0.3, "companion3": 0.3}),
        (googlenet, {"aux1": 0.3, "aux2": 0.3}),
    ],
)
def test_outputs_and_records_survive_copies(build, weights, rng, tmp_path):
    model = build(auxiliary=True, layer_prefix="left_")
    x = rng.normal(size=(2, *model.input_shape[1:])).astype("float32")
    assert model.auxiliary == weights and list(model.output) == ["predictions", *weights] and model.classes == 3
    model.labels = ["a", "b", "c"]
    expected = model.predict(x, verbose=0)
    assert len({value.tobytes() for value in expected.values()}) == len(expected)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for copy in (keras.saving.load_model(tmp_path / "model.keras"), clone):
        assert (copy.auxiliary, copy.labels, copy.architecture) == (weights, model.labels, model.architecture)
        found = copy.predict(x, verbose=0)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    plain = models.without_auxiliary(model)
    assert (plain.auxiliary, plain.labels) == ({}, ("a", "b", "c")) and "auxiliary" not in plain.architecture["options"]
    np.testing.assert_allclose(plain.predict(x, verbose=0), expected["predictions"], rtol=1e-5, atol=1e-6)
    assert models.without_auxiliary(plain) is plain


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_loss_is_the_weighted_sum(policy, rng):
    keras.config.set_dtype_policy(policy)
    model = dsn(auxiliary=True)
    model.compile(keras.optimizers.SGD(0.0), training.SmoothedCrossentropy(0.1), metrics=["accuracy"])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    x, y = rng.normal(size=(4, 8, 8, 3)).astype("float32"), np.array([0, 1, 2, 1])
    outputs = {name: np.asarray(value, "float64") for name, value in model(x, training=True).items()}
    target = np.eye(3)[y] * 0.9 + 0.1 / 3
    losses = {name: -(target * np.log(value)).sum(-1).mean() for name, value in outputs.items()}
    total = losses["predictions"] + 0.3 * sum(losses[f"companion{number}"] for number in (1, 2, 3))
    found = model.train_on_batch(x, y, return_dict=True)
    assert found["loss"] == pytest.approx(total, rel=1e-5 if policy == "float32" else 2e-2)
    evaluated = model.test_on_batch(x, y, return_dict=True)
    assert evaluated["loss"] == pytest.approx(losses["predictions"], rel=1e-5 if policy == "float32" else 2e-2)
    assert evaluated["accuracy"] == pytest.approx((outputs["predictions"].argmax(-1) == y).mean())
    model.auxiliary_factor = lambda: 0.5
    model.make_train_function(force=True)
    half = losses["predictions"] + 0.15 * sum(losses[f"companion{number}"] for number in (1, 2, 3))
    assert model.train_on_batch(x, y, return_dict=True)["loss"] == pytest.approx(half, rel=2e-2)


def test_labels_for_each_output_are_keras_own_way(rng):
    model = dsn(auxiliary=True)
    losses = dict.fromkeys(model.output, "sparse_categorical_crossentropy")
    model.compile("sgd", losses, loss_weights=dict.fromkeys(losses, 0.5))
    x, y = rng.normal(size=(2, 8, 8, 3)).astype("float32"), np.array([0, 1])
    found = model.train_on_batch(x, dict.fromkeys(model.output, y), return_dict=True)
    parts = [found[f"{name}_loss"] for name in losses]
    assert found["loss"] == pytest.approx(0.5 * sum(parts), rel=1e-5)


def test_squared_hinge(rng):
    logits, labels = rng.normal(size=(5, 4)).astype("float32") * 2, np.array([0, 3, 2, 1, 0])
    sign = 2.0 * np.eye(4)[labels] - 1
    expected = (np.maximum(0, 1 - sign * logits) ** 2).sum(-1)
    np.testing.assert_allclose(SquaredHinge(from_logits=True, reduction=None)(labels, logits), expected, rtol=1e-5)
    smooth = 2 * (np.eye(4)[labels] * 0.8 + 0.05) - 1
    expected = (np.maximum(0, 1 - smooth * logits) ** 2).sum(-1)
    loss = SquaredHinge(0.2, True, reduction=None)
    np.testing.assert_allclose(loss(labels, logits), expected, rtol=1e-5)
    assert SquaredHinge.from_config(loss.get_config()).label_smoothing == 0.2
    with pytest.raises(ValueError, match="the squared hinge loss needs logits"):
        SquaredHinge()(labels, np.abs(logits))


def test_slow_dense_is_dense_with_smaller_gradients(rng):
    import tensorflow as tf

    x = tf.constant(rng.normal(size=(3, 6)).astype("float32"))
    slow, usual = layers.SlowDense(4, 0.25, activation="softmax"), keras.layers.Dense(4, activation="softmax")
    for layer in (slow, usual):
        layer.build(x.shape)
    usual.set_weights([rng.normal(size=(6, 4)), rng.normal(size=4)])
    slow.set_weights(usual.get_weights())
    np.testing.assert_array_equal(slow(x), usual(x))
    gradients = []
    for layer in (slow, usual):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x)[:, 0])
        gradients.append(tape.gradient(loss, [x, layer.kernel.value, layer.bias.value]))
    for mine, theirs, factor in zip(*gradients, (1, 0.25, 0.25), strict=True):
        np.testing.assert_allclose(mine, factor * theirs, rtol=1e-5, atol=1e-7)
    assert layers.SlowDense.from_config(slow.get_config()).gradient_factor == 0.25
    with pytest.raises(ValueError, match="must be above 0"):
        layers.SlowDense(4, 0.0)


@pytest.mark.parametrize("build", [dsn, googlenet])
def test_weights_move_between_the_forms(build, tmp_path):
    full, plain = fill(build(auxiliary=True)), build()
    kd.save_weights(full, tmp_path / "full.safetensors")
    report = kd.load_weights(plain, tmp_path / "full.safetensors")
    heads = len(full.weights) - len(plain.weights)
    assert (report.loaded, len(report.skipped), report.complete) == (len(plain.weights), heads, True)
    own = {name: array for name, array in arrays(full).items() if name in arrays(plain)}
    assert_same(plain, own)
    kd.save_weights(plain, tmp_path / "plain.safetensors")
    again = build(auxiliary=True)
    before = {name: array for name, array in arrays(again).items() if name not in own}
    report = kd.load_weights(again, tmp_path / "plain.safetensors")
    assert (report.loaded, len(report.skipped)) == (len(plain.weights), heads)
    assert_same(again, own | before)
    copy = build(auxiliary=True, weights=tmp_path / "full.safetensors")
    assert_same(copy, arrays(full))


def test_torchvisions_auxiliary_classifiers(rng):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    model = fill(kd.GoogLeNet(auxiliary=True, batch_norm=True, modules=SMALL, input_shape=(72, 88, 3), classes=3))
    tensors = peer_tensors(model, naming_tables.TORCHVISION_GOOGLENET)
    assert {"aux1.conv.bn.running_mean", "aux2.fc1.weight", "aux2.fc2.bias"} <= set(tensors)
    loaded = kd.GoogLeNet(auxiliary=True, batch_norm=True, modules=SMALL, input_shape=(72, 88, 3), classes=3)
    report = kd.load_weights(loaded, dict(tensors))
    assert report.complete and report.skipped == () and report.loaded == len(model.weights)
    x = rng.normal(size=(2, 72, 88, 3)).astype("float32")
    maps = np.asarray(keras.Model(loaded.input, loaded.get_layer("inception_4a_output").output)(x))
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(4),
        nn.Conv2d(maps.shape[-1], 128, 1, bias=False),
        nn.BatchNorm2d(128, eps=1e-3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 1024),
        nn.ReLU(),
        nn.Linear(1024, 3),
    ).eval()
    parts = {"1": "conv.conv", "2": "conv.bn", "5": "fc1", "7": "fc2"}
    state = {
        f"{place}.{name.rpartition('.')[2]}": torch.from_numpy(np.array(tensors[name], "float32"))
        for place, part in parts.items()
        for name in tensors
        if name.startswith(f"aux1.{part}.")
    }
    head.load_state_dict(state, strict=False)
    with torch.inference_mode():
        expected = head(torch.from_numpy(maps).permute(0, 3, 1, 2)).softmax(-1).numpy()
    np.testing.assert_allclose(loaded(x)["aux1"], expected, atol=2e-5)


@pytest.mark.parametrize("fade", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_run_trains_all_and_saves_the_plain_network(fade, rng, tmp_path):
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40) % 3
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "ema": 0.9,
        "weight_decay": 1e-3,
        "image_size": 8,
        "augmentation": "none",
        "validation": 0.2,
        "verbose": 0,
        "model_options": {"auxiliary": True, "dropout": 0.0},
        "auxiliary_fade": fade,
    }
    run = training.train("dsn", (images, labels), "fast", tmp_path / "whole", **settings)
    assert isinstance(run.model, models.DeepNet) and run.model.output_shape == (None, 3)
    saved = keras.saving.load_model(run.path / "model.keras")
    assert saved.output_shape == (None, 3) and saved.labels == run.model.labels
    assert training.evaluate(run.path, (images, labels)).top1 == training.evaluate(run.model, (images, labels)).top1

    # Interrupted after the first epoch, and resumed: the same weights.
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    parted = settings | {"callbacks": [Stop()]}
    with pytest.raises(KeyboardInterrupt):
        training.train("dsn", (images, labels), "fast", tmp_path / "parts", **parted)
    resumed = training.train("dsn", (images, labels), "fast", tmp_path / "parts", **settings)
    for mine, other in zip(resumed.model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    config = json.loads((run.path / "config.json").read_text())
    assert config["model"]["options"]["auxiliary"] is True and config["recipe"]["auxiliary_fade"] is fade


def test_a_given_network_with_auxiliary_classifiers(rng, tmp_path):
    images, labels = rng.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8), np.arange(24) % 3
    model = dsn(auxiliary=True, include_preprocessing=True)
    before = arrays(model)
    settings = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "validation": False, "verbose": 0}
    run = training.train(model, (images, labels), "fast", tmp_path / "run", **settings)
    changed = {name for name, array in arrays(model).items() if (array != before[name]).any()}
    assert changed == set(before) and run.model.output_shape == (None, 3)
    again = training.train(model, (images, labels), "fast", tmp_path / "run", **settings)
    assert again.model.output_shape == (None, 3)


def test_the_factor_of_the_losses_falls_to_zero():
    optimizer = keras.optimizers.SGD(0.1)
    factor = fading(optimizer, 4)
    found = []
    for step in range(6):
        optimizer.iterations.assign(step)
        found.append(float(factor()))
    assert found == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_new_classifiers_and_freezing():
    model = dsn(auxiliary=True)
    new = kd.replace_classifier(model, 5)
    assert new.auxiliary == model.auxiliary and {output.shape[-1] for output in new.output.values()} == {5}
    assert isinstance(new.get_layer("companion2_predictions"), layers.SlowDense)
    kd.freeze(new)
    trained = {layer.name for layer in new.layers if layer.trainable and layer.weights}
    assert trained == {"predictions", "companion1_predictions", "companion2_predictions", "companion3_predictions"}


def test_exports_are_of_the_plain_network(rng, tmp_path):
    model = fill(dsn(auxiliary=True, include_preprocessing=True))
    path = export.tflite(model, tmp_path / "dsn.tflite")
    card = json.loads((tmp_path / "dsn.tflite.json").read_text())
    assert card["parameters"] == models.without_auxiliary(model).count_params()
    assert "auxiliary" not in card["architecture"]["options"]
    x = rng.integers(0, 256, (1, 8, 8, 3)).astype("float32")
    interpreter = export.litert.open_interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, model.predict(x, verbose=0)["predictions"], atol=1e-5)
    assert export.fold_batchnorm(model).output_shape == (None, 3)


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: kd.DSN(auxiliary=True, include_top=False),
            "auxiliary=True adds classifiers, which need include_top=True",
        ),
        (lambda: kd.DSN(auxiliary=True, input_shape=(None, None, 3)), "needs a fixed height and width"),
        (lambda: googlenet(64, auxiliary=True), "needs a fixed input size of at least 80 pixels"),
        (lambda: kd.GoogLeNet(auxiliary=True, modules=SMALL[:1]), "reads the modules 4a and 4d"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
