"""Fast paths: each agrees with its plain twin, and can be turned off."""

import ast
import collections
import contextlib
import functools
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.layers import block_graph, fast
from keras_deepnets.layers.fast import notes, sums
from keras_deepnets.training import CoupledSGD

PACKAGE = Path(kd.__file__).parent

NETWORKS = {
    "basic": lambda: kd.ResNet(depth=8, stem="cifar", shortcut="D", input_shape=(16, 16, 3)),
    "bottleneck": lambda: kd.ResNet(
        blocks=(1, 1), filters=(24, 48), block="bottleneck", stem="cifar", input_shape=(16, 16, 3)
    ),
    "preactivation": lambda: kd.PreActResNet(depth=11, block="bottleneck", stem="cifar", input_shape=(16, 16, 3)),
    "grouped": lambda: kd.ResNeXt(
        blocks=(1, 1), filters=(64, 128), stem="cifar", groups=4, base_width=4, input_shape=(16, 16, 3)
    ),
    "dense": lambda: kd.DenseNet(depth=16, growth_rate=12, stem="cifar", input_shape=(16, 16, 3)),
    "dense, recomputed": lambda: kd.DenseNet(
        depth=10, growth_rate=12, stem="cifar", memory_efficient=True, input_shape=(16, 16, 3)
    ),
    "blocks": lambda: kd.ResNet(depth=8, stem="cifar", block_layers=True, input_shape=(16, 16, 3)),
    "highway": lambda: kd.Highway(filters=(16, 16), convolutions=(2, 2), hidden=20, input_shape=(16, 16, 3)),
    "maxout": lambda: kd.FitNet(filters=((16, 16), (32,)), hidden=20, input_shape=(16, 16, 3)),
    "rectified": lambda: kd.PReLUNet(
        convolutions=(1, 1), filters=(16, 16), stem_filters=16, hidden=(16,), classes=10, input_shape=(16, 16, 3)
    ),
    "local response": lambda: kd.GoogLeNet(modules=[[[16, 8, 16, 8, 16, 8]]], classes=10, input_shape=(16, 16, 3)),
}


def trained(name, dtype, *off):
    """Two steps of SGD with momentum without the paths `off`: losses, outputs afterwards, and how often each operation is in the step."""
    block_graph.block_graph.cache_clear()  # its functions keep what they were traced with
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    images = tf.constant(np.random.default_rng(0).random((4, 16, 16, 3), np.float32))
    labels = tf.constant([0, 1, 2, 3])

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    try:
        with fast.without(*off) if off else contextlib.nullcontext():
            model = NETWORKS[name]()
            optimizer = CoupledSGD(0.05, momentum=0.9)
            optimizer.build(model.trainable_variables)
            losses = [float(step()) for _ in range(2)]
            graph = step.get_concrete_function().graph.as_graph_def()
            nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
            outputs = model(images, training=False).numpy()
            return losses, outputs, collections.Counter(node.op for node in nodes)
    finally:
        keras.config.set_dtype_policy("float32")
        block_graph.block_graph.cache_clear()


@pytest.mark.integration
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_the_same_without_fast_paths(name):
    loss, outputs, _ = trained(name, "float32")
    plain_loss, plain_outputs, _ = trained(name, "float32", *fast.PATHS)
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-4)
    np.testing.assert_allclose(outputs, plain_outputs, atol=2e-3)


IN_HALF_PRECISION = {
    "fused_batch_norm": "basic",
    "channel_padding": "dense",
    "shared_statistics": "dense",
    "grouped_convolution": "grouped",
    "pointwise_gradient": "bottleneck",
    "pooling_first": "dense",
    "relu_of_sum": "bottleneck",
    "prelu": "rectified",
    "local_response": "local response",
    "concatenation_gradient": "dense",
    "recomputation": "dense, recomputed",
    "shared_functions": "blocks",
    "momentum": "basic",
    "variable_names": "basic",
}
"""Each path and a network that takes it in mixed bfloat16."""


with_all_paths = functools.cache(functools.partial(trained, dtype="mixed_bfloat16"))


OF_DETECTORS = {"combined_suppression", "region_align"}
"""`tests/detection` compares these with their twins (`test_suppression`, `test_region_align`)."""


def test_every_path_is_compared():
    assert IN_HALF_PRECISION.keys() | OF_DETECTORS == fast.PATHS.keys()


@pytest.mark.parametrize("path", IN_HALF_PRECISION)
def test_each_path_changes_the_computation_and_not_the_result(path, monkeypatch):
    monkeypatch.setattr(sums, "FUSED_ELEMENTS", 1)  # of which these maps are too small
    name = IN_HALF_PRECISION[path]
    loss, outputs, operations = with_all_paths(name)
    plain_loss, plain_outputs, plain_operations = trained(name, "mixed_bfloat16", path)
    assert (operations != plain_operations) == (path != "variable_names")
    np.testing.assert_allclose(loss, plain_loss, rtol=0.03)
    np.testing.assert_allclose(outputs, plain_outputs, atol=0.06)


def test_every_path_says_what_it_replaces():
    for path in fast.PATHS.values():
        assert path.replaces and path.twin and path.condition and path.gain


def test_internals_are_asked_for_in_one_package():
    """`tensorflow.python`, `tensorflow.compiler` and `keras.src` are imported in `layers/fast` and nowhere else."""
    found = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            if any(name.startswith(("tensorflow.python", "tensorflow.compiler", "keras.src")) for name in names):
                found.add(file.relative_to(PACKAGE).as_posix())
    assert found == {"layers/fast/internals.py"}


@pytest.mark.parametrize(
    ("text", "off"),
    [("", set()), ("1", set()), ("0", set(fast.PATHS)), ("-momentum, -relu_of_sum", {"momentum", "relu_of_sum"})],
)
def test_the_switch(text, off, monkeypatch):
    monkeypatch.setenv(fast.VARIABLE, text)
    fast._switched_off.cache_clear()
    try:
        assert {name for name in fast.PATHS if not fast.on(name)} == off
    finally:
        fast._switched_off.cache_clear()


@pytest.mark.parametrize("text", ["momentum", "-speed", "2", "-momentum,"])
def test_a_switch_that_is_not_understood(text, monkeypatch):
    monkeypatch.setenv(fast.VARIABLE, text)
    fast._switched_off.cache_clear()
    try:
        with pytest.raises(InputError, match=f"{fast.VARIABLE}=.*give 0, 1, or some of -fused_batch_norm"):
            fast.on("momentum")
    finally:
        fast._switched_off.cache_clear()


def test_a_path_whose_internals_are_gone_is_off_and_says_so_once():
    code = """
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
del gen_xla_ops.xla_optimization_barrier
import numpy as np, keras_deepnets as kd
model = kd.DenseNet(depth=10, growth_rate=4, stem="cifar", memory_efficient=True, input_shape=(16, 16, 3))
model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
print(model.train_on_batch(np.zeros((2, 16, 16, 3)), np.array([0, 1])))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) > 0
    said = [line for line in run.stderr.splitlines() if line.startswith("keras_deepnets:")]
    missing = "tensorflow.compiler.tf2xla.ops.gen_xla_ops.xla_optimization_barrier"
    assert said == [f"keras_deepnets: fast path 'recomputation' is off: this version of TensorFlow has no {missing}."]


def test_notes_count_in_their_own_graph_only():
    found = {}

    @tf.function(autograph=False)
    def run(x):
        wide = tf.pad(x, [[0, 0], [0, 2]])
        cut = wide[:, :1]
        notes.attach(cut, notes.Wide(wide))
        found["same"] = notes.read(cut, notes.Wide).tensor is wide
        found["another kind"] = notes.read(cut, notes.Parts)
        found["another tensor"] = notes.read(tf.identity(cut), notes.Wide)
        found["a branch"] = []
        tf.cond(tf.constant(True), lambda: found["a branch"].append(notes.read(cut, notes.Wide)) or cut, lambda: cut)
        return cut

    run(tf.ones([1, 1]))
    assert found == {"same": True, "another kind": None, "another tensor": None, "a branch": [None]}
    eager = tf.ones([1])
    notes.attach(eager, notes.Wide(eager))
    assert notes.read(eager, notes.Wide) is None
