"""What a run shows in TensorBoard beside its numbers: the images that it trains on, and a profile of some steps."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.summary.summary_iterator import summary_iterator
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.training import InputGrid, Profile, feed, train
from tests.training.common import images, network

pytestmark = pytest.mark.integration

SHORT = {"epochs": 3, "batch_size": 32, "learning_rate": 0.1, "augmentation": "pad_crop_flip", "verbose": 0}


def pictures(folder):
    """Every image of the event files under a folder: (run, tag, step, pixels)."""
    return [
        (file.parent.name, value.tag, event.step, tf.io.decode_png(value.tensor.string_val[2]).numpy())
        for file in sorted(folder.rglob("events*"))
        for event in summary_iterator(str(file))
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "images"
    ]


def recorded_steps(path):
    """The steps that a profile's record marks, in order."""
    (file,) = path.glob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(file.read_bytes())
    steps = []
    for plane in space.planes:
        names = {number: item.name for number, item in plane.stat_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            if plane.event_metadata[event.metadata_id].name == "train":
                steps += [stat.int64_value for stat in event.stats if names[stat.metadata_id] == "step_num"]
    return sorted(steps)


def test_the_inputs_are_shown_once(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(network(), images(), "fast", path, callbacks=[Stop()], validation=False, **SHORT)
    shown = (path / "inputs.png").read_bytes()
    train(network(), images(), "fast", path, validation=False, **SHORT)
    assert (path / "inputs.png").read_bytes() == shown
    ((run, tag, step, pixels),) = pictures(path / "tensorboard")
    assert (run, tag, step) == ("train", "inputs", 0)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(path / "inputs.png")))
    # 25 images of 8 × 8, twelve times as large, with 18 pixels of text and gaps of 4.
    assert pixels.shape == (4 + 5 * (96 + 18 + 4), 4 + 5 * (96 + 4), 3) and pixels.dtype == np.uint8
    batch, _ = next(images().batches(32, training=True, augment="pad_crop_flip", seed=0).as_numpy_iterator())
    for at in range(25):
        top, left = 4 + at // 5 * 118, 4 + at % 5 * 100
        cell = pixels[top : top + 96, left : left + 96]
        np.testing.assert_array_equal(cell[5::12, 5::12], batch[at].repeat(3, axis=-1))
        assert cell.std(axis=-1).max() == 0  # grey stays grey
        text = pixels[top + 96 : top + 114, left : left + 96]
        assert text.min() < 120 and (text == 255).mean() > 0.5  # the class, dark on white


def test_showing_the_inputs_disturbs_nothing(tmp_path):
    model, data = network(), images()
    model.compile("sgd", "sparse_categorical_crossentropy")
    ours = data.batches(32, training=True, augment="pad_crop_flip", seed=3)
    callback = InputGrid(
        data.batches(32, training=True, augment="pad_crop_flip", seed=3), data.labels, tmp_path / "a.png"
    )
    callback.set_model(model)
    generator = tf.random.get_global_generator()
    before = random.getstate(), np.random.get_state()[1].copy(), generator.state.numpy(), tf.random.uniform([2]).numpy()
    keras.utils.set_random_seed(0)
    first = tf.random.uniform([2]).numpy()
    keras.utils.set_random_seed(0)
    random.setstate(before[0])
    np.random.set_state(("MT19937", before[1], 624))
    callback.on_train_begin()
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    np.testing.assert_array_equal(generator.state.numpy(), before[2])
    np.testing.assert_array_equal(tf.random.uniform([2]).numpy(), first)
    again = data.batches(32, training=True, augment="pad_crop_flip", seed=3)
    for (mine, _), (other, _) in zip(ours.as_numpy_iterator(), again.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert Image.open(tmp_path / "a.png").size == (504, 594)


def test_inputs_that_the_network_does_not_scale_itself(tmp_path):
    """The pipeline scales them, in BGR; the picture has the pixels before that."""
    scaling = kd.Scaling((90.0, 110.5, 120.25), (60.0, 61.0, 62.5), channel_order="BGR", crop_fraction=1.0)
    model = kd.ResNet20(input_shape=(16, 16, 3), classes=4)
    model.scaling = scaling
    data = images(20)
    view = {"image_size": 16, "channels": 3}
    batch, _ = next(data.batches(20, **view).as_numpy_iterator())
    coloured = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    scaled = (coloured[..., ::-1].astype("float32") - np.float32(scaling.mean)) / np.float32(scaling.std)
    np.testing.assert_array_equal(feed.pixels(model, scaled), coloured)
    callback = InputGrid(
        feed.training(model, data, kd.training.get_recipe("fast", batch_size=32), None, 0, 0),
        data.labels,
        tmp_path / "a.png",
    )
    callback.set_model(model)
    callback.on_train_begin()
    picture = np.asarray(Image.open(tmp_path / "a.png"))
    assert picture.shape == (4 + 4 * 118, 4 + 4 * 100, 3)
    shown = {picture[4 + 118 * (at // 4) :, 4 + 100 * (at % 4) :][:96:6, :96:6].tobytes() for at in range(16)}
    assert shown <= {image.tobytes() for image in batch}


def test_classes_of_mixed_images():
    callback = InputGrid(None, ("cat", "dog", "owl"), "inputs.png")
    assert callback._name(np.int64(2)) == "owl"
    assert callback._name(np.float32([0.3, 0.65, 0.05])) == "dog + cat"
    assert callback._name(np.float32([0.0, 0.05, 0.95])) == "owl"


def test_a_profile_of_some_steps(tmp_path):
    """Steps 2 to 4 of 3 an epoch: across a validation, which no step contains."""
    run = train(
        network(), images(), "fast", tmp_path / "run", validation=0.25, profile=(2, 4), **SHORT | {"batch_size": 24}
    )
    (path,) = (run.path / "tensorboard" / "plugins" / "profile").iterdir()
    assert path.name == "steps-2-4"
    assert recorded_steps(path) == [2, 3, 4]
    plain = train(network(), images(), "fast", tmp_path / "plain", validation=0.25, **SHORT | {"batch_size": 24})
    assert not (plain.path / "tensorboard" / "plugins").exists()
    np.testing.assert_allclose(run.history["loss"], plain.history["loss"], rtol=1e-5)


def test_a_profile_up_to_the_last_step(tmp_path):
    run = train(network(), images(), "fast", tmp_path / "run", profile=(9, 9), validation=False, **SHORT)
    assert recorded_steps(run.path / "tensorboard" / "plugins" / "profile" / "steps-9-9") == [9]


def test_an_interrupted_profile_is_dropped_and_a_resumed_run_records_what_is_left(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 4:
                raise KeyboardInterrupt

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(network(), images(), "fast", path, profile=(3, 6), callbacks=[Stop()], validation=False, **SHORT)
    assert not (path / "tensorboard" / "plugins").exists()
    train(network(), images(), "fast", path, profile=(3, 6), validation=False, **SHORT)
    (record,) = (path / "tensorboard" / "plugins" / "profile").iterdir()
    assert record.name == "steps-4-6" and recorded_steps(record) == [4, 5, 6]
    assert not list(path.rglob(".partial*"))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ((8, 10), r"profile=\(8, 10\): the run has 9 steps"),
        ((0, 3), r"profile=\(0, 3\) must be the first and the last step, counted from 1"),
        ((4, 3), "must be the first"),
        ((True, 3), "must be the first"),
        (5, "profile=5 must be the first"),
        ((), "must be the first"),
    ],
)
def test_steps_that_a_run_does_not_have(tmp_path, profile, message):
    with pytest.raises(InputError, match=message) as error:
        train(network(), images(), "fast", tmp_path / "run", profile=profile, validation=False, **SHORT)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_only_one_profiler_at_a_time(tmp_path):
    tf.profiler.experimental.start("")
    try:
        with pytest.raises(InputError, match="another profiler is running"):
            Profile(tmp_path, 1, 2, 3).on_train_begin()
    finally:
        tf.profiler.experimental.stop(save=False)
