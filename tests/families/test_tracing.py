"""The training step is traced once, also with metrics that are given by name. The numbers are Keras'."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd

pytestmark = pytest.mark.integration


def network(keras_model=False, **options):
    keras.utils.set_random_seed(3)
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3), classes=10, **options)
    return keras.Model(model.input, model.output) if keras_model else model


def counted(model, method):
    """Count the traces of a step."""
    calls, step = [], getattr(model, method)
    setattr(model, method, lambda data: calls.append(1) or step(data))
    return calls


@pytest.fixture
def batch(rng):
    return rng.normal(size=(32, 8, 8, 3)).astype("float32"), np.arange(32) % 10


@pytest.mark.parametrize("sparse", [True, False])
def test_named_metrics_are_those_of_keras_and_one_trace(batch, sparse):
    x, y = batch
    y = y if sparse else np.eye(10, dtype="float32")[y]
    loss = "sparse_categorical_crossentropy" if sparse else "categorical_crossentropy"
    found = []
    for keras_model in (False, True):
        model = network(keras_model)
        model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
        traces, tests = counted(model, "train_step"), counted(model, "test_step")
        history = model.fit(x, y, batch_size=16, epochs=2, shuffle=False, validation_data=(x, y), verbose=0).history
        assert (len(traces), len(tests)) == ((1, 1) if not keras_model else (2, 1))
        found.append(history)
    assert list(found[0]) == list(found[1]) and len(found[0]) == 6
    for name, values in found[0].items():
        np.testing.assert_allclose(values, found[1][name], rtol=1e-3, atol=1e-6, err_msg=name)
    assert 0 < found[0]["accuracy"][-1] < 1


def test_one_trace_on_a_batch_and_in_evaluation(batch):
    for call, method in (("train_on_batch", "train_step"), ("test_on_batch", "test_step")):
        model = network()
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        traces = counted(model, method)
        loss, accuracy = getattr(model, call)(*batch)
        assert len(traces) == 1 and loss > 0 and accuracy * 32 == pytest.approx(round(float(accuracy) * 32))


def recorded(model, method, graphs):
    """Record at each trace of a step whether it is inside another function."""
    step = getattr(model, method)

    def recorded_step(data):
        graphs.append(tf.compat.v1.get_default_graph().outer_graph.building_function)
        return step(data)

    setattr(model, method, recorded_step)


@pytest.mark.parametrize(("options", "inside"), [({}, False), ({"steps_per_execution": 2}, True)])
def test_a_step_is_one_function(batch, options, inside):
    """The function of a batch is not inside a function of the iterator. Data of unknown length ends as in Keras."""
    data = tf.data.Dataset.from_tensor_slices(batch).filter(lambda x, y: y < 8).batch(16)  # 26 images: two batches
    found, graphs = [], []
    for keras_model in (False, True):
        model = network(keras_model)
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", **options)
        recorded(model, "train_step", graphs)
        recorded(model, "test_step", graphs)
        history = model.fit(data, epochs=2, validation_data=data, verbose=0).history
        found.append([*history["loss"], *history["val_loss"], model.evaluate(data, verbose=0)])
        if not keras_model:
            assert set(graphs) == {inside} and (inside or len(graphs) == 2)  # also for a smaller last batch
            assert inside or int(model.optimizer.iterations) == 4  # Keras counts the end of the data as a step
    assert set(graphs) == {inside, True}
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_auxiliary_classifiers(batch):
    x, y = batch
    model = kd.DSN(input_shape=(8, 8, 3), classes=10, auxiliary=True)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    traces = counted(model, "train_step")
    assert sorted(model.train_on_batch(x, y, return_dict=True)) == ["accuracy", "loss"]
    assert len(traces) == 1


def test_a_wrong_metric_is_reported_as_by_keras(batch):
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["nothing"])
    with pytest.raises(ValueError, match="nothing"):
        model.train_on_batch(*batch)


def test_without_a_graph(batch):
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    assert len(model.train_on_batch(*batch)) == 2


@pytest.mark.parametrize(("family", "depth", "most"), [("ResNet", 20, 14), ("DenseNet", 22, 20)])
def test_a_step_is_a_small_graph(batch, family, depth, most):
    """The first step mostly creates operations: at most `most` for each variable."""
    model = getattr(kd, family)(depth=depth, stem="cifar", input_shape=(8, 8, 3))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    model.train_on_batch(*batch)
    graph = tf.function(lambda x, y: model.train_step((x, y))).get_concrete_function(*batch).graph
    assert len(graph.get_operations()) < most * len(model.trainable_variables)
