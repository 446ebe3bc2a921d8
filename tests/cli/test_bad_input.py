"""Every bad input is one line on stderr, exit status 2, and nothing half-written."""

import errno
import os
import shutil

import pytest
from PIL import Image

from .conftest import COLOURS, TINY, paint

pytestmark = pytest.mark.integration


@pytest.fixture
def train(cli, tmp_path):
    """The train command into a new folder, of which nothing may stay behind."""

    def call(model, data, *words):
        error = cli("train", model, data, *words, "--run-dir", tmp_path / "run").error
        assert not (tmp_path / "run").exists()
        return error

    return call


@pytest.fixture
def few(tmp_path):
    """A small folder of class folders to spoil."""
    return paint(tmp_path / "few", COLOURS, 10)


def test_unknown_model(train, patches):
    assert "Unknown model 'resnet21'. Did you mean " in train("resnet21", patches)


def test_unknown_recipe(train, patches):
    assert "'fasst'" in train("resnet20", patches, "--recipe", "fasst")


def test_unknown_field_of_a_recipe(train, patches):
    error = train("resnet20", patches, "--set", "batchsize=3")
    assert "no field 'batchsize'. Did you mean 'batch_size'?" in error


def test_what_is_no_field_of_a_recipe(train, patches):
    for name in ("verbose", "validation", "run_dir", "callbacks", "name"):
        assert f"no field {name!r}" in train("resnet20", patches, "--set", f"{name}=3")


def test_wrong_value_of_a_field(train, patches):
    assert "batch_size='many'" in train("resnet20", patches, "--set", "batch_size=many")


def test_unknown_option_of_a_network(train, patches):
    error = train("resnet20", patches, "--option", "cardinality=3")
    assert error.startswith("resnet20 has no option 'cardinality'; its options: shortcut, downsample, ")
    assert train("plainnet20", patches, "--option", "shortcut=B").endswith("its options: none.")


def test_wrong_value_of_an_option(train, patches):
    assert "shortcut='Z'" in train("resnet20", patches, "--option", "shortcut=Z")


def test_wrong_precision(train, patches):
    assert "precision='float8'" in train("resnet20", patches, "--precision", "float8")


def test_steps_to_profile(train, patches):
    for text in ("10", "0:3", "5:4", "a:b", "1:2:3"):
        error = train("resnet20", patches, "--profile", text)
        assert error == f"--profile {text!r} is not of the form FIRST:LAST, two steps counted from 1, e.g. 10:15."
    words = [word for word in TINY[1:] if word != "--epochs"]
    words.remove("2")
    error = train(TINY[0], patches, *words, "--epochs", "2", "--profile", "6:7")
    assert error == "profile=(6, 7): the run has 6 steps. Choose steps among them."


def test_class_weights(train, patches):
    for text in ("even", "red", "red=", "=2", "red=much", "red=1,red=2"):
        assert train("resnet20", patches, "--class-weight", text).startswith(f"--class-weight {text!r} ")
    assert "class_weight names 'pink', which is not one of the classes (blue, green, red)." in train(
        *TINY[:1], patches, *TINY[1:], "--class-weight", "pink=2"
    )
    assert "'red' is -1; give a finite number" in train(*TINY[:1], patches, *TINY[1:], "--class-weight", "red=-1")


def test_limit(train, patches):
    assert "limit=0: give a whole number of training images" in train("resnet20", patches, "--limit", "0")
    assert "limit=2 leaves 1 of 3 classes without an image" in train("resnet20", patches, "--limit", "2")


def test_unknown_dataset(train):
    assert "'cifar11'" in train("resnet20", "cifar11")


def test_no_network_for_a_dataset(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    tfds = pytest.importorskip("tensorflow_datasets")

    def unreachable(*args, **kwargs):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    assert "cifar10" in train("resnet20", "cifar10")


def test_a_folder_that_is_not_there(train, tmp_path):
    assert str(tmp_path / "nowhere") in train("resnet20", tmp_path / "nowhere")


def test_a_folder_without_images(train, tmp_path):
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in train("resnet20", tmp_path / "empty")


def test_a_folder_with_one_class(train, few):
    shutil.rmtree(few / "red")
    shutil.rmtree(few / "blue")
    error = train("resnet20", few)
    assert "green" in error or "one class" in error


def test_a_broken_image_is_named(train, few):
    Image.new("RGB", (9, 9)).save(few / "red" / "whole.jpg")
    whole = (few / "red" / "whole.jpg").read_bytes()
    (few / "red" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    assert "broken.jpg" in train("resnet20", few)


def test_broken_images_are_skipped_and_counted_where_that_is_asked_for(cli, few, trained):
    (few / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    assert "broken.jpg" in cli("evaluate", trained, few, "--split", "all").error
    assert "--skip-broken" in cli("train", *TINY[:1], few, *TINY[1:]).error
    words = (*TINY[:1], few, *TINY[1:], "--skip-broken", "--run-dir", few.parent / "run")
    done = cli("train", *words)
    assert done.status == 0, done.err
    assert "24 images of" in done.out.splitlines()[1]
    assert "1 skipped as broken" in done.out.splitlines()[1]
    assert cli("train", *words, "--json").json["skipped"] == 1
    values = cli("evaluate", trained, few, "--split", "all", "--skip-broken", "--json").json
    assert (values["images"], values["skipped"]) == (30, 1)
    assert "1 skipped as broken" in cli("evaluate", trained, few, "--split", "all", "--skip-broken").out


def test_images_too_small_for_the_network(train, patches):
    assert "input_shape=(2, 2, 3)" in train("resnet20", patches, "--image-size", "2")


def test_a_run_of_another_configuration(cli, trained, patches):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    words = [word if word != "3" else "4" for word in TINY[1:]]
    error = cli("train", TINY[0], patches, *words, "--run-dir", trained).error
    assert "another configuration: seed is 3 there, 4 here" in error
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_run_folder_that_holds_something_else(cli, patches, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear")
    assert str(tmp_path) in cli("train", "resnet20", patches, "--run-dir", tmp_path).error
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_no_space_left_for_an_export(cli, trained, tmp_path, monkeypatch):
    from keras_deepnets.export import writing

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "write_json", full)
    error = cli("export", trained, tmp_path / "out" / "model.tflite", "--format", "tflite").error
    assert "No space left on" in error
    assert list(tmp_path.iterdir()) == []


def test_no_space_left_for_a_run(cli, patches, tmp_path, monkeypatch):
    import safetensors.numpy

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors.numpy, "save", full)
    done = cli("train", TINY[0], patches, *TINY[1:], "--run-dir", tmp_path / "run", "--json")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "No space left" in done.err
    assert not (tmp_path / "run" / "model.keras").exists()
    assert not list((tmp_path / "run").rglob(".partial*"))


def test_what_is_no_trained_model(cli, patches, tmp_path):
    image = patches / "red" / "00.png"
    kinds = "give a run folder, a .keras file, a SavedModel folder, a .tflite, .onnx or .xml file."
    assert cli("predict", tmp_path / "nothing", image).error == f"{tmp_path / 'nothing'} does not exist; {kinds}"
    assert cli("predict", image, image).error == f"{image} is not a trained model; {kinds}"
    assert cli("predict", patches, image).error == f"{patches} holds no trained model; {kinds}"
    assert "train it first: `keras-deepnets train resnet20 DATA`" in cli("predict", "resnet20", image).error
    (tmp_path / "model.keras").write_bytes(b"no zip")
    assert str(tmp_path / "model.keras") in cli("predict", tmp_path / "model.keras", image).error
    assert str(tmp_path / "model.keras") in cli("evaluate", tmp_path / "model.keras", patches).error
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    assert "holds an unfinished run" in cli("predict", tmp_path / "run", image).error


def test_what_is_no_image(cli, trained, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    (tmp_path / "none").mkdir()
    assert "half.jpg" in cli("predict", trained, tmp_path / "whole.jpg", tmp_path / "half.jpg", "--strict").error
    assert "broken.png" in cli("predict", trained, tmp_path / "broken.png", "--strict").error
    assert cli("predict", trained, tmp_path / "none").error.startswith(f"{tmp_path / 'none'} holds no images (.jpg ")
    assert "does not exist" in cli("predict", trained, tmp_path / "nothing.png").error


def test_data_with_other_classes(cli, trained, exported, few):
    (few / "red").rename(few / "yellow")
    for model in (trained, exported["savedmodel"], exported["tflite"]):
        cli("evaluate", model, few, "--split", "all").error  # noqa: B018 - which asserts
    shutil.rmtree(few / "yellow")
    assert (
        "has 3 classes ('blue' …) and the data has 2"
        in cli("evaluate", exported["tflite"], few, "--split", "all").error
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--confusion matrix.gif", "'matrix.gif' must end in .png, .svg, .pdf."),
        ("--confusion none/matrix.png", "there is no folder 'none'"),
        ("--errors errors.pdf", "'errors.pdf' must end in .png: the picture is made of images."),
        ("--errors none/errors.png", "there is no folder 'none'"),
        ("--worst 0", "Invalid value for '--worst'"),
        ("--crops 5", "crops=5 is not 1 (the centre) or 10"),
        ("--scales 224,big", "--scales '224,big' must be comma-separated whole numbers of pixels"),
        ("--scales 224,0", "scales=(224, 0) must be different whole numbers of pixels"),
        ("--scales 224 --crops 10", "crops=10 and scales cannot be combined"),
    ],
)
def test_evaluate_options_are_judged_before_anything_is_loaded(cli, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keras_deepnets.cli.artifacts.find", None)
    monkeypatch.setattr("keras_deepnets.cli.use.load_tensorflow", None)
    assert message in cli("evaluate", "model.keras", "digits", *words.split()).error
    assert list(tmp_path.iterdir()) == []


def test_an_exported_model_has_its_own_view(cli, exported, patches):
    for path in exported.values():
        for words in (("--crops", "10"), ("--scales", "8,16")):
            assert "is an exported model with a fixed view" in cli("evaluate", path, patches, *words).error


def test_images_without_a_margin(cli, trained, tmp_path):
    for name in COLOURS:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), COLOURS[name]).save(tmp_path / "data" / name / "1.png")
    error = cli("evaluate", trained, tmp_path / "data", "--split", "all", "--crops", "10").error
    assert error.startswith("Ten crops need a margin around the 8×8 pixels")
    assert error.endswith("use crops=1 (--crops 1).")


def test_an_unknown_split(cli, trained, patches):
    assert "'exam'" in cli("evaluate", trained, patches, "--split", "exam").error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("out --format pickle", "--format 'pickle' is not one of savedmodel, tflite, onnx, openvino, keras."),
        ("out --format onnx", "'out' does not end in .onnx; use a name such as out.onnx."),
        (
            "out.keras --format keras --quantize int8",
            "--quantize and --calibration are for --format tflite, onnx, openvino; leave them out for keras",
        ),
        ("out.onnx --format onnx --quantize int8", "--quantize int8 needs --calibration DATA"),
        ("out.keras --format keras --any-batch", "--any-batch and --float-io are for --format tflite"),
        (
            "out.tflite --format tflite --float-io",
            "--float-io is for --quantize int8 and int16x8; other files always have float inputs.",
        ),
        ("out.tflite --format tflite --quantize int16x8", "--quantize int16x8 needs --calibration DATA"),
        ("out --format tflite", "'out' does not end in .tflite"),
        ("out --format savedmodel --quantize int8", "--quantize and --calibration are for --format tflite"),
        ("out.tflite --format tflite --quantize int8", "--quantize int8 needs --calibration DATA"),
        (
            "out.tflite --format tflite --quantize int4",
            "--quantize 'int4' is not one of float16, dynamic, int8, int16x8.",
        ),
        ("out.tflite --format tflite --calibration digits", "--calibration is for --quantize int8 and int16x8."),
        (
            "out.tflite --format tflite --calibration-images 9",
            "--calibration-images needs --calibration DATA; give both.",
        ),
        ("out.tflite --format tflite --model-version 3", "--model-version is for --format savedmodel"),
        ("out.tflite --format tflite --top-k 2", "--top-k: for --format savedmodel only; leave it out for tflite."),
        (
            "out.onnx --format onnx --precision bfloat16 --features --image-size 8 --batch-size 2",
            "--precision, --features, --image-size, --batch-size: for --format savedmodel only; leave it out for onnx.",
        ),
        (
            "out.keras --format keras --on-error skip --max-pixels 9 --batch-sizes 1",
            "--on-error, --max-pixels, --batch-sizes: for --format savedmodel only; leave it out for keras.",
        ),
        (
            "out.tflite --format tflite --no-fold",
            "--no-fold is for --format savedmodel; a .tflite file is always folded",
        ),
        ("out --format savedmodel --precision fp16", "precision='fp16' is not one of float32, bfloat16, float16."),
        ("out --format savedmodel --on-error ignore", "on_error='ignore' is not one of fail, skip."),
        ("out --format savedmodel --top-k 0", "Invalid value for '--top-k'"),
        ("out --format savedmodel --top-k 4", "top_k=4 is more than the 3 classes of plainnet; ask for fewer."),
        ("out --format savedmodel --image-size 8x", "--image-size '8x' is neither a side nor HEIGHTxWIDTH in pixels"),
        ("out --format savedmodel --image-size 0", "--image-size '0' is neither a side nor HEIGHTxWIDTH in pixels"),
        (
            "out --format savedmodel --batch-sizes 1,b",
            "--batch-sizes '1,b' must be comma-separated whole numbers, e.g. 1,8",
        ),
        (
            "out --format savedmodel --batch-sizes 8,1",
            "batch_sizes=(8, 1) are not whole numbers from 1 in rising order",
        ),
        (
            "out --format savedmodel --batch-size 4 --batch-sizes 1,4",
            "batch_sizes=(1, 4): signatures with batch_size=4 take no other size; leave batch_sizes out.",
        ),
        ("out --format savedmodel --max-pixels 63", "max_pixels=63 is less than the 8 × 8 pixels of a warm-up request"),
        ("out --format savedmodel --labels none.txt", "--labels none.txt cannot be read"),
        ("out.keras --format keras --labels none.txt", "--labels: a .keras file keeps the labels of its model"),
    ],
)
def test_export_options_that_do_not_go_together(cli, trained, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in cli("export", trained, *words.split()).error
    assert list(tmp_path.iterdir()) == []


def test_names_for_other_classes(cli, trained, patches, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("rot\ngrün\n", encoding="utf-8")
    words = ("export", trained, tmp_path / "out", "--format", "savedmodel", "--labels", names)
    assert "2 labels were given for the 3 outputs of plainnet" in cli(*words).error
    names.write_text("blau\ngrün\nrot\n", encoding="utf-8")
    # Found before the model is written: the images have the names that the model had.
    assert "has 3 classes ('blau' …) and the data has 3 ('blue' …)" in cli(*words, "--data", patches).error
    names.write_bytes(b"\xff\n")
    assert f"--labels {names} cannot be read" in cli(*words).error
    assert list(tmp_path.iterdir()) == [names]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "holds no version of a model"),
        ("--label stable", "--label 'stable' is not of the form NAME=VERSION, e.g. stable=3."),
        ("--label stable=-1", "--label 'stable=-1' is not of the form NAME=VERSION"),
        ("--label a=1 --label a=2", "--label a=1, a=2: each label belongs to one version; name each label once."),
        ("--batch-sizes one", "--batch-sizes 'one' must be comma-separated whole numbers"),
        ("--threads 0", "Invalid value for '--threads'"),
    ],
)
def test_serving_config_of_nothing(cli, tmp_path, words, message):
    assert message in cli("serving-config", tmp_path, *words.split()).error
    assert list(tmp_path.iterdir()) == []


def test_serving_config_of_what_is_there(cli, exported):
    before = {path: path.stat().st_mtime_ns for path in exported["savedmodel"].iterdir()}
    for words, message in (
        ("--label stable=2", "the label 'stable' is for version 2; "),
        ("--name a/b", "model_name 'a/b' cannot be part of a URL"),
        ("--base-path models", "base_path='models' is neither absolute nor a URL"),
        ("--batch-sizes 8,8", "batch_sizes=(8, 8) are not whole numbers from 1 in rising order"),
    ):
        assert message in cli("serving-config", exported["savedmodel"], *words.split()).error
    assert {path: path.stat().st_mtime_ns for path in exported["savedmodel"].iterdir()} == before


def test_an_exported_model_is_not_exported_again(cli, exported, tmp_path):
    error = cli("export", exported["savedmodel"], tmp_path / "again", "--format", "savedmodel").error
    assert error.endswith("is an exported model; give the run folder or the .keras file that it was made of.")
    assert not (tmp_path / "again").exists()


def test_a_version_that_is_there(cli, trained, exported):
    words = ("--format", "savedmodel", "--model-version", "1")
    assert "version 1 exists" in cli("export", trained, exported["savedmodel"], *words).error


def test_an_export_replaces_no_file_unasked(cli, trained, tmp_path):
    for form in ("tflite", "onnx", "keras"):
        out = tmp_path / f"model.{form}"
        out.write_text("precious")
        assert cli("export", trained, out, "--format", form).error == (
            f"{out} exists; name another file, or give --overwrite."
        )
        assert out.read_text() == "precious"
    assert cli("export", trained, trained / "model.keras", "--format", "keras").error.startswith(
        str(trained / "model.keras") + " exists"
    )


def test_onnx_without_its_packages(cli, trained, tmp_path, monkeypatch):
    from keras_deepnets.export import onnx_export

    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    error = cli("export", trained, tmp_path / "new" / "model.onnx", "--format", "onnx").error
    assert error == "ONNX needs onnx and tf2onnx, not installed here: pip install 'keras-deepnets[onnx]'."
    (tmp_path / "model.onnx").write_bytes(b"")
    error = cli("predict", tmp_path / "model.onnx", next(trained.rglob("curves.png"))).error
    assert error == "ONNX needs onnxruntime, not installed here: pip install 'keras-deepnets[onnx]'."
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_export_to_a_folder_that_cannot_be_written(cli, trained, tmp_path):
    (tmp_path / "file").write_text("")
    for form in ("savedmodel", "tflite", "keras"):
        error = cli("export", trained, tmp_path / "file" / f"model.{form}", "--format", form).error
        assert error.startswith("cannot write to ")
        assert error.endswith("; give a writable place with enough space.")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_calibration_that_is_not_there(cli, trained, tmp_path):
    words = ("--format", "tflite", "--quantize", "int8", "--calibration", tmp_path / "none")
    assert str(tmp_path / "none") in cli("export", trained, tmp_path / "model.tflite", *words).error
    assert list(tmp_path.iterdir()) == []
