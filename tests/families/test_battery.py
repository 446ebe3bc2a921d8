"""One battery over every registered network."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import facts, models
from keras_deepnets.families import counts
from keras_deepnets.families.preact import UNITS
from tests.families.expected import FLOPS, PARAMETERS
from tests.families.representatives import representatives

NAMES = kd.list_models()


QUICK = representatives()
every_network = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)


def small(name, **kwargs):
    """The network at the smallest sensible input."""
    info = kd.model_info(name)
    side = {"imagenet2012": 64, "cifar10": 16, "mnist": 28}[info.dataset]
    side = max(side, getattr(kd, info.constructor).facts.spec.total_stride)
    kwargs.setdefault("input_shape", (side, side, info.input_shape[-1]))
    model = kd.create_model(name, **kwargs)
    if info.depth > 400 and kwargs.get("weights") is None:
        # Untrained and with moving statistics that have seen nothing, each of hundreds of blocks doubles the variance: beyond float32.
        for weight in model.weights:
            if weight.path.endswith("gamma"):
                weight.assign(0.1 * weight)
    return model


def images(model, rng, count=2):
    return rng.normal(size=(count, *model.input_shape[1:])).astype("float32")


def test_the_tables_cover_every_network():
    assert sorted(PARAMETERS) == sorted(NAMES)
    assert sorted(counts.recorded()) == sorted([*NAMES, *kd.list_models(task="detection")])


@pytest.mark.parametrize("name", NAMES)
def test_recorded_parameters_and_flops_are_the_papers(name):
    info = kd.model_info(name)
    assert info.parameters == PARAMETERS[name]
    if name in FLOPS:
        assert info.flops == pytest.approx(FLOPS[name], rel=0.02)


@every_network
def test_recorded_facts_are_the_models(name):
    assert facts.count(name) == counts.recorded()[name]


@every_network
def test_forward_top_pooling_logits_and_classes(name, rng):
    model = small(name, classes=7)
    x = images(model, rng)
    y = model(x, training=False).numpy()
    assert y.shape == (2, 7) and model.name == name
    np.testing.assert_allclose(y.sum(-1), 1, atol=1e-5)  # no NaN
    logits = small(name, classes=7, classifier_activation=None)
    logits.set_weights(model.get_weights())
    np.testing.assert_allclose(tf.nn.softmax(logits(x, training=False)), y, atol=1e-5)
    features = small(name, include_top=False)
    pooled = small(name, include_top=False, pooling="avg")
    pooled.set_weights(features.get_weights())
    feature_maps = features(x, training=False).numpy()
    if feature_maps.ndim == 4:
        feature_maps = feature_maps.mean((1, 2))
    np.testing.assert_allclose(pooled(x, training=False), feature_maps, rtol=1e-3, atol=1e-5)


@every_network
def test_input_tensor_and_odd_sizes(name, rng):
    info = kd.model_info(name)
    if info.dataset == "mnist":
        pytest.skip("a fully connected network has one input size")
    inputs = keras.Input((None, None, 3))
    model = kd.create_model(name, input_tensor=inputs * 2.0, classes=3)
    x = rng.normal(size=(1, 45, 33, 3)).astype("float32")
    twin = kd.create_model(name, input_shape=(45, 33, 3), classes=3)
    twin.set_weights(model.get_weights())
    np.testing.assert_allclose(model(x), twin(2 * x), atol=1e-5)


@every_network
def test_preprocessing_inside(name, rng):
    model, plain = small(name, include_preprocessing=True), small(name)
    plain.set_weights(model.get_weights())
    x = rng.integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
    assert model.includes_preprocessing and not plain.includes_preprocessing
    np.testing.assert_allclose(model(x), plain(plain.scaling.apply(x)), atol=1e-5)


def _policies():
    """Every network under every policy. Bfloat16 is quick for all that are, the others for the smallest only."""
    for name in NAMES:
        for policy in ("float32", "mixed_bfloat16", "mixed_float16"):
            quick = name in QUICK and (policy == "mixed_bfloat16" or name == "resnet20")
            yield pytest.param(name, policy, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize("name, policy", list(_policies()))
def test_one_training_step(name, policy, rng):
    keras.config.set_dtype_policy(policy)
    model = small(name, classes=3)
    assert model.output.dtype == "float32"
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    before = [weight.numpy() for weight in model.trainable_weights]
    loss = model.train_on_batch(images(model, rng, 4), np.array([0, 1, 2, 0]))
    assert np.isfinite(loss)
    # float16's loss scaling may skip a first step that overflows; it then halves the scale and goes on.
    if policy != "mixed_float16":
        changed = [(weight.numpy() != old).any() for weight, old in zip(model.trainable_weights, before, strict=True)]
        # A block that stochastic depth drops learns nothing in that step.
        assert np.mean(changed) > (0.3 if name.startswith("stochastic") else 0.95)


@every_network
def test_save_and_load(name, rng, tmp_path):
    model = small(name, classes=4)
    model.labels = ["a", "b", "c", "d"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images(model, rng)
    np.testing.assert_allclose(model(x, training=False), loaded(x, training=False), rtol=1e-5, atol=1e-6)
    assert loaded.labels == ("a", "b", "c", "d") and loaded.architecture == model.architecture
    assert loaded.architecture["constructor"].lower() == name and loaded.scaling == model.scaling
    model.save_weights(tmp_path / "model.weights.h5")
    again = small(name, classes=4, weights=tmp_path / "model.weights.h5")
    np.testing.assert_allclose(model(x, training=False), again(x, training=False), rtol=1e-5, atol=1e-6)


@every_network
def test_plots(name):
    """What `keras.utils.plot_model` draws: one node a layer, one edge a connection, none left over."""
    model = small(name)
    drawing = keras.utils.model_to_dot(model, show_shapes=True)
    inputs = sum(len(node.input_tensors) for layer in model.layers for node in layer._inbound_nodes)
    assert len(drawing.get_edges()) == inputs
    labels = " ".join(node.get_label() or "" for node in drawing.get_nodes())
    assert all(layer.name in labels for layer in model.layers)


@pytest.mark.parametrize("name", NAMES)
def test_signature_and_docstring(name):
    constructor = getattr(kd, kd.model_info(name).constructor)
    parameters = list(inspect.signature(constructor).parameters.values())
    reference = list(inspect.signature(keras.applications.ResNet50).parameters)
    assert [parameter.name for parameter in parameters[:8]] == reference[:8]
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters[8:])
    assert parameters[8].name == "include_preprocessing" and parameters[7].default == name
    assert f"{PARAMETERS[name]:,} parameters" in constructor.__doc__
    for parameter in parameters:
        assert f"{parameter.name}:" in constructor.__doc__
    json.dumps(counts.recorded()[name])


@every_network
def test_every_option_builds_and_is_recorded(name, rng, tmp_path):
    constructor = getattr(kd, kd.model_info(name).constructor)
    values = {
        "shortcut": ["A", "B", "C", "D"],
        "form": ["keras"],
        "downsample": ["1x1", "3x3"],
        "zero_init_residual": [True],
        "stochastic_depth": [0.3],
        "unit": list(UNITS),
        "final_survival": [0.8],
        "dropout": [0.2],
        "memory_efficient": [True],
        "stem_padding": ["same"],
        "deep_stem": [[8, 8, 16]],
        "antialias": ["average", "blur"],
        "gate_bias": [-1.5, 0],
        "modules": [[[[16, 8, 16, 8, 16, 8]]]],
        "pooled_size": [3],
        "batch_norm": [True],
        "hidden": [[16]],
        "pool2": ["avg"],
        "pool_padding": ["symmetric"],
        "reduction": ["pool", "stride", "conv_pool"],
        "auxiliary": [],  # tests/families/test_auxiliary.py
        "drop_path": [0.1],
        "global_share": [1],
        "doubling": [True],
        "pool_before_join": [False],
        "column": [2],
        "filters": [[8, 8, 16]],
        "kernels": [[8, 7, 5]],
        "paddings": [[4, 4, 3]],
        "pool_sizes": [[3, 4, 2]],
        "pieces": [3],
        "hidden_pieces": [2],
        "input_dropout": [0],
        "max_kernel_norms": [None, [1, 2, 2]],
        "max_hidden_norm": [None],
        "max_classifier_norm": [None],
        "initial_range": [0.005],
        "activation": ["shared_prelu", "relu"],
        "pyramid": [[3, 1]],
    }
    for option in constructor.facts.options:
        for value in values[option]:
            model = small(name, classes=2, **{option: value})
            assert model.architecture["options"] == {option: value}
            assert models.DeepNet.from_config(model.get_config()).architecture == model.architecture
