"""The SavedModel as a server sees it: files, signatures, numbers."""

import concurrent.futures
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export, layers
from keras_deepnets.data import transforms
from keras_deepnets.errors import InputError
from keras_deepnets.export import writing
from tests.export.conftest import keras_probabilities, photographs, unsettle


@pytest.fixture(scope="module")
def exported(resnet20, tmp_path_factory):
    return export.saved_model(resnet20, tmp_path_factory.mktemp("served") / "resnet20")


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def library_operations(path):
    """Every operation in the file, those inside functions too."""
    from tensorflow.core.protobuf import saved_model_pb2

    graph = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return {node.op for body in bodies for node in body}


def test_the_signatures_are_those_of_the_contract(signatures):
    assert set(signatures) == {"serving_default", "serving_images"}
    outputs = {
        "probabilities": (tf.float32, [None, 10]),
        "classes": (tf.int64, [None]),
        "labels": (tf.string, [None]),
    }
    inputs = {
        "serving_default": ("image_bytes", tf.string, [None]),
        "serving_images": ("images", tf.uint8, [None, None, None, 3]),
    }
    for key, (name, dtype, shape) in inputs.items():
        _, arguments = signatures[key].structured_input_signature
        assert {key: (spec.dtype, spec.shape.as_list()) for key, spec in arguments.items()} == {name: (dtype, shape)}
        found = signatures[key].structured_outputs
        assert {key: (spec.dtype, spec.shape.as_list()) for key, spec in found.items()} == outputs


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pixels_give_what_keras_gives_in_any_batch(signatures, resnet20, pictures, count):
    outputs = signatures["serving_images"](images=tf.constant(pictures[:count]))
    expected = keras_probabilities(resnet20, pictures[:count])
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(outputs["classes"], expected.argmax(-1))
    assert [label.decode() for label in outputs["labels"].numpy()] == [f"class {n}" for n in expected.argmax(-1)]


def test_encoded_files_of_several_sizes_and_kinds_are_decoded_resized_and_cropped(signatures, resnet20):
    pictures = [photographs(1, *size, seed=seed)[0] for seed, size in enumerate([(32, 32), (80, 50), (20, 33)])]
    grey = tf.constant(pictures[1][..., :1])
    encoded = [
        tf.io.encode_png(pictures[0]),
        tf.io.encode_jpeg(pictures[1]),
        tf.io.encode_png(pictures[2]),
        tf.io.encode_png(grey),
    ]
    views = [transforms.evaluation_view(transforms.decode(data), 32, 32, 3, 1.0, "bilinear") for data in encoded]
    outputs = signatures["serving_default"](image_bytes=tf.stack(encoded))
    np.testing.assert_allclose(outputs["probabilities"], keras_probabilities(resnet20, np.stack(views)), atol=1e-5)


def test_the_crop_is_that_of_the_networks_scaling(small, tmp_path):
    picture = photographs(1, 64, 40)
    small_scaling = small.scaling
    try:
        small.scaling = kd.Scaling(small_scaling.mean, small_scaling.std, crop_fraction=0.5)
        path = export.saved_model(small, tmp_path)
    finally:
        small.scaling = small_scaling
    view = transforms.evaluation_view(picture, 16, 16, 3, 0.5, "bilinear")
    assert not np.array_equal(view, transforms.evaluation_view(picture, 16, 16, 3, 1.0, "bilinear"))
    expected = keras_probabilities(small, small_scaling.apply(np.asarray(view, "float32")))
    np.testing.assert_allclose(export.predict(path, picture)["probabilities"], expected, atol=1e-5)


def test_the_folder_is_complete_and_nothing_else_is_there(exported):
    assert exported.name == "1" and [path.name for path in exported.parent.iterdir()] == ["1"]
    assert files(exported) == [
        "assets.extra/tf_serving_warmup_requests",
        "assets/labels.txt",
        "fingerprint.pb",
        "model_card.json",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    assert (exported / "assets/labels.txt").read_text().splitlines() == [f"class {n}" for n in range(10)]


def test_the_graph_is_for_inference_and_every_server(exported):
    operations = library_operations(exported)
    assert not {name for name in operations if "BatchNorm" in name or "Gradient" in name or "Random" in name}
    assert "Conv2D" in operations
    for unwanted in (b"_XlaMustCompile", b"PyFunc", b"optimizer", b"seed_generator"):
        assert unwanted not in (exported / "saved_model.pb").read_bytes()
    names = [name for name, _ in tf.train.list_variables(str(exported / "variables/variables"))]
    assert not [name for name in names if name.endswith("VARIABLE_VALUE")]


def test_unfolded_exports_keep_the_norms_and_the_numbers(resnet20, pictures, tmp_path):
    path = export.saved_model(resnet20, tmp_path, fold=False)
    assert "FusedBatchNormV3" in library_operations(path)
    found = export.predict(path, pictures)["probabilities"]
    # Outside exports, the layers may compute the normalisation in another order.
    np.testing.assert_allclose(found, keras_probabilities(resnet20, pictures), atol=1e-5)


def test_the_card_says_what_the_model_is(exported, resnet20):
    card = json.loads((exported / "model_card.json").read_text())
    assert card["architecture"]["constructor"] == "ResNet20"
    assert card["labels"] == list(resnet20.labels)
    assert card["scaling"] == resnet20.scaling.to_dict()
    assert card["input"] | {"height": 32, "width": 32, "channels": 3, "crop_fraction": 1.0} == card["input"]
    assert card["signatures"] == ["serving_default", "serving_images"]
    assert card["software"]["tensorflow"] == tf.__version__


def test_logits_become_probabilities(pictures, tmp_path):
    model = unsettle(kd.ResNet20(include_preprocessing=True, classifier_activation=None))
    expected = tf.nn.softmax(model.predict(pictures, verbose=0)).numpy()
    found = export.predict(export.saved_model(model, tmp_path), pictures)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


def test_mixed_precision_models_are_exported_in_float32(resnet20, pictures, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kd.ResNet20(include_preprocessing=True)
    model.set_weights(resnet20.get_weights())
    path = export.saved_model(model, tmp_path)
    assert b"DT_BFLOAT16" not in (path / "saved_model.pb").read_bytes()
    found = export.predict(path, pictures)["probabilities"]
    np.testing.assert_allclose(found, keras_probabilities(resnet20, pictures), atol=1e-5)


@pytest.mark.parametrize("convolution", [keras.layers.Conv2D, layers.Conv2D])
def test_grouped_convolutions_are_one_native_operation(convolution, tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 1)(inputs)
    x = convolution(8, 3, groups=4, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    model = unsettle(keras.Model(inputs, keras.layers.Dense(3, activation="softmax", dtype="float32")(x)))
    path = export.saved_model(model, tmp_path)
    assert b"_XlaMustCompile" not in (path / "saved_model.pb").read_bytes()
    images = photographs(2, 16, 16)
    np.testing.assert_allclose(
        export.predict(path, images)["probabilities"], keras_probabilities(model, images), atol=1e-5
    )


def test_versions_count_up_and_can_be_named(small, tmp_path):
    (tmp_path / "not a version").mkdir()
    assert [export.saved_model(small, tmp_path).name for _ in range(2)] == ["1", "2"]
    assert export.saved_model(small, tmp_path, version=10).name == "10"
    assert export.saved_model(small, tmp_path).name == "11"


def test_an_existing_version_is_never_touched(small, tmp_path):
    first = export.saved_model(small, tmp_path, version=3)
    before = {name: (first / name).read_bytes() for name in files(first)}
    with pytest.raises(InputError, match="version 3 exists"):
        export.saved_model(small, tmp_path, version=3)
    (tmp_path / "4").mkdir()
    with pytest.raises(InputError, match="version 4 exists"):
        export.saved_model(small, tmp_path, version=4)
    assert before == {name: (first / name).read_bytes() for name in files(first)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]


@pytest.mark.integration
def test_exports_at_the_same_time_get_different_versions(small, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: export.saved_model(small, tmp_path), range(6)))
    assert sorted(path.name for path in paths) == ["1", "2", "3", "4", "5", "6"]
    assert len({tuple(files(path)) for path in paths}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "4", "5", "6"]


def move_many(directory):
    """Moves twenty folders to free versions; in another process."""
    moved = []
    for _ in range(20):
        with writing.folder_aside(directory) as aside:
            (aside / "model").mkdir()
            (aside / "model" / "content").write_text("whole")
            moved.append(writing.move_to_free_version(aside / "model", directory, None).name)
    return moved


def test_processes_get_different_versions(tmp_path):
    with concurrent.futures.ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        names = [name for moved in pool.map(move_many, [tmp_path] * 3) for name in moved]
    assert sorted(map(int, names)) == list(range(1, 61))
    assert {path.read_text() for path in tmp_path.glob("*/content")} == {"whole"}


def test_labels_are_checked_and_default_to_numbers(small, tmp_path):
    with pytest.raises(InputError, match="3 labels were given for the 4 outputs"):
        export.saved_model(small, tmp_path / "new", labels=["a", "b", "c"])
    with pytest.raises(InputError, match="one string"):
        export.saved_model(small, tmp_path / "new", labels="abcd")
    for label in ("d\ne", "d\n", "\n", "d\r\n", "d\u2028"):
        with pytest.raises(InputError, match="line break"):
            export.saved_model(small, tmp_path / "new", labels=["a", "b", "c", label])
    assert not (tmp_path / "new").exists()
    pictures = photographs(3, 16, 16)
    found = export.predict(export.saved_model(small, tmp_path), pictures)
    assert found["labels"].tolist() == [str(number) for number in found["classes"]]
    found = export.predict(export.saved_model(small, tmp_path, labels=["Ä", "b", "c", "d"]), pictures)
    assert found["labels"].tolist() == ["Äbcd"[number] for number in found["classes"]]


def bad_models():
    image = keras.Input((16, 16, 3), name="image")
    two = [keras.Input((16, 16, 3)), keras.Input((16, 16, 3))]
    vector = keras.layers.GlobalAveragePooling2D()(image)
    anything = keras.Input((None, None, 3))
    four = keras.Input((16, 16, 4))
    return {
        "2 inputs and 1 outputs": keras.Model(two, keras.layers.GlobalAveragePooling2D()(two[0] + two[1])),
        "1 inputs and 2 outputs": keras.Model(image, [vector, vector + 1]),
        "include_top=True": keras.Model(image, keras.layers.Conv2D(3, 3)(image)),
        r"input_shape=\(height, width, 3\)": keras.Model(anything, keras.layers.GlobalAveragePooling2D()(anything)),
        "1 or 3": keras.Model(four, keras.layers.GlobalAveragePooling2D()(four)),
        "not built": keras.Sequential([keras.layers.Dense(3)]),
        "keras.saving.load_model": "model.keras",
    }


@pytest.mark.parametrize("message", list(bad_models()))
def test_models_that_are_no_image_classifier_are_refused(message, tmp_path):
    for call in (export.saved_model, export.tflite):
        with pytest.raises(InputError, match=message) as error:
            call(bad_models()[message], tmp_path / "new.tflite")
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [-1, 1.0, "1", True])
def test_a_version_is_a_whole_number(small, tmp_path, version):
    with pytest.raises(InputError, match="whole number"):
        export.saved_model(small, tmp_path, version=version)


def test_a_place_that_cannot_be_written_is_named(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=f"cannot write to {tmp_path}/file/models"):
        export.saved_model(small, tmp_path / "file" / "models")
    assert files(tmp_path) == ["file"]


def test_a_read_only_place_is_named_before_anything_is_computed(small, tmp_path, monkeypatch):
    if not shutil.which("mount"):
        pytest.skip("no mount command")
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    monkeypatch.setattr(export.savedmodel, "classifier_of", None)  # would be called first
    try:
        for directory in (tmp_path, tmp_path / "one" / "two"):
            with pytest.raises(InputError, match=f"^cannot write to {directory}: Read-only file system; give") as error:
                export.saved_model(small, directory)
            assert "\n" not in str(error.value)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_place_of_somebody_else_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match=f"^cannot write to {tmp_path}/new: Permission denied; give a writable place"):
        export.saved_model(small, tmp_path / "new")


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_exports_left_is_removed(tmp_path):
    code = "import os, pathlib, sys; from keras_deepnets.export import writing\n"
    code += "with writing.folder_aside(pathlib.Path(sys.argv[1])) as aside:\n"
    code += "    (aside / 'content').touch(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    (killed,) = tmp_path.iterdir()
    here, number = writing._place(), "0123456789abcdef" * 2
    kept = {
        f".writing-{os.getpid()}-{here}-{number}",
        f".writing-{ended_process()}-00000000-{number}",  # of another machine
        f".writing-{number}",
        ".writing-by-hand",
        "1",
    }
    removed = {killed.name, f".writing-{number[::-1]}", f".writing-{os.getpid()}-{here}-{number[::-1]}"}
    for name in kept | removed - {killed.name}:
        (tmp_path / name / "model").mkdir(parents=True)
    for name in removed - {killed.name}:
        os.utime(tmp_path / name, (time.time() - 25 * 3600,) * 2)
    with writing.folder_aside(tmp_path) as aside:
        assert {path.name for path in tmp_path.iterdir()} == kept | {aside.name}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_version_is_on_the_disk_before_it_has_its_name(small, tmp_path, monkeypatch):
    flushed, before = [], os.fsync

    def fsync(handle):
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        before(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    path = export.saved_model(small, tmp_path)
    aside = flushed[-2]
    assert ".writing-" in aside and flushed[-1] == str(tmp_path)
    expected = {str(file.relative_to(path)) for file in path.rglob("*")} | {"."}
    assert {os.path.relpath(name, aside) for name in flushed[:-1]} == expected


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tf.errors.ResourceExhaustedError, "PLACE/x.index; No space left on device [Op:SaveV2]"),
        (tf.errors.PermissionDeniedError, "{{node save}} PLACE/x; Permission denied"),
        (tf.errors.UnknownError, "elsewhere; Read-only file system"),
        (tf.errors.InternalError, "writing PLACE/x failed"),
    ],
)
def test_errors_of_writing_are_told_in_one_line(error, message, tmp_path):
    with (
        pytest.raises(InputError, match=f"^cannot write to {tmp_path}: .*give a writable place with enough space"),
        writing.write_errors(tmp_path),
    ):
        raise error(None, None, message.replace("PLACE", str(tmp_path)))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[9,9] on device:CPU:0 [Op:Conv2D]"),
        (tf.errors.InvalidArgumentError, "Incompatible shapes: [2] vs. [3] [Op:AddV2]"),
        (tf.errors.InternalError, "Could not find valid device"),
    ],
)
def test_errors_of_computing_stay_what_they_are(error, message, tmp_path):
    with pytest.raises(error, match=re.escape(message)), writing.folder_aside(tmp_path / "new"):
        raise error(None, None, message)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kibibytes", [0, 16, 60])
def test_a_full_disk_leaves_nothing_behind(small, tmp_path, kibibytes):
    if not shutil.which("mount"):
        pytest.skip("no mount command")
    command = ["mount", "-t", "tmpfs", "-o", f"size={max(kibibytes, 4)}k,nr_inodes=40", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        for write in (
            lambda: export.saved_model(small, tmp_path / "a" / "b"),
            lambda: _fill(small, tmp_path, kibibytes),
        ):
            with pytest.raises(InputError, match="No space left on device") as error:
                write()
            assert "\n" not in str(error.value)
            assert [path for path in tmp_path.rglob("*") if path.name != "filler"] == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def _fill(model, folder, kibibytes):
    (folder / "filler").write_bytes(bytes(max(kibibytes, 4) * 1024 - 4096))
    return export.tflite(model, folder / "sub" / "model.tflite")


def test_a_failure_half_way_leaves_nothing_behind(small, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.savedmodel, "write_warmup", fail)
    with pytest.raises(InputError, match="No space left on device; give a writable place"):
        export.saved_model(small, tmp_path / "one" / "two")
    assert list(tmp_path.iterdir()) == []
