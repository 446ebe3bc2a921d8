"""Momentum in one op a variable: the numbers are Keras'."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.training.optimizers import CoupledSGD


def small():
    return kd.ResNet(depth=8, stem="cifar", shortcut="A", input_shape=(16, 16, 3), classes=5)


def batch(rng):
    return rng.normal(size=(8, 16, 16, 3)).astype("float32"), np.arange(8) % 5


def trained(optimizer, rng_seed=0, keras_model=False, **compile_kwargs):
    keras.utils.set_random_seed(3)
    model = small()
    if keras_model:
        model = keras.Model(model.input, model.output)
    model.compile(optimizer, "sparse_categorical_crossentropy", **compile_kwargs)
    x, y = batch(np.random.default_rng(rng_seed))
    for _ in range(3):
        model.train_on_batch(x, y)
    return model


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"weight_decay": 1e-2},
        {"clipnorm": 0.1},
        {"use_ema": True, "ema_momentum": 0.9},
        {"gradient_accumulation_steps": 3},
    ],
)
def test_weights_and_momenta_are_those_of_keras_sgd(nesterov, kwargs):
    def make():
        return keras.optimizers.SGD(0.05, momentum=0.9, nesterov=nesterov, name="sgd", **kwargs)

    # A plain Keras model on the same layers keeps Keras' composed update.
    ours, theirs = trained(make()), trained(make(), keras_model=True)
    assert "update_step" in vars(ours.optimizer) and "update_step" not in vars(theirs.optimizer)
    for mine, other in zip(
        ours.weights + ours.optimizer.variables, theirs.weights + theirs.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6, err_msg=mine.path)
    assert ours.optimizer.get_config() == theirs.optimizer.get_config()
    assert keras.saving.serialize_keras_object(ours.optimizer) == keras.saving.serialize_keras_object(theirs.optimizer)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_coupled_l2_and_schedules(jit_compile):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 1, 0.5)
    ours = trained(CoupledSGD(schedule, momentum=0.9, l2=1e-2), jit_compile=jit_compile)

    class Composed(CoupledSGD):
        def update_step(self, gradient, variable, learning_rate):
            keras.optimizers.SGD.update_step(
                self, gradient + self.l2 * keras.ops.convert_to_tensor(variable), variable, learning_rate
            )

    theirs = trained(Composed(schedule, momentum=0.9, l2=1e-2), jit_compile=jit_compile)
    for mine, other in zip(
        ours.weights + ours.optimizer.variables, theirs.weights + theirs.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6, err_msg=mine.path)


def test_loss_scaling_and_reloading(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = trained(keras.optimizers.SGD(0.05, momentum=0.9))
    assert "update_step" in vars(model.optimizer.inner_optimizer)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x, y = batch(np.random.default_rng(0))
    for each in (model, again):
        each.train_on_batch(x, y)
    for mine, other in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_learning_rate_can_be_set_later():
    model = trained(keras.optimizers.SGD(0.05, momentum=0.9))
    model.optimizer.learning_rate = 0.0
    model.optimizer.momentums[0].assign(model.optimizer.momentums[0] * 0)
    before = np.array(model.trainable_weights[0])
    model.train_on_batch(*batch(np.random.default_rng(0)))
    np.testing.assert_array_equal(model.trainable_weights[0], before)


def test_a_subclass_keeps_its_own_update_of_all_variables():
    class Counting(keras.optimizers.SGD):
        updates = 0

        def _backend_update_step(self, grads, trainable_variables, learning_rate):
            self.updates += 1
            super()._backend_update_step(grads, trainable_variables, learning_rate)

    assert trained(Counting(0.05, momentum=0.9), run_eagerly=True).optimizer.updates == 3
    assert "_backend_update_step" in vars(trained(CoupledSGD(0.05, momentum=0.9)).optimizer)
