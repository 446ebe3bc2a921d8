"""What must not be in a graph that other people's servers run."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export, layers
from keras_deepnets.errors import InputError
from keras_deepnets.export import operations, weight_precision
from tests.export.conftest import keras_probabilities, photographs, spread_logits, unsettle

pytestmark = pytest.mark.integration

UNWANTED = ("PyFunc", "Random", "Dropout", "Gradient", "Grad", "Apply", "Summary", "Print", "Custom")


NETWORKS = {
    "plain": lambda: kd.PlainNet20(include_preprocessing=True),
    "residual": lambda: kd.ResNet20(include_preprocessing=True),
    "dense": lambda: kd.DenseNet(
        depth=22, growth_rate=6, stem="cifar", input_shape=(32, 32, 3), classes=10, include_preprocessing=True
    ),
}


def all_nodes(path):
    """Every node of a SavedModel, those of all functions too; and of these, the nodes that a request runs."""
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    (meta,) = model.meta_graphs
    functions = {function.signature.name: function for function in meta.graph_def.library.function}
    assert not any("_XlaMustCompile" in function.attr for function in functions.values())
    served, waiting = [], [name for name in functions if name.startswith("__inference_signature_wrapper")]
    assert len(waiting) == 2
    seen = set(waiting)
    while waiting:
        for node in functions[waiting.pop()].node_def:
            served.append(node)
            called = [attr.func.name for attr in node.attr.values()]
            called += [function.name for attr in node.attr.values() for function in attr.list.func]
            new = {name for name in called if name} - seen
            seen |= new
            waiting += new
    everything = [*meta.graph_def.node, *(node for function in functions.values() for node in function.node_def)]
    return everything, served


@pytest.fixture(scope="module", params=[*NETWORKS, "mixed", "kept", "variables"])
def written(request, tmp_path_factory):
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy("mixed_bfloat16" if request.param == "mixed" else "float32")
    most = weight_precision.MOST_CONSTANTS
    try:
        model = unsettle(NETWORKS.get(request.param, NETWORKS["residual"])())
        model.compile("adam", "sparse_categorical_crossentropy")
        model.train_on_batch(np.zeros((2, 32, 32, 3)), np.zeros(2))
        if request.param == "variables":
            weight_precision.MOST_CONSTANTS = 0
        return export.saved_model(model, tmp_path_factory.mktemp("graph"), fold=request.param != "kept")
    finally:
        weight_precision.MOST_CONSTANTS = most
        keras.config.set_dtype_policy("float32")


def test_nothing_of_training_of_python_or_of_one_machine_is_in_it(written):
    known = {name for name in dir(tf.raw_ops) if not name.startswith("_")}
    everything, served = all_nodes(written)
    assert "Conv2D" in {node.op for node in served}
    for node in served:  # what saves and restores is TensorFlow's own, and runs on the CPU everywhere
        assert not node.device, f"{node.name} is placed on {node.device}"
    for node in everything:
        assert not any(word in node.op for word in UNWANTED), node.op
        assert "_XlaMustCompile" not in node.attr or not node.attr["_XlaMustCompile"].b
        if node.op.startswith("FusedBatchNorm"):
            assert not node.attr["is_training"].b
        assert node.op in known, f"{node.op} is no operation of TensorFlow's own"
    content = (written / "saved_model.pb").read_bytes()
    for word in (b"_XlaMustCompile", b"optimizer", b"adam", b"seed_generator"):
        assert word not in content
    names = [name for name, _ in tf.train.list_variables(str(written / "variables/variables"))]
    assert not [name for name in names if "optimizer" in name.lower() or "adam" in name.lower()]


def test_the_batch_is_free_everywhere(written):
    loaded = tf.saved_model.load(str(written))
    for signature in loaded.signatures.values():
        for spec in [*signature.structured_input_signature[1].values(), *signature.structured_outputs.values()]:
            assert spec.shape[0] is None
    for count in (1, 3):
        found = loaded.signatures["serving_images"](images=tf.zeros([count, 32, 32, 3], tf.uint8))
        assert found["probabilities"].shape == (count, 10)
        encoded = tf.fill([count], tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)))
        assert loaded.signatures["serving_default"](image_bytes=encoded)["labels"].shape == (count,)


def test_the_weights_are_constants_that_convolutions_can_lay_out_once(written, request):
    _, served = all_nodes(written)
    variables = "variables" in request.node.callspec.id
    assert ("ReadVariableOp" in {node.op for node in served}) == variables
    weights = sum(
        np.prod([size.size for size in node.attr["value"].tensor.tensor_shape.dim])
        for node in served
        if node.op == "Const"
    )
    assert (weights < 10_000) if variables else (weights > 15_000)


def test_a_network_of_mixed_precision_gives_what_its_float32_twin_gives(tmp_path):
    images = photographs(6, 32, 32)
    full = unsettle(kd.ResNet20(include_preprocessing=True))
    spread_logits(full, images)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = kd.ResNet20(include_preprocessing=True)
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(full.get_weights())
    paths = [export.saved_model(model, tmp_path / name) for model, name in ((full, "full"), (mixed, "mixed"))]
    one, other = (export.predict(path, images)["probabilities"] for path in paths)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, keras_probabilities(full, images), atol=1e-5)


def test_saved_model_cli_shows_it(small, tmp_path):
    path = export.saved_model(small, tmp_path)
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--dir", str(path)]
    command += ["--tag_set", "serve", "--signature_def", "serving_default"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "inputs['image_bytes'] tensor_info:\n      dtype: DT_STRING\n      shape: (-1)" in shown
    assert "outputs['probabilities'] tensor_info:\n      dtype: DT_FLOAT\n      shape: (-1, 4)" in shown


def test_the_session_loader_restores_it(written):
    """What C++ servers do: restore whatever variables there are, run the initialiser, feed and fetch by name."""
    images = photographs(2, 32, 32)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(written))
        signature = meta.signature_def["serving_images"]
        fetched = session.run(signature.outputs["probabilities"].name, {signature.inputs["images"].name: images})
    np.testing.assert_allclose(fetched, export.predict(written, images)["probabilities"], atol=1e-6)


def with_layer(layer):
    inputs = keras.Input((16, 16, 3))
    x = layers.conv_bn_relu(inputs, 4, 3, strides=2, name="one")
    x = layers.pool_features(layer(x), "avg")
    return keras.Model(inputs, layers.classifier(x, 3, "softmax"), name="own")


@keras.saving.register_keras_serializable("tests")
class InPython(keras.layers.Layer):
    """Runs NumPy, in one of the ways that TensorFlow has for it."""

    def __init__(self, way="numpy_function", **kwargs):
        super().__init__(**kwargs)
        self.way = way

    def get_config(self):
        return super().get_config() | {"way": self.way}

    def call(self, inputs):
        return tf.ensure_shape(getattr(tf, self.way)(np.abs, [inputs], tf.float32), inputs.shape)


@pytest.mark.parametrize("way", ["numpy_function", "py_function"])
@pytest.mark.parametrize("options", [{}, {"fold": False, "top_k": 2}])
def test_a_layer_that_runs_python_is_refused(way, options, tmp_path):
    with pytest.raises(
        InputError, match=r"^own runs Python at '.*abs_in_numpy.*PyFunc' .* a server lacks; write"
    ) as error:
        export.saved_model(with_layer(InPython(way, name="abs_in_numpy")), tmp_path / "new", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


def test_operations_that_tensorflow_does_not_come_with_are_refused():
    graph = tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([2])).graph.as_graph_def()
    operations.check(graph, "own")
    graph.library.function.add().node_def.add(name="layer/Zero", op="ZeroOut")
    with pytest.raises(
        InputError, match=r"^own has the operation ZeroOut at 'layer/Zero', which is not part of TensorFlow"
    ):
        operations.check(graph, "own")


@keras.saving.register_keras_serializable("tests")
class Forgetful(keras.layers.Layer):
    """Its config lacks what its constructor needs."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self):
        return super().get_config()

    def call(self, inputs):
        return self.factor * inputs


@pytest.mark.parametrize("options", [{}, {"fold": False, "precision": "bfloat16"}])
def test_a_layer_that_its_config_does_not_make_again_is_named(options, tmp_path):
    message = r"^layer 'half' \(Forgetful\) cannot be recreated .*missing 1 required positional argument: 'factor'\); its get_config"
    with pytest.raises(InputError, match=message) as error:
        export.saved_model(with_layer(Forgetful(0.5, name="half")), tmp_path / "new", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()
