"""Several networks in one functional model: `layer_prefix`."""

import inspect

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from tests.families.representatives import representatives
from tests.families.test_battery import small

SMALL = {"input_shape": (16, 16, 3), "classes": 3}


def tiny(**kwargs):
    return kd.ResNet(blocks=(1, 1), filters=(8, 16), stem="cifar", **(SMALL | kwargs))


FORMS = {
    "deep stem, antialiased, attention": lambda **k: kd.ResNet(
        blocks=(1, 1),
        filters=(8, 16),
        deep_stem=(4, 4, 8),
        antialias="blur",
        attention="se",
        dropout=0.1,
        **(SMALL | k | {"input_shape": (32, 32, 3)}),
    ),
    "ECA, ResNet-D, stochastic depth": lambda **k: tiny(attention="eca", shortcut="D", stochastic_depth=0.2, **k),
    "group normalisation, convolution for pooling": lambda **k: kd.ResNet(
        blocks=(1, 1),
        filters=(32, 64),
        norm="group",
        stem_pool="convolution",
        **(SMALL | k | {"input_shape": (32, 32, 3)}),
    ),
    "shortcut A, averaged": lambda **k: tiny(shortcut="A", antialias="average", **k),
    "blocks": lambda **k: tiny(block_layers=True, stochastic_depth=0.3, drop_unit="batch", **k),
    "pre-activation": lambda **k: kd.PreActResNet(
        blocks=(1, 1), filters=(8, 16), stem="cifar", unit="bn_after_addition", **(SMALL | k)
    ),
    "keras form": lambda **k: kd.PreActResNet(
        blocks=(1, 1), filters=(8, 16), form="keras", **(SMALL | k | {"input_shape": (32, 32, 3)})
    ),
    "recomputing": lambda **k: kd.DenseNet(
        blocks=(2, 2), growth_rate=4, memory_efficient=True, dropout=0.1, stem="cifar", **(SMALL | k)
    ),
    "dense, blurred": lambda **k: kd.DenseNet(
        blocks=(1, 1), growth_rate=4, antialias="blur", **(SMALL | k | {"input_shape": (32, 32, 3)})
    ),
    "highway": lambda **k: kd.Highway(filters=(8, 8), convolutions=(2, 2), head="conv", **(SMALL | k)),
    "maxout": lambda **k: kd.FitNet(filters=((4, 4), (8,)), hidden=8, **(SMALL | k)),
    "fractal": lambda **k: kd.FractalNet(columns=2, filters=(4, 8), dropout=0.1, doubling=True, **(SMALL | k)),
    "maxout with norms": lambda **k: kd.MaxoutCNN(filters=(4, 4, 8), hidden=(8,), **(SMALL | k)),
    "rectifiers, pyramid": lambda **k: kd.PReLUNet(
        convolutions=(1, 1), filters=(4, 8), stem_filters=4, hidden=(8,), **(SMALL | k)
    ),
    "preprocessing": lambda **k: tiny(include_preprocessing=True, **k),
    "without top": lambda **k: tiny(include_top=False, pooling="max", **k),
}


def assert_prefixed(plain, model, prefix):
    """The same layers in the same order under other names, sublayers and weights too; nothing else in their configs differs."""
    assert [layer.name for layer in model.layers] == [f"{prefix}{layer.name}" for layer in plain.layers]
    owners = [[weight.path.split("/")[-2] for weight in net.weights] for net in (plain, model)]
    assert owners[1] == [prefix + name for name in owners[0]]
    for own, theirs in zip(plain.layers, model.layers, strict=True):
        assert type(own) is type(theirs)
        if hasattr(own, "graph"):
            assert own.graph == theirs.graph  # blocks of both networks share one graph


@pytest.mark.parametrize("form", FORMS)
def test_every_layer_has_the_prefix(form):
    assert_prefixed(FORMS[form](), FORMS[form](layer_prefix="left_"), "left_")


@pytest.mark.parametrize("name", representatives())
def test_every_constructor_takes_a_prefix(name):
    model = small(name, layer_prefix="left_", classes=3)
    assert all(layer.name.startswith("left_") for layer in model.layers)
    assert model.name == f"left_{name}" and model.architecture["options"] == {"layer_prefix": "left_"}


def test_signature_and_bad_prefixes():
    for name in [*kd.list_models(), "resnet", "preactresnet", "densenet", "highway"]:
        constructor = next(getattr(kd, known) for known in kd.__all__ if known.lower() == name)
        parameter = inspect.signature(constructor).parameters["layer_prefix"]
        assert parameter.default == "" and parameter.kind is parameter.KEYWORD_ONLY
        assert "layer_prefix:" in constructor.__doc__
    for bad in ("a/b", "1_", "_x", 3, None, "ö"):
        with pytest.raises(ValueError, match=r"layer_prefix=.* must consist of .* e\.g\. 'left_'"):
            kd.ResNet20(layer_prefix=bad)
    assert kd.ResNet20(layer_prefix="left_", name="mine").name == "mine"


def two_networks(**options):
    inputs = keras.Input((16, 16, 3))
    left = tiny(input_tensor=inputs, input_shape=None, layer_prefix="left_", **options)
    right = kd.DenseNet(
        blocks=(1, 1), growth_rate=4, stem="cifar", classes=3, input_tensor=inputs, layer_prefix="right_"
    )
    outputs = keras.layers.Average()([left.output, right.output])
    return left, right, keras.Model(inputs, outputs)


@pytest.mark.parametrize("options", [{}, {"block_layers": True}], ids=["layers", "blocks"])
def test_two_networks_on_one_input(options, tmp_path, rng):
    """Trained one step, saved, loaded; each is frozen, folded and read by itself."""
    left, _, both = two_networks(**options)
    x = rng.normal(size=(4, 16, 16, 3)).astype("float32")
    before = [np.array(weight) for weight in both.weights]
    both.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    assert np.isfinite(both.train_on_batch(x, np.array([0, 1, 2, 0])))
    changed = [not np.array_equal(weight, array) for weight, array in zip(both.weights, before, strict=True)]
    assert np.mean(changed) > 0.9
    both.save(tmp_path / "both.keras")
    again = keras.saving.load_model(tmp_path / "both.keras")
    np.testing.assert_allclose(again(x), both(x), atol=1e-6)
    again.train_on_batch(x, np.array([0, 1, 2, 0]))
    kd.save_weights(both, tmp_path / "both.safetensors")
    *_, other = two_networks(**options)
    assert kd.load_weights(other, tmp_path / "both.safetensors").complete
    np.testing.assert_allclose(other(x), both(x), atol=1e-6)
    # Either network alone.
    kd.save_weights(left, tmp_path / "left.weights.h5")
    alone = tiny(weights=tmp_path / "left.weights.h5")
    np.testing.assert_allclose(alone(x), left(x), atol=1e-6)
    folded = kd.fold_batchnorm(both)
    np.testing.assert_allclose(folded(x), both(x), atol=1e-5)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    with pytest.raises(ValueError, match="unique"):
        inputs = keras.Input((16, 16, 3))
        keras.Model(
            inputs,
            tiny(input_tensor=inputs, input_shape=None).output + tiny(input_tensor=inputs, input_shape=None).output,
        )


@pytest.mark.parametrize("options", [{}, {"block_layers": True}], ids=["layers", "blocks"])
def test_what_is_done_with_a_network(options, tmp_path, rng):
    plain, model = tiny(**options), tiny(layer_prefix="left_", **options)
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    kd.load_weights(model, plain)
    np.testing.assert_allclose(model(x), plain(x), atol=1e-6)
    # .keras
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.architecture == model.architecture and again.get_layer("left_predictions")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)
    # The record makes the network again.
    rebuilt = getattr(kd, model.architecture["constructor"])(**(SMALL | model.architecture["options"]))
    assert_prefixed(plain, rebuilt, "left_")
    # Pyramid, folding, classifier
    for one, other in zip(kd.feature_pyramid(plain)(x).items(), kd.feature_pyramid(model)(x).items(), strict=True):
        assert one[0] == other[0]
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)
    folded = kd.fold_batchnorm(model)
    assert folded.get_layer("left_conv1_conv") and folded.architecture["options"]["layer_prefix"] == "left_"
    np.testing.assert_allclose(folded(x), model(x), atol=1e-5)
    new = kd.replace_classifier(model, 7)
    assert new.layers[-1].name == "left_predictions" and new(x).shape == (2, 7)


@pytest.mark.parametrize("up_to", ["conv2_block1_out", "left_conv2_block1_out"])
def test_freezing_with_or_without_the_prefix(up_to):
    plain = kd.freeze(tiny(), "conv2_block1_out")
    model = kd.freeze(tiny(layer_prefix="left_"), up_to)
    assert [layer.trainable for layer in model.layers] == [layer.trainable for layer in plain.layers]
    assert not model.get_layer("left_conv1_conv").trainable and model.get_layer("left_predictions").trainable
    with pytest.raises(ValueError, match="has no layer 'conv9'"):
        kd.freeze(model, "conv9")


def test_the_diagram_does_not_show_the_prefix():
    from keras_deepnets.insight.diagram import boxes

    assert boxes(tiny(layer_prefix="left_")) == boxes(tiny())
