"""Copies, parts and models around a network know what they are and how their input is scaled, or exports refuse them."""

import json
import warnings

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.models import DeepNet, begins_like_ours, includes_preprocessing, scaling_of

LABELS = ["ant", "bee", "cat", "dog"]
SCALING = kd.Scaling((10, 20, 30), (40, 50, 60), "BGR", 0.9)


def tiny(**kwargs):
    return kd.ResNet(
        **({"blocks": (1, 1), "filters": (8, 16), "stem": "cifar", "input_shape": (16, 16, 3), "classes": 4} | kwargs)
    )


def labelled(**kwargs):
    model = tiny(**kwargs)
    model.labels, model.scaling = LABELS, SCALING
    return model


def with_gelu(layer):
    config = layer.get_config()
    if config.get("activation") == "relu":
        config["activation"] = "gelu"
    return type(layer).from_config(config)


COPIES = {
    "clone": keras.models.clone_model,
    "clone with a function": lambda model: keras.models.clone_model(model, clone_function=with_gelu),
    "clone sharing layers": lambda model: keras.models.clone_model(model, clone_function=lambda layer: layer),
    "clone on an input": lambda model: keras.models.clone_model(model, input_tensors=keras.Input((16, 16, 3))),
    "clone on a tensor": lambda model: keras.models.clone_model(
        model, input_tensors=keras.layers.RandomFlip()(keras.Input((16, 16, 3)))
    ),
    "from_config": lambda model: type(model).from_config(model.get_config()),
    "from JSON": lambda model: keras.models.model_from_json(model.to_json()),
    "serialised": lambda model: keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model)),
}


@pytest.mark.parametrize("blocks", [False, True], ids=["layers", "blocks"])
@pytest.mark.parametrize("copy", COPIES)
def test_copies_carry_the_record(copy, blocks):
    model = labelled(block_layers=blocks, layer_prefix="left_")
    again = COPIES[copy](model)
    assert isinstance(again, DeepNet)
    assert again.architecture == model.architecture
    assert again.labels == tuple(LABELS) and again.scaling == SCALING
    assert json.dumps(again.get_config()["record"]) == json.dumps(model.get_config()["record"])
    again.scaling = kd.Scaling((0, 0, 0), (1, 1, 1))
    again.labels = list("abcd")
    assert model.scaling == SCALING and model.labels == tuple(LABELS)


def test_a_clone_exports_as_the_original_does(tmp_path, rng):
    model = labelled()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    images = rng.integers(0, 256, (3, 16, 16, 3)).astype("uint8")
    paths = [export.saved_model(net, tmp_path / name) for net, name in ((model, "model"), (clone, "clone"))]
    first, second = (export.predict(path, images) for path in paths)
    np.testing.assert_allclose(first["probabilities"], second["probabilities"], atol=1e-6)
    expected = model(SCALING.apply(images.astype("float32")))
    np.testing.assert_allclose(second["probabilities"], expected, atol=1e-5)
    assert set(second["labels"]) <= set(LABELS)


def test_copies_of_what_is_made_of_a_network():
    model = labelled()
    for net in (kd.feature_pyramid(model), kd.replace_classifier(model, 7), kd.fold_batchnorm(model)):
        clone = keras.models.clone_model(net)
        assert clone.scaling == SCALING and clone.architecture == net.architecture
    # A clone with another classifier has not the labels of the first.
    head = keras.layers.Dense(9, name="predictions")
    clone = keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            head if layer.name == "predictions" else type(layer).from_config(layer.get_config())
        ),
    )
    assert clone.labels is None and clone.output_shape == (None, 9)


def test_nested_networks_are_cloned_with_their_record():
    outer = keras.Sequential([keras.Input((16, 16, 3)), labelled(name="inner")])
    for recursive in (False, True):
        clone = keras.models.clone_model(
            outer, clone_function=lambda layer: type(layer).from_config(layer.get_config())
        )
        clone = keras.models.clone_model(outer, recursive=True) if recursive else clone
        assert clone.get_layer("inner").scaling == SCALING
        assert scaling_of(clone) == SCALING


def test_parts_of_a_network():
    model = labelled()
    part = keras.Model(model.input, keras.layers.Dense(3)(model.get_layer("avg_pool").output))
    assert scaling_of(part) == SCALING
    model.scaling = None
    assert scaling_of(part) is None
    inside = tiny(include_preprocessing=SCALING)
    part = keras.Model(inside.input, inside.get_layer("conv2_block1_out").output)
    assert scaling_of(part) == SCALING and includes_preprocessing(part)
    # Two networks on one input: known where both say the same.
    inputs = keras.Input((16, 16, 3))
    nets = [tiny(input_tensor=inputs, input_shape=None, layer_prefix=prefix) for prefix in ("a_", "b_")]
    both = keras.Model(inputs, keras.layers.Average()([net.output for net in nets]))
    assert scaling_of(both) == nets[0].scaling
    nets[0].scaling = SCALING
    assert scaling_of(both) is None


def test_models_that_begin_with_a_network():
    def around(*before):
        return keras.Sequential([keras.Input((16, 16, 3)), *before, labelled()])

    for model in (around(), around(keras.layers.RandomFlip(), keras.layers.Resizing(16, 16))):
        assert scaling_of(model) == SCALING and not includes_preprocessing(model)
    for model in (around(keras.layers.Rescaling(1 / 255)), around(keras.layers.Normalization())):
        assert scaling_of(model) is None and includes_preprocessing(model)
    model = around(keras.layers.Conv2D(3, 1))
    assert scaling_of(model) is None and not includes_preprocessing(model)
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(labelled()(keras.layers.RandomFlip()(inputs))))
    assert scaling_of(model) == SCALING
    # The constructor does not ask for a scaling that has been done.
    assert tiny(input_shape=None, input_tensor=keras.layers.Rescaling(1 / 255)(inputs)).scaling is None
    assert tiny(input_shape=None, input_tensor=keras.layers.RandomFlip()(inputs)).scaling is not None


def bare(model):
    """What Keras makes of a config when it is asked for a plain model: no record."""
    return keras.Model.from_config(model.get_config())


@pytest.mark.parametrize(
    "write", [export.saved_model, lambda m, p: export.tflite(m, p / "m.tflite")], ids=["saved", "lite"]
)
@pytest.mark.parametrize(
    "build",
    [
        lambda: bare(labelled()),
        lambda: bare(kd.DenseNet(blocks=(1, 1), growth_rate=4, stem="cifar", input_shape=(16, 16, 3))),
        lambda: bare(kd.FitNet1(input_shape=(16, 16, 3), layer_prefix="a_")),
        lambda: bare(kd.Highway(filters=(8, 8), convolutions=(2, 2), input_shape=(16, 16, 3))),
        lambda: tiny(input_shape=(16, 16, 1)),
    ],
    ids=["residual", "dense", "maxout", "highway", "another number of channels"],
)
def test_export_refuses_what_it_cannot_scale(build, write, tmp_path):
    model = build()
    channels = model.input_shape[-1]
    message = r"it is not known how this network's input is scaled; set model\.scaling ="
    with pytest.raises(kd.InputError, match=message) as caught:
        write(model, tmp_path / "new")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    # Both ways out that the message names.
    for advised in (
        f"keras_deepnets.Scaling({(1,) * channels}, {(2,) * channels})",
        str(caught.value).split(" or = ")[1].split(" for ")[0],
    ):
        model.scaling = eval(advised, {"keras_deepnets": kd})
        export.classifier.classifier_of(model)


def test_export_says_where_a_strangers_scaling_is_not_known(tmp_path):
    inputs = keras.Input((8, 8, 3))

    def ending(x):
        return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)), name="own")

    with pytest.warns(
        UserWarning, match="own: it is not known how its input is scaled, so the artifact gives it pixels 0–255"
    ):
        export.classifier.classifier_of(ending(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export.classifier.classifier_of(ending(keras.layers.Rescaling(1 / 255)(inputs)))  # the message's ways out
        model = ending(inputs)
        model.scaling = kd.Scaling((0, 0, 0), (255, 255, 255))
        export.classifier.classifier_of(model)


FAMILIES = {
    "googlenet": lambda: kd.GoogLeNet(modules=[[[4, 4, 8, 4, 8, 4]]], input_shape=(32, 32, 3)),
    "bninception": lambda: kd.BNInception(modules=[[[4, 4, 8, 4, 8, 4]]], input_shape=(32, 32, 3)),
    "vgg": lambda: kd.VGG(convolutions=(1,), filters=(4,), batch_norm=True, include_top=False, input_shape=(16, 16, 3)),
    "nin": lambda: kd.NIN(input_shape=(8, 8, 3)),
    "dsn": lambda: kd.DSN(input_shape=(8, 8, 3), auxiliary=True),
    "all-cnn": lambda: kd.AllCNN_A(input_shape=(16, 16, 3)),
    "fractalnet": lambda: kd.FractalNet(filters=(4,), dropout=0.1, columns=2, input_shape=(8, 8, 3)),
    "maxout": lambda: kd.MaxoutCNN(filters=(4, 4, 4), hidden=(8,), include_top=False),
    "prelu": lambda: kd.PReLUNet(
        convolutions=(1,), filters=(4,), stem_filters=4, hidden=(8,), include_top=False, input_shape=(32, 32, 3)
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_that_lost_their_record_are_known_by_their_layers(name):
    network = FAMILIES[name]()
    copy = keras.Model.from_config(keras.Model(network.inputs, network.outputs).get_config())
    assert begins_like_ours(copy) and scaling_of(copy) is None


def test_optimizers_of_pytorch_are_found_elsewhere(tmp_path, monkeypatch):
    """Under PyTorch, Keras writes the module of torch's variant. Loading it imports torch, which may not be there."""
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3), classes=3)
    model.compile(keras.optimizers.SGD(0.25, momentum=0.5), "sparse_categorical_crossentropy")
    config = keras.Model.get_compile_config(model)
    of_torch = {"module": "keras.src.backend.torch.optimizers.torch_sgd", "registered_name": "SGD"}
    written = config | {"optimizer": config["optimizer"] | of_torch}
    monkeypatch.setattr(keras.Model, "get_compile_config", lambda self: written)
    model.save(tmp_path / "model.keras")
    monkeypatch.undo()
    optimizer = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert type(optimizer) is keras.optimizers.SGD
    assert (float(optimizer.learning_rate), optimizer.momentum) == (0.25, 0.5)
