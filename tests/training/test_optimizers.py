"""Coupled L2 against the papers' formula, written out in NumPy in double precision."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_deepnets.training import CoupledSGD, OneCycle, get_recipe
from keras_deepnets.training.optimizers import Lamb, optimizer

SHAPES = ((3, 3, 2, 4), (4,), (4, 5), (5,))


def reference(weights, gradients, rates, momentum, nesterov, l2, on):
    """SGD on loss + l2 / 2 * ||w||²: He et al. 2015, section 3.4; Nesterov as in Sutskever et al. 2013, without dampening."""
    weights = [weight.astype(np.float64) for weight in weights]
    velocity = [np.zeros_like(weight) for weight in weights]
    for step, rate in enumerate(rates):
        for at, weight in enumerate(weights):
            decay = l2 if on == "all" or weight.ndim >= 2 else 0.0
            gradient = gradients[step][at] + decay * weight
            velocity[at] = momentum * velocity[at] + gradient
            weights[at] = weight - rate * (gradient + momentum * velocity[at] if nesterov else velocity[at])
    return weights


@pytest.fixture
def problem(rng):
    weights = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    gradients = [[rng.normal(size=shape).astype("float32") for shape in SHAPES] for _ in range(7)]
    return weights, gradients


@pytest.mark.parametrize("on", ["all", "kernels"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps(problem, momentum, nesterov, on):
    weights, gradients = problem
    variables = [keras.Variable(weight) for weight in weights]
    made = CoupledSGD(0.1, momentum, nesterov and momentum > 0, l2=0.05, l2_on=on)
    for step in gradients:
        made.apply([keras.ops.convert_to_tensor(gradient) for gradient in step], variables)
    expected = reference(weights, gradients, [0.1] * 7, momentum, nesterov and momentum > 0, 0.05, on)
    for variable, weight in zip(variables, expected, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), weight, rtol=2e-5, atol=2e-6)


def test_a_changing_rate_multiplies_the_gradient_as_it_enters_the_velocity(problem):
    """As in Keras and in Caffe, which He et al. used; torch multiplies the velocity instead."""
    weights, gradients = problem
    variables = [keras.Variable(weight) for weight in weights]
    made = CoupledSGD(OneCycle(0.1, 7, 0.0), 0.9, True, l2=0.05)
    velocity = [np.zeros_like(weight) for weight in weights]
    expected = [weight.astype(np.float64) for weight in weights]
    for step, some in enumerate(gradients):
        made.apply([keras.ops.convert_to_tensor(gradient) for gradient in some], variables)
        rate = 0.1 * (7 - step) / 7
        for at, gradient in enumerate(some):
            gradient = gradient + 0.05 * expected[at]
            velocity[at] = 0.9 * velocity[at] - rate * gradient
            expected[at] = expected[at] + 0.9 * velocity[at] - rate * gradient
    for variable, weight in zip(variables, expected, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), weight, rtol=2e-5, atol=2e-6)


def test_stronger_than_keras_decoupled_decay():
    """Without gradient, the coupled penalty moves a weight 1 / (1 - momentum) times as far in the long run."""
    coupled, decoupled = keras.Variable([[1.0]]), keras.Variable([[1.0]])
    ours = CoupledSGD(0.01, 0.9, l2=1e-3)
    keras_own = keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=1e-3)
    for _ in range(300):
        ours.apply([keras.ops.zeros((1, 1))], [coupled])
        keras_own.apply([keras.ops.zeros((1, 1))], [decoupled])
    ratio = (1 - float(coupled[0][0])) / (1 - float(decoupled[0][0]))
    assert 9.0 < ratio < 10.0


def test_loss_scale_and_accumulation_leave_the_penalty_as_it_is(problem):
    weights, gradients = problem
    expected = reference(
        weights, [[(a + b) / 2 for a, b in zip(*gradients[:2], strict=True)]], [0.1], 0.9, False, 0.05, "all"
    )
    variables = [keras.Variable(weight) for weight in weights]
    made = CoupledSGD(0.1, 0.9, l2=0.05, loss_scale_factor=8.0, gradient_accumulation_steps=2)
    for step in gradients[:2]:
        made.apply([keras.ops.convert_to_tensor(8 * gradient) for gradient in step], variables)
    for variable, weight in zip(variables, expected, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), weight, rtol=1e-5, atol=1e-6)


def test_inside_a_compiled_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    kernel, bias = model.get_weights()
    model.compile(CoupledSGD(0.1, 0.0, l2=0.5, l2_on="kernels"), "mse")
    x, y = np.ones((2, 4), "float32"), np.zeros((2, 3), "float32")
    model.train_on_batch(x, y)
    error = 2 * (x @ kernel + bias) / 6  # mean over 2 × 3 values
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.1 * (x.T @ error + 0.5 * kernel), rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[1], bias - 0.1 * error.sum(0), rtol=1e-5)


def test_serialises_and_takes_the_recipe():
    made = optimizer(get_recipe("huang2017_cifar", ema=0.999), 100)
    config = keras.saving.serialize_keras_object(made)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, CoupledSGD)
    assert (again.l2, again.l2_on, again.nesterov, again.momentum, again.ema_momentum) == (
        1e-4,
        "all",
        True,
        0.9,
        0.999,
    )
    assert again.get_config() == made.get_config()


_REPLICAS = """
import keras, numpy as np, tensorflow as tf
from keras_deepnets.training import CoupledSGD
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    model.compile(CoupledSGD(0.1, 0.0, l2=0.5), "mse", jit_compile=False)
kernel = model.get_weights()[0]
model.fit(tf.data.Dataset.from_tensors((np.zeros((2, 4), "float32"), np.zeros((2, 3), "float32"))), verbose=0)
np.testing.assert_allclose(model.get_weights()[0], kernel * (1 - 0.1 * 0.5), rtol=1e-5)
"""


@pytest.mark.slow
def test_replicas_do_not_multiply_the_penalty():
    """Gradients are summed over replicas; the penalty must not be."""
    subprocess.run([sys.executable, "-c", _REPLICAS], check=True, timeout=200)


@pytest.mark.parametrize("on", ["all", "kernels"])
def test_lamb(problem, on):
    """You et al. 2019, Algorithm 2, in double precision; gradients of a global norm of at most 1, as timm has it."""
    weights, gradients = problem
    variables = [keras.Variable(weight) for weight in weights]
    made = Lamb(0.01, weight_decay=0.02, decay_on=on)
    expected = [weight.astype(np.float64) for weight in weights]
    first, second = ([np.zeros_like(weight) for weight in expected] for _ in range(2))
    for step, some in enumerate(gradients, start=1):
        made.apply([keras.ops.convert_to_tensor(gradient) for gradient in some], variables)
        norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in some))
        for at, gradient in enumerate(some):
            gradient = gradient / max(norm, 1.0)
            first[at] = 0.9 * first[at] + 0.1 * gradient
            second[at] = 0.999 * second[at] + 0.001 * gradient**2
            update = first[at] / (1 - 0.9**step) / (np.sqrt(second[at] / (1 - 0.999**step)) + 1e-6)
            trust = 1.0
            if on == "all" or expected[at].ndim >= 2:
                update = update + 0.02 * expected[at]
                trust = np.linalg.norm(expected[at]) / np.linalg.norm(update)
            expected[at] = expected[at] - 0.01 * trust * update
    for variable, weight in zip(variables, expected, strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), weight, rtol=1e-4, atol=1e-5)
    again = Lamb.from_config(made.get_config())
    assert (again.decay, again.decay_on, again.global_clipnorm) == (0.02, on, 1.0)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "muon"])
def test_the_average_of_a_short_run_forgets_the_first_weights(name):
    """The decay of step n is (1 + n) / (10 + n), at most `ema_momentum`."""
    variable = keras.Variable(np.zeros(2, "float32"))
    recipe = get_recipe(
        "huang2017_cifar", optimizer=name, ema=0.6, learning_rate=1.0, schedule="constant", momentum=0.0
    )
    made = optimizer(recipe, 12)
    average = np.zeros(2)
    for step in range(12):
        made.apply([keras.ops.convert_to_tensor(np.array([-1.0, -2.0], "float32"))], [variable])
        decay = min(0.6, (1 + step) / (10 + step)) if step else 0.0
        average = decay * average + (1 - decay) * keras.ops.convert_to_numpy(variable)
    assert abs(keras.ops.convert_to_numpy(variable)).min() > 1
    made.finalize_variable_values([variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), average, rtol=1e-5)
