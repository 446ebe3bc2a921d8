"""`plot`, `report`, `compare` and `tables`: what they print, write and refuse."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_deepnets as kd
from keras_deepnets import reports
from keras_deepnets.errors import InputError
from tests.pages import Text

from .conftest import COLOURS

pytestmark = pytest.mark.integration

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert reports.report(trained, path) == path
    return path


def test_the_page_tells_the_run(page, trained, patches):
    found = Text(page.read_text(encoding="utf-8"))
    config = json.loads((trained / "config.json").read_text())
    held = kd.data.load(patches, config["validation"]["split"], seed=3, validation=config["validation"]["cut"])
    result = kd.training.evaluate(trained, held)
    for text in (
        f"run: plainnet on {patches.name}",
        f"{100 * (1 - result.top1):.2f} %\ntop-1 error",
        "expected calibration error",
        f"split train: {config['data']['size']} images",
        f"{trained.name}",
        "The run was started from Python code.",
        "fast: ",
        kd.__version__,
        "blue, green, red",
        # 4 bytes each, with the moving statistics of BN.
        f"weights\n{4 * keras.saving.load_model(trained / 'model.keras').count_params() / 1e6:.3g} MB",
        "Correctly classified images with the highest probability.",
    ):
        assert text in found.text, text
    for label, value in result.per_class.items():
        assert re.search(rf"^{label}\n\d+\n{100 * value:.2f} %$", found.text, re.MULTILINE)


def test_the_page_needs_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    found = Text(text)
    assert found.loads == [] and not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "url(" not in text and "@import" not in text
    # Curves, confusion, calibration; then an image and its Grad-CAM for each example.
    assert len(found.pictures) >= 3 + 2
    for kind, data in found.pictures:
        assert kind == "data:image/png"
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()


@pytest.mark.parametrize("width", [1000, 360])
def test_a_browser_shows_the_page_without_a_sideways_scroll(page, width, tmp_path):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("needs Chromium")
    shot = tmp_path / "shot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},4000",
        f"--screenshot={shot}",
    ]
    done = subprocess.run([program, *options, page.as_uri()], capture_output=True, text=True, timeout=60)
    if not shot.exists():
        pytest.skip(f"Chromium does not start: {done.stderr[-200:]}")
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape[1] == width
    # Nothing but the frame of a table reaches the margin at the right.
    assert (pixels[:, -8:] == 255).all()
    blue = np.array([0x00, 0x72, 0xB2])
    assert (np.abs(pixels - blue).max(-1) < 40).sum() > 50  # the curves
    assert (pixels == 255).all(-1).mean() < 0.95


def test_names_are_escaped_and_exports_are_listed(trained, tmp_path):
    run = tmp_path / "a<b> & 猫"
    shutil.copytree(trained, run)
    config = json.loads((run / "config.json").read_text())
    config["command"] = ["/x/bin/keras-deepnets", "train", "<script>alert(1)</script>"]
    (run / "config.json").write_text(json.dumps(config))
    (run / "small.tflite").write_bytes(b"x" * 2_500_000)
    (run / "fast.xml").write_bytes(b"x" * 500_000)
    (run / "fast.bin").write_bytes(b"x" * 4_000_000)
    (run / "other.xml").write_bytes(b"x")
    (tmp_path / "served" / "1" / "variables").mkdir(parents=True)
    (tmp_path / "served" / "1" / "saved_model.pb").write_bytes(b"x" * 1000)
    (tmp_path / "served" / "1" / "variables" / "data").write_bytes(b"x" * 9000)
    path = reports.report(run, limit=5, exports=[tmp_path / "served"])
    assert path == run / "report.html"
    found = Text(path.read_text(encoding="utf-8"))
    assert "script" not in found.tags
    assert "keras-deepnets train '<script>alert(1)</script>'" in found.text
    assert "a<b> & 猫: plainnet" in found.text and "5 images of it" in found.text
    assert "small.tflite\nTFLite\n2.5 MB" in found.text
    assert "fast.xml\nOpenVINO\n4.5 MB" in found.text and "other.xml" not in found.text
    assert f"{tmp_path / 'served' / '1'}\nSavedModel\n0.01 MB" in found.text


def test_report_command(cli, trained, tmp_path):
    done = cli("report", trained, "--out", tmp_path / "r.html", "--limit", 1)
    assert done.status == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'r.html'}  ")
    assert cli("report", tmp_path).error.endswith("has no config.json; give the folder of a run.")
    assert "must end in .html" in cli("report", trained, "--out", tmp_path / "r.txt").error
    assert "does not exist" in cli("report", trained, "--exports", tmp_path / "none").error
    assert (
        "Or give other data" in cli("report", trained, "--data", tmp_path / "none", "--out", tmp_path / "s.html").error
    )
    assert not (tmp_path / "s.html").exists()


def test_an_unfinished_run(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "model.keras").unlink()
    with pytest.raises(InputError, match="unfinished run"):
        reports.report(run)
    with pytest.raises(InputError, match="unfinished run"):
        reports.plot(run, "filters", tmp_path / "filters.png")
    assert reports.compare([run]).rows[0]["parameters"] is None


@pytest.mark.parametrize(
    "kind", ["curves", "confusion", "calibration", "grad-cam", "filters", "responses", "stages", "network"]
)
def test_plot(trained, kind, tmp_path):
    path = tmp_path / "picture.png"
    assert reports.plot(trained, kind, path, images=5) == path
    with Image.open(path) as picture:
        assert min(picture.size) > 250
        assert np.asarray(picture.convert("L")).std() > 5


def test_plot_command(cli, trained, patches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("plot", trained / "model.keras", "grad-cam", "--data", patches, "--split", "all", "--images", 3)
    assert done.status == 0, done.err
    assert done.out == f"model-grad-cam.png: {reports.KINDS['grad-cam'].shows}\n"
    values = cli("plot", trained, trained, "curves", "--out", "r.svg", "--json").json
    assert values == {"kind": "curves", "picture": "r.svg"} and Path("r.svg").exists()


def test_plot_refuses(cli, trained, tmp_path):
    assert "The kinds: curves, confusion" in cli("plot", trained, "pictures").error
    assert "no dense blocks" in cli("plot", trained, "reuse").error
    assert "shows one run or model, and 2 are given" in cli("plot", trained, trained, "filters").error
    assert "neither the folder of a run" in cli("plot", "nothing.keras", "filters").error
    assert "without trained weights" in cli("plot", "resnet20", "filters").error
    assert "must end in .png, .svg, .pdf" in cli("plot", trained, "filters", "--out", "a.gif").error
    (tmp_path / "broken.keras").write_bytes(b"not a zip")
    assert "cannot be loaded as a Keras model" in cli("plot", tmp_path / "broken.keras", "filters").error


def test_plot_of_a_name_and_of_a_model(tmp_path):
    assert reports.plot("highway1", "stages", tmp_path / "stages.png").exists()
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3), classes=3)
    assert reports.plot(model, "network", tmp_path / "network.svg").exists()
    with pytest.raises(InputError, match="give images with data"):
        reports.plot(model, "responses", tmp_path / "responses.png")
    with pytest.raises(InputError, match="curves need the folder of a run"):
        reports.plot(model, "curves", tmp_path / "curves.png")


def test_the_surface_of_a_run(trained, tmp_path):
    said = []
    assert reports.plot(trained, "surface", tmp_path / "s.png", images=4, say=said.append).exists()
    assert said[-1] == "loss at point 121 of 121"


def test_compare(cli, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    out = tmp_path / "c.png"
    done = cli("compare", trained, other, "--out", out)
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:2] == ["run", "network"] and lines[2].startswith("other  plainnet (depth=8, stem=cifar)")
    assert lines[-1] == f"Curves: {out}" and out.exists()
    first, second = cli("compare", trained, other, "--out", out, "--json").json["runs"]
    model = kd.PlainNet(depth=8, stem="cifar", input_shape=(8, 8, 3), classes=len(COLOURS))
    assert first["parameters"] == second["parameters"] == sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    metrics = (trained / "metrics.csv").read_text().splitlines()
    last = dict(zip(metrics[0].split(","), map(float, metrics[-1].split(",")), strict=True))
    assert first["held_error"] == pytest.approx(1 - last["val_accuracy"])
    assert first["train_error"] == pytest.approx(1 - last["accuracy"]) and first["epochs"] == 2


def test_compare_refuses(cli, trained, tmp_path):
    assert "given twice" in cli("compare", trained, trained, "--out", tmp_path / "c.png").error
    assert "does not exist" in cli("compare", tmp_path / "none").error
    detector = tmp_path / "detector"
    shutil.copytree(trained, detector)
    config = json.loads((detector / "config.json").read_text())
    config["recipe"]["anchors"] = 256
    (detector / "config.json").write_text(json.dumps(config))
    assert "compare them separately" in cli("compare", trained, detector, "--out", tmp_path / "c.png").error
    (tmp_path / "empty").mkdir()
    shutil.copy(trained / "config.json", tmp_path / "empty")
    assert "has no epoch yet" in cli("compare", tmp_path / "empty", "--out", tmp_path / "c.png").error


def test_a_detection_run(tmp_path):
    """What a report takes from the folder of a detector, without the detector itself."""
    from keras_deepnets.reports import detector_report
    from keras_deepnets.reports.html import Page

    found = {
        "images": 87,
        "objects": 1137,
        "detections": 3470,
        "ap": 0.579,
        "ap50": 0.9005,
        "ap75": None,
        "voc07": 0.874,
    }
    found["per_class"] = [{"name": "Platelets & co", "images": 45, "objects": 83, "ap": 0.443, "ap50": 0.8693}]
    page = Page("detector")
    detector_report._results(page, found)
    text = Text(str(page)).text
    assert "87 images with 1,137 objects; 3,470 detections." in text
    assert "Platelets & co\n45\n83\n44.3 %\n86.9 %" in text
    run = reports.RunSummary(tmp_path, {"recipe": {"anchors": 256}}, {"epochs": 15, "seconds": 1620.0}, found)
    assert run.task == "detection"
    numbers = dict(detector_report._numbers(run, found))
    assert numbers["AP at IoU 0.5"] == "90.0 %" and numbers["training time"] == "27 min" and len(numbers) == 5


# --- the papers' tables ---


def test_tables_hold_the_published_errors():
    """The figures agree with those that the package prints for its networks."""
    from keras_deepnets.reports.published import PAPER_TABLES

    checked = 0
    for table in PAPER_TABLES:
        for row in table.rows:
            assert len(row.figures) == len(table.columns), row
            if row.network is None or row.options or table.name in ("densenet", "highway", "detection", "resnext"):
                continue
            published = kd.model_info(row.network).error
            if published and row.network not in ("dsn", "maxoutcnn", "nin", "highway2", "highway4"):
                assert float(published.split()[0]) == float(row.figures[-1].split()[0]), row
                checked += 1
    assert checked == 18


def test_parameters_are_those_of_the_papers():
    """Printed parameters, such as 0.27M, are ours to the printed digits. The exceptions are known."""
    known = {"FractalNet21", "StochasticDepthResNet1202", "PreActResNet1001", "Highway4", "DenseNet100_24"}
    for table in reports.tables(["cifar-resnet", "densenet"]):
        at, ours, name = (table.columns.index(column) for column in ("parameters (paper)", "parameters", "network"))
        for row in table.rows:
            if row[at] != "–" and row[ours] != "–" and row[name] not in known:
                digits = len(row[at].rstrip("M").partition(".")[2])
                assert f"{int(row[ours].replace(',', '')) / 1e6:.{digits}f}M" == row[at], row


def test_measured_errors(cli, trained, tmp_path):
    runs = tmp_path / "runs"
    for name, changes, accuracy in (
        ("good", {"name": "resnet20", "options": {}}, 0.9),
        ("better elsewhere", {"name": "resnet20", "options": {}}, 0.95),
        ("builder", {"name": "resnet", "options": {"depth": 32, "stem": "cifar", "shortcut": "A"}}, 0.8),
        ("other shortcut", {"name": "resnet", "options": {"depth": 44, "stem": "cifar", "shortcut": "B"}}, 0.8),
    ):
        shutil.copytree(trained, runs / name, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
        config = json.loads((runs / name / "config.json").read_text())
        config["model"] = changes
        config["data"]["name"] = "digits" if name == "better elsewhere" else "cifar10"
        (runs / name / "config.json").write_text(json.dumps(config))
        lines = (runs / name / "metrics.csv").read_text().splitlines()
        row = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True)) | {"val_accuracy": str(accuracy)}
        (runs / name / "metrics.csv").write_text("\n".join([*lines[:-1], ",".join(row.values())]) + "\n")
    (table,) = reports.tables(["cifar-resnet"], runs)
    measured = {row[table.columns.index("network")]: row[-1] for row in table.rows}
    assert measured["ResNet20"] == "10.00 % (good)"
    assert measured["ResNet32"] == "20.00 % (builder)"
    assert measured["ResNet44"] == measured["ResNet56"] == "–"
    out = tmp_path / "tables.md"
    assert cli("tables", "cifar-resnet", "--runs", runs, "--out", out).out == f"{out}: 1 table\n"
    printed = cli("tables", "cifar-resnet", "--runs", runs).out
    assert out.read_text(encoding="utf-8") == printed
    assert "| ResNet | 20 | 0.27M | 8.75 | ResNet20 | 269,722 | 4.06e7 | 10.00 % (good) |" in printed
    assert "The tables: imagenet-resnet" in cli("tables", "table9").error
    assert "is not a folder" in cli("tables", "highway", "--runs", tmp_path / "none").error
    (one,) = cli("tables", "highway", "--json").json
    assert one["name"] == "highway" and len(one["rows"]) == 9


@pytest.mark.slow
def test_all_tables_can_be_computed():
    found = reports.tables()
    assert [table.name for table in found][:3] == ["imagenet-resnet", "imagenet-ensembles", "cifar-resnet"]
    units = next(table for table in found if table.name == "residual-units")
    assert all(row[units.columns.index("parameters")].startswith(("1,730,", "1,70")) for row in units.rows)
