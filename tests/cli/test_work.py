"""Train, evaluate, predict, export: small, but with the real parts."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import types
from importlib.util import find_spec

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.cli import train as command
from keras_deepnets.errors import InputError
from keras_deepnets.models import flat_layers
from keras_deepnets.training import Sets

from .conftest import COLOURS, RECIPE, TINY, paint

pytestmark = pytest.mark.integration

LABELS = sorted(COLOURS)


def test_train_leaves_a_run_folder(trained):
    assert {path.name for path in trained.iterdir()} >= {
        "config.json",
        "metrics.csv",
        "model.keras",
        "checkpoints",
        "tensorboard",
        "curves.png",
        "inputs.png",
    }
    config = json.loads((trained / "config.json").read_text())
    assert config["model"]["name"] == "plainnet"
    assert config["model"]["input_shape"] == [8, 8, 3]
    assert config["recipe"]["batch_size"] == 16
    assert config["seed"] == 3
    with (trained / "metrics.csv").open() as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2]


def test_the_same_command_returns_at_once(cli, trained, patches):
    before = (trained / "model.keras").stat().st_mtime_ns
    done = cli("train", TINY[0], patches, *TINY[1:], "--run-dir", trained)
    assert done.status == 0, done.err
    assert "holds the finished run" in done.out
    assert str(trained / "model.keras") in done.out
    assert f"keras-deepnets predict {trained} IMAGE" in done.out
    assert (trained / "model.keras").stat().st_mtime_ns == before


def test_train_as_json(cli, trained, patches):
    values = cli("train", TINY[0], patches, *TINY[1:], "--run-dir", trained, "--json").json
    assert values["run"] == str(trained)
    assert values["metrics"]["epochs"] == 2
    assert values["files"]["curves.png"] == str(trained / "curves.png")


def test_the_images_that_are_cut_out_to_measure_on(cli, patches, tmp_path):
    words = [*TINY[:1], patches, *TINY[1:], "--run-dir", tmp_path / "run"]
    done = cli("train", *words, "--validation", "15")
    assert done.status == 0, done.err
    assert "39 images of" in done.out and "15 for validation (validation split)" in done.out
    assert f"evaluate {tmp_path / 'run'} {patches} --split validation\n" in done.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["data"]["size"], config["validation"]["size"], config["validation"]["cut"]) == (39, 15, 15)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        measured = float(list(csv.DictReader(file))[-1]["val_accuracy"])
    values = cli("evaluate", tmp_path / "run", patches, "--split", "validation", "--json").json
    assert values["images"] == 15
    assert values["top1"] == pytest.approx(measured)
    assert cli("evaluate", tmp_path / "run", patches, "--split", "train", "--json").json["images"] == 39
    assert cli("evaluate", tmp_path / "run", patches, "--json").json["images"] == 6
    assert "holds the finished run" in cli("train", *words, "--validation", str(15 / 54)).out
    error = cli("train", *words, "--validation", "0.25").error
    assert "validation.size is 15 there, 14 here" in error and "differ" not in error
    assert "validation=60: give a fraction" in cli("train", *words, "--validation", "60").error


def test_fewer_images_and_class_weights(cli, patches, tmp_path):
    words = ["train", *TINY[:1], patches, *TINY[1:], "--run-dir", tmp_path / "run", "--limit", "30"]
    done = cli(*words, "--class-weight", "red=2,0=0.5")
    assert done.status == 0, done.err
    assert "30 images of" in done.out and "6 for validation (validation split)" in done.out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["data"]["size"], config["class_weight"]) == (30, [0.5, 1.0, 2.0])
    assert "class_weight is [0.5, 1.0, 2.0] there, null here" in cli(*words).error


def test_what_class_weight_says():
    texts = (None, "balanced", "cat=2,dog=0.5", "a=b=1")
    expected = [None, "balanced", {"cat": 2, "dog": 0.5}, {"a=b": 1}]
    assert [command.class_weight_of(text) for text in texts] == expected


def test_what_validation_says():
    texts = (None, "none", "5000", "0.1", "other/folder", "true")
    assert [command.validation_of(text) for text in texts] == [None, False, 5000, 0.1, "other/folder", "true"]


def test_next_is_the_split_that_was_measured(cli, patches, tmp_path):
    words = ["train", *TINY[:1], patches, *TINY[1:], "--epochs", "1", "--run-dir"]
    assert f"evaluate {tmp_path / 'a'} {patches} --split validation\n" in cli(*words, tmp_path / "a").out
    assert f"evaluate {tmp_path / 'b'} {patches}\n" in cli(*words, tmp_path / "b", "--validation", "none").out
    sets = Sets(None, types.SimpleNamespace(split="test"))
    assert command._measured(sets, "cifar10", None) == "cifar10"


def test_train_the_model_of_a_file(cli, trained, patches, tmp_path):
    file = trained / "model.keras"
    words = ["train", file, patches, *RECIPE, "--run-dir", tmp_path / "run"]
    done = cli(*words, "--json")
    assert done.status == 0, done.err
    assert done.json["metrics"]["epochs"] == 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["name"] == "plainnet"
    assert "is built already: options (shortcut)" in cli(*words, "--option", "shortcut=B").error
    assert "was built in float32" in cli(*words, "--set", "batch_size=8", "--precision", "mixed_bfloat16").error
    error = cli("train", tmp_path / "no.keras", patches).error
    assert error == f"{tmp_path / 'no.keras'} does not exist; give a .keras file, or a network name from `list`."


def test_fields_of_a_recipe_that_are_arguments_too(cli, patches, tmp_path):
    words = ["train", "ResNet", patches, "--image-size", "8", "--epochs", "1", "--set", "batch_size=48", "--json"]
    options = {"depth": 8, "stem": "cifar", "stochastic_depth": 0.25}
    words += ["--set", "precision=mixed_bfloat16", "--set", f"model_options={options}"]
    done = cli(*words, "--run-dir", tmp_path / "run")
    assert done.status == 0, done.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["precision"] == config["resolved"]["precision"] == "mixed_bfloat16"
    assert config["model"]["options"] == options
    assert cli(*words, "--run-dir", tmp_path / "run", "--precision", "mixed_bfloat16").status == 0
    error = cli(*words, "--run-dir", tmp_path / "run", "--precision", "float32").error
    assert error == "--precision float32 and --set precision=mixed_bfloat16 differ; leave out one of them."
    assert "no option 'depthless'" in cli(*words, "--set", "model_options={'depthless': 1}").error


def test_evaluation_is_the_same_for_the_run_and_for_what_was_exported(cli, trained, exported, patches):
    found = {
        path: cli("evaluate", path, patches, "--split", "all", "--seed", "3", "--json").json
        for path in (trained, trained / "model.keras", exported["savedmodel"], exported["tflite"])
    }
    for values in found.values():
        assert values["images"] == 60
        assert values["skipped"] == 0
        assert values["top5"] == 1.0
        assert list(values["per_class"]) == LABELS
        assert values["top1"] == pytest.approx(np.mean(list(values["per_class"].values())))
    assert len({values["top1"] for values in found.values()}) == 1


def test_evaluate_takes_the_split_that_the_run_left_out(cli, trained, patches):
    ours = cli("evaluate", trained, patches, "--json").json
    said = cli("evaluate", trained, patches, "--seed", "3", "--json").json
    assert ours["images"] == 6
    assert ours["loss"] == said["loss"]


def test_evaluate_prints_a_table(cli, trained, patches):
    lines = cli("evaluate", trained, patches).out.splitlines()
    assert lines[0].startswith(
        f"{trained / 'model.keras'} on 6 images of {patches} (test split: 6 of 60 images, the rest was used for training and "
        "validation): top-1 "
    )
    assert re.search(r", balanced accuracy \d+\.\d\d %, loss ", lines[0])
    assert [line.split()[0] for line in lines[1:5]] == ["class", *LABELS]


@pytest.mark.slow
def test_evaluate_draws_what_is_taken_for_what(cli, trained, exported, patches, tmp_path):
    pictures = []
    for name, path in {"keras": trained, **exported}.items():
        picture = tmp_path / f"{name}.png"
        words = ("evaluate", path, patches, "--split", "all", "--confusion", picture)
        assert cli(*words, "--json").json["confusion_picture"] == str(picture)
        assert cli(*words).out.endswith(f"\nConfusion matrix: {picture}\n")
        pictures.append(picture.read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert len(set(pictures)) == 1


def test_evaluate_names_and_draws_the_worst_errors(cli, trained, exported, patches, tmp_path):
    found, data = [], kd.data.load(patches, "all")
    for name, path in {"keras": trained, **exported}.items():
        picture = tmp_path / f"{name}.png"
        words = ("evaluate", path, patches, "--split", "all", "--errors", picture, "--worst", "7")
        values = cli(*words, "--json").json
        wrong = round(60 * (1 - values["top1"]))
        assert len(values["worst"]) == min(7, wrong) > 0 and values["errors_picture"] == str(picture)
        assert values["balanced_accuracy"] == pytest.approx(np.mean(list(values["per_class"].values())))
        assert sum(pair["count"] for pair in values["confused_pairs"]) <= wrong
        for error in values["worst"]:
            assert error["file"] == data.store.names[error["index"]]
            assert error["file"].startswith(f"{error['true']}/") and error["predicted"] != error["true"]
        found.append([(error["file"], error["predicted"]) for error in values["worst"]])
        out = cli(*words).out
        assert out.endswith(f"\nWorst errors: {picture}\n")
        pair = values["confused_pairs"][0]
        assert re.search(rf"\n{pair['true']} +{pair['predicted']} +{pair['count']} +{100 * pair['share']:.2f} %\n", out)
    assert found[0] == found[1] == found[2]
    assert Image.open(tmp_path / "keras.png").width == 2 * 14 + 3 * 188 - 12


def test_without_errors_there_is_no_picture(cli, trained, patches, tmp_path):
    """Of the images that the model knows."""
    data = kd.data.load(patches, "all")
    wrong = {error.index for error in kd.training.evaluate(trained / "model.keras", data, worst=60).worst}
    assert 0 < len(wrong) < 60
    for label in LABELS:
        (tmp_path / "data" / "train" / label).mkdir(parents=True)
    for at, name in enumerate(data.store.names):
        if at not in wrong:
            (tmp_path / "data" / "test" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(patches / name, tmp_path / "data" / "test" / name)
    done = cli("evaluate", trained, tmp_path / "data", "--errors", tmp_path / "errors.png")
    assert done.out.endswith("\nNo errors, so no picture of them was drawn.\n"), done
    assert not (tmp_path / "errors.png").exists()


@pytest.mark.slow
def test_what_of_a_folder_is_measured(cli, trained, exported, patches, tmp_path, monkeypatch):
    """All of it, but for the run that was trained on it: then the part that the run left out."""

    def measured(model, data, *words):
        said = cli("evaluate", model, data, *words).out.splitlines()[0]
        return re.fullmatch(rf".* on \d+ images of {re.escape(str(data))} \((.*)\): top-1 .*", said)[1]

    def recorded(model, data, *words):
        values = cli("evaluate", model, data, *words, "--json").json
        return values["images"], values["split"], values["cut_out_of"]

    held = "test split: 6 of 60 images, the rest was used for training and validation"
    assert measured(trained, patches) == held
    assert recorded(trained, patches) == (6, "test", 60)
    moved = shutil.copytree(patches, tmp_path / "moved")
    assert measured(trained, moved) == held  # the same names of files
    assert measured(trained, patches, "--split", "all") == "all 60 images"
    not_trained = "validation split: 6 of 60 images, the run was not trained on these"
    assert measured(trained, moved, "--split", "validation") == not_trained
    of_training = "train split: 48 of 60 images, the run was trained on these"
    assert measured(trained, patches, "--split", "train") == of_training
    seen = (
        "test split: 6 of 60 images, split off with seed 9; the run was trained with seed 3 and has seen some of these"
    )
    assert measured(trained, patches, "--seed", "9") == seen
    other = paint(tmp_path / "other", COLOURS, 4, seed=1)
    elsewhere = "all 12 images, the model was trained on colours"
    assert measured(trained, other) == elsewhere
    assert recorded(trained, other) == (12, "all", None)
    assert measured(trained, other, "--split", "test") == "test split: 3 of 12 images, split off with seed 3"
    (tmp_path / "bare").mkdir()
    file = shutil.copy(trained / "model.keras", tmp_path / "bare")
    unknown = "all 12 images, no run record says what the model was trained on"
    assert measured(file, other) == measured(exported["tflite"], other) == unknown
    assert measured(exported["savedmodel"], other) == elsewhere
    may = "all 60 images, the model was trained on data of this name, so some may be its training images"
    assert measured(exported["savedmodel"], patches) == may


def test_a_folder_with_splits_is_measured_on_its_own(cli, trained, patches, tmp_path):
    shutil.copytree(patches, tmp_path / "data" / "train")
    paint(tmp_path / "data" / "val", COLOURS, 3)
    values = cli("evaluate", trained, tmp_path / "data", "--json").json
    assert (values["images"], values["split"], values["cut_out_of"]) == (9, "validation", None)
    said = cli("evaluate", trained, tmp_path / "data").out.splitlines()[0]
    assert "(validation split: 9 images, the data has no test split)" in said
    paint(tmp_path / "data" / "test", COLOURS, 2)
    assert "(test split: 6 images)" in cli("evaluate", trained, tmp_path / "data").out.splitlines()[0]


def test_evaluate_in_python_measures_the_same_images(trained, patches, tmp_path):
    held = kd.data.load(patches, "test", seed=3)
    assert kd.training.evaluate(trained, patches).loss == kd.training.evaluate(trained, held).loss
    file = shutil.copy(trained / "model.keras", tmp_path)
    assert kd.training.evaluate(file, patches).size == 60


def test_evaluate_on_ten_crops_and_at_several_scales(cli, trained, patches):
    data = kd.data.load(patches, "test", seed=3)
    model = trained / "model.keras"
    for words, arguments, said in (
        (("--crops", "10"), {"crops": 10}, ", ten crops)"),
        (("--scales", "8,10,12"), {"scales": (8, 10, 12)}, ", at 8, 10, 12 pixels)"),
    ):
        values = cli("evaluate", model, patches, *words, "--json").json
        expected = kd.training.evaluate(model, data, **arguments)
        assert values["loss"] == pytest.approx(expected.loss, rel=1e-6)
        assert values["top1"] == expected.top1
        assert values["crops"] == arguments.get("crops", 1)
        assert values["scales"] == (list(arguments["scales"]) if "scales" in arguments else None)
        assert said in cli("evaluate", model, patches, *words).out.splitlines()[0]


def test_predictions_agree_and_carry_labels(cli, trained, exported, patches):
    found = [
        cli("predict", path, patches / "red", patches / "blue" / "03.png", "--json").json
        for path in (trained, exported["savedmodel"], exported["savedmodel"] / "1", exported["tflite"])
    ]
    for results in found:
        assert [result["image"] for result in results] == [
            *(str(patches / "red" / f"{number:02}.png") for number in range(20)),
            str(patches / "blue" / "03.png"),
        ]
        for result, first in zip(results, found[0], strict=True):
            probabilities = [guess["probability"] for guess in result["predictions"]]
            assert sorted(guess["label"] for guess in result["predictions"]) == LABELS
            assert probabilities == sorted(probabilities, reverse=True)
            assert probabilities == pytest.approx([guess["probability"] for guess in first["predictions"]], abs=1e-4)


def test_predict_prints_a_line_an_image(cli, trained, patches):
    image = patches / "green" / "00.png"
    (line,) = cli("predict", trained, image, "--top", "2").out.splitlines()
    path, guesses = line.split("  ")
    assert path == str(image)
    first, second = guesses.split(", ")
    assert first.split()[0] in LABELS
    assert float(first.split()[1]) >= float(second.split()[1])
    assert first.endswith(" %")


def test_export_prints_path_and_size(cli, trained, patches, tmp_path):
    done = cli("export", trained, tmp_path / "served", "--format", "savedmodel", "--json").json
    assert done["path"] == str(tmp_path / "served" / "1")
    assert done["bytes"] == sum(file.stat().st_size for file in (tmp_path / "served").rglob("*") if file.is_file())
    assert done["export"]["difference"] < 1e-5
    assert done["export"]["latency_ms"] > 0
    words = ("--format", "tflite", "--quantize", "int8", "--calibration", patches)
    said = cli("export", trained / "model.keras", tmp_path / "model.tflite", *words)
    lines = said.out.splitlines()
    assert said.err.startswith("Warning: calibration has only 48 images;") and said.err.count("\n") == 1
    assert lines[0].startswith(f"{tmp_path / 'model.tflite'}  ")
    assert lines[0].endswith(" kB")
    assert re.split(r"\s{2,}", lines[1].strip()) == ["size", "one image", "largest difference"]
    assert [line.split("  ")[0] for line in lines[2:]] == ["Keras model", "tflite"]
    assert cli("predict", tmp_path / "model.tflite", patches / "red" / "00.png").status == 0


def test_export_compares_the_accuracy(cli, trained, patches, tmp_path):
    words = ("export", trained, tmp_path / "m.tflite", "--format", "tflite", "--any-batch", "--data", patches)
    done = cli(*words, "--json").json
    expected = cli("evaluate", trained, patches, "--json").json["top1"]
    assert done["model"]["top1"] == done["export"]["top1"] == expected
    assert done["export"]["bytes"] == (tmp_path / "m.tflite").stat().st_size < done["model"]["bytes"]
    assert cli(*words, "--overwrite").out.splitlines()[-1].endswith(f"{100 * expected:.2f} %")


@pytest.mark.slow
def test_the_card_of_an_export_says_what_it_learnt_from_and_how_good_it_is(cli, trained, patches, tmp_path):
    words = ("export", trained, tmp_path / "served", "--format", "savedmodel", "--data", patches, "--no-fold", "--json")
    done = cli(*words).json
    card = json.loads((tmp_path / "served" / "1" / "model_card.json").read_text())
    assert card["data"] == patches.name
    tested = cli("evaluate", trained, patches, "--json").json
    assert card["accuracy"] == {"top-1": tested["top1"], "images": tested["images"], "data": patches.name}
    assert done["export"]["top1"] == tested["top1"]
    graph = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_images"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert sum(node.op.startswith("FusedBatchNorm") for node in nodes) >= 7
    # A file that is of no run says nothing of data; nobody tested it.
    shutil.copy(trained / "model.keras", tmp_path / "alone.keras")
    assert cli("export", tmp_path / "alone.keras", tmp_path / "alone", "--format", "savedmodel").status == 0
    card = json.loads((tmp_path / "alone" / "1" / "model_card.json").read_text())
    assert (card["data"], card["accuracy"]) == (None, None)


def test_export_of_a_saved_model_with_all_that_may_be_asked(cli, trained, patches, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("blau\ngrün\nrot\n", encoding="utf-8")
    words = (
        "--format savedmodel --precision float16 --top-k 2 --features --image-size 10x12 --batch-size 4 --on-error skip"
    )
    words = (*words.split(), "--max-pixels", 200, "--labels", names)
    done = cli("export", trained, tmp_path / "served", *words, "--json").json
    options = {"top_k": 2, "features": True, "image_size": [10, 12], "batch_size": 4, "on_error": "skip"}
    assert done["options"] == {"precision": "float16"} | options | {"max_pixels": 200}
    assert done["export"]["difference"] < 1e-2
    assert done["export"]["latency_ms"] > 0
    card = json.loads((tmp_path / "served" / "1" / "model_card.json").read_text())
    assert card["options"] == options | {"max_pixels": 200}
    assert card["weights"]["stored"] == "float16"
    assert card["labels"] == ["blau", "grün", "rot"]
    assert {"features", "top_classes", "top_labels", "top_probabilities"} < set(card["outputs"])
    served = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures
    assert served["serving_images"].structured_input_signature[1]["images"].shape == (4, 10, 12, 3)
    file = (patches / "red" / "00.png").read_bytes()
    found = served["serving_default"](image_bytes=tf.constant([file, b"broken", file, file]))
    assert found["classes"].numpy()[1] == -1
    assert found["top_labels"].shape == (4, 2)
    guess = cli("predict", tmp_path / "served", patches / "red" / "00.png", "--json").json[0]["predictions"][0]
    assert guess["label"].encode() == found["labels"].numpy()[0] != b""
    line = cli("export", trained, tmp_path / "served", *words).out.splitlines()[1]
    assert re.split(r"\s{2,}", line.strip()) == ["size", "one image or 4", "largest difference"]


def test_export_warms_up_what_serving_config_batches_to(cli, trained, tmp_path):
    served = tmp_path / "photos"
    assert cli("export", trained, served, "--format", "savedmodel", "--batch-sizes", "1,2,16").status == 0
    warmup = served / "1" / "assets.extra" / "tf_serving_warmup_requests"
    assert sum(1 for _ in tf.data.TFRecordDataset(str(warmup))) == 2 * 3  # each to each signature
    options = "--batch-sizes 1,2,16 --timeout-micros 500 --threads 3 --queue 7 --label stable=1 --base-path /m --name p"
    done = cli("serving-config", served, *options.split())
    assert done.status == 0
    lines = [re.split(r"\s{2,}", line) for line in done.out.splitlines()]
    assert lines == [
        ["file", "for tensorflow_model_server"],
        [str(served / "models.config"), "--model_config_file"],
        [str(served / "batching_parameters.txt"), "--enable_batching --batching_parameters_file"],
        [str(served / "monitoring.config"), "--monitoring_config_file"],
    ]
    written = {path.name: path.read_text() for path in served.iterdir() if path.is_file()}
    again = tmp_path / "again" / "1"
    again.mkdir(parents=True)
    (again / "saved_model.pb").touch()
    paths = export.serving_config(
        again.parent, "p", (1, 2, 16), 500, threads=3, queue=7, base_path="/m", version_labels={"stable": 1}
    )
    assert written == {path.name: path.read_text() for path in paths}
    assert cli("serving-config", served, "--json").json == {
        "models": str(served / "models.config"),
        "batching": str(served / "batching_parameters.txt"),
        "monitoring": str(served / "monitoring.config"),
    }
    assert 'name: "photos"' in (served / "models.config").read_text()
    lines = (
        (served / "batching_parameters.txt").read_text().splitlines()
    )  # those of the export, now that none were given
    assert [line for line in lines if "allowed" in line] == [f"allowed_batch_sizes: {size}" for size in (1, 2, 16)]
    assert "1 warms up with 16 images, which the" in cli("serving-config", served, "--batch-sizes", "1,8").error


def test_export_quantises_as_asked(cli, trained, patches, tmp_path):
    for quantize, words, dtype in (
        ("int8", ("--float-io",), "float32"),
        ("int16x8", (), "int16"),
        ("int16x8", ("--float-io",), "float32"),
    ):
        out = tmp_path / f"{quantize}{len(words)}.tflite"
        calibration = ("--calibration", patches, "--calibration-images", 9)
        options = ("--format", "tflite", "--quantize", quantize, *calibration, *words)
        assert cli("export", trained, out, *options, "--json").json["export"]["difference"] < 0.1
        card = json.loads(out.with_name(out.name + ".json").read_text())
        assert card["quantize"] == quantize and card["calibration_images"] == 9
        assert card["input"]["dtype"] == card["output"]["dtype"] == dtype


def test_export_as_keras_is_folded(cli, trained, patches, tmp_path):
    done = cli("export", trained, tmp_path / "folded.keras", "--format", "keras", "--data", patches, "--json").json
    assert done["export"]["difference"] < 1e-5
    assert done["export"]["top1"] == done["model"]["top1"]
    model = keras.saving.load_model(tmp_path / "folded.keras", compile=False)
    assert not [layer for layer in flat_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    assert cli("predict", tmp_path / "folded.keras", patches / "red" / "00.png").status == 0
    load = "import keras_deepnets; keras.saving.load_model('folded.keras')"
    assert done["load"] == json.loads((tmp_path / "folded.keras.json").read_text())["load"] == load
    said = cli("export", trained, tmp_path / "folded.keras", "--format", "keras", "--overwrite").out
    assert said.endswith(f"\nLoad it in Python: {load}\n")


@pytest.mark.skipif(find_spec("tf2onnx") is None, reason="needs the extra onnx")
def test_export_as_onnx(cli, trained, patches, tmp_path):
    done = cli("export", trained, tmp_path / "m.onnx", "--format", "onnx", "--data", patches, "--json").json
    assert (tmp_path / "m.onnx").stat().st_size == done["bytes"]
    if find_spec("onnxruntime") is not None:
        assert done["export"]["difference"] < 1e-4
        assert done["export"]["top1"] == done["model"]["top1"]
        first = cli("predict", tmp_path / "m.onnx", patches / "red" / "00.png", "--json").json
        assert sorted(guess["label"] for guess in first[0]["predictions"]) == LABELS


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")
def test_export_as_openvino(cli, trained, patches, tmp_path):
    file = tmp_path / "m.xml"
    done = cli("export", trained, file, "--format", "openvino", "--data", patches, "--json").json
    assert done["bytes"] == file.stat().st_size + file.with_suffix(".bin").stat().st_size
    assert done["export"]["difference"] < 1e-4
    assert done["export"]["top1"] == done["model"]["top1"]
    first = cli("predict", file, patches / "red" / "00.png", "--json").json
    assert sorted(guess["label"] for guess in first[0]["predictions"]) == LABELS
    found = [cli("evaluate", each, patches, "--split", "all", "--json").json["top1"] for each in (file, trained)]
    assert found[0] == found[1] > 0.5
    error = cli("export", trained, file, "--format", "openvino").error
    assert error == f"{file} exists; name another file, or give --overwrite."
    words = ("export", trained, file, "--format", "openvino", "--overwrite")
    assert "quantize" in cli(*words, "--quantize", "int16x8", "--calibration", patches).error
    assert cli(*words, "--precision", "bfloat16", "--batch-size", "4").status == 0
    assert json.loads((tmp_path / "m.xml.json").read_text())["input"]["shape"][0] == 4


def test_a_line_at_a_terminal_says_what_is_done(monkeypatch, capsys):
    from keras_deepnets.cli import show

    with show.steps() as say:
        say("converting")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with show.steps() as say:
        say("converting")
    assert "converting" in capsys.readouterr().out
    with show.steps(quiet=True) as say:
        say("converting")
    assert capsys.readouterr().out == ""


def test_fields_are_read_as_python_values():
    texts = [
        "batch_size=64",
        "learning-rate=1e-2",
        "milestones=0.5,0.75",
        "augmentation=none",
        "nesterov=True",
        "schedule=cosine",
    ]
    assert command.pairs(texts, "--set") == {
        "batch_size": 64,
        "learning_rate": 0.01,
        "milestones": (0.5, 0.75),
        "augmentation": None,
        "nesterov": True,
        "schedule": "cosine",
    }
    with pytest.raises(InputError, match=r"--set 'batch_size' is not of the form field=value"):
        command.pairs(["batch_size"], "--set")


@pytest.mark.slow
def test_ctrl_c_stops_a_run_that_the_same_command_resumes(cli, patches, tmp_path):
    program = "import sys; from keras_deepnets.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["train", TINY[0], str(patches), *TINY[1:], "--run-dir", str(tmp_path / "run")]
    words[words.index("--epochs") + 1] = "25"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert lines[0].startswith("On ") and "float32 (as requested)" in lines[0]
    assert "48 images of" in lines[1]
    assert lines[2].startswith("epoch  1/25")
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "resumes" in err
    assert not (tmp_path / "run" / "model.keras").exists()

    assert "unfinished run" in cli("predict", tmp_path / "run", patches / "red").error
    done = cli(*words)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[1].startswith("Resuming ")
    assert "\nepoch 25/25 " in done.out
    assert "\nepoch  1/25 " not in done.out
