"""Prediction through Beam's direct runner, next to `export.predict`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_deepnets import batch, export
from keras_deepnets.batch import jobs, predicting, storage
from keras_deepnets.errors import InputError

from ..cli.conftest import cli  # noqa: F401 - a fixture
from .conftest import LABELS

beam = pytest.importorskip("apache_beam", reason="pip install '.[beam]'")

from apache_beam.metrics.metric import MetricsFilter  # noqa: E402

from keras_deepnets.batch import pipeline  # noqa: E402 - needs Beam

PROGRAM = "import sys; from keras_deepnets.cli import main; sys.exit(main(sys.argv[1:]))"


def rows_of(summary):
    """All rows of a job of JSONL shards, in order."""
    return [json.loads(line) for path in summary.predictions for line in Path(path).read_text().splitlines()]


def errors_in(folder):
    return [
        json.loads(line) for path in sorted(Path(folder).glob("errors-*")) for line in path.read_text().splitlines()
    ]


def files_in(folder):
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def job(model, photos, tmp_path_factory):
    """A finished job in five shards."""
    return batch.predict_many(model, [photos], tmp_path_factory.mktemp("job") / "out", shards=5, top=4)


@pytest.fixture
def run_folder(model, tmp_path):
    """A folder that holds a model, as a run does."""
    (tmp_path / "run").mkdir()
    shutil.copy(model, tmp_path / "run" / "model.keras")
    return tmp_path / "run"


def test_the_rows_are_those_of_export_predict(job, model, photos):
    rows = rows_of(job)
    names = [row["name"] for row in rows]
    assert names == [str(path) for path in sorted(photos.rglob("*.*"))]
    expected = export.predict(model, names)
    assert expected["probabilities"].std(0).min() > 1e-3
    for row, probabilities, label in zip(rows, expected["probabilities"], expected["labels"], strict=True):
        assert row["classes"][0]["label"] == label
        assert [each["label"] for each in row["classes"]] == [LABELS[int(each["id"])] for each in row["classes"]]
        found = [each["probability"] for each in row["classes"]]
        assert found == pytest.approx(sorted(probabilities, reverse=True), abs=1e-6)


def test_the_summary_and_the_files(job):
    assert (job.images, job.done, job.failed, job.shards, job.kept) == (12, 12, 0, 5, 0)
    assert job.images_per_second == pytest.approx(12 / job.seconds)
    assert files_in(job.out) == ["inputs.jsonl", "job.json", *(f"predictions-0000{n}-of-00005.jsonl" for n in range(5))]
    assert [Path(path).name for path in job.predictions] == files_in(job.out)[2:]


def test_again_does_only_what_is_missing(job, model, photos, tmp_path):
    shutil.copytree(job.out, tmp_path / "out")
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files_in(tmp_path / "out")}
    gone = "predictions-00003-of-00005.jsonl"
    (tmp_path / "out" / gone).unlink()
    (tmp_path / "out" / ".partial-1-a").write_text("half")
    again = batch.predict_many(model, [photos], tmp_path / "out", top=4)
    assert (again.done, again.shards, again.kept) == (12, 5, 4)
    assert not list((tmp_path / "out").glob(".partial*"))
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files_in(tmp_path / "out")}
    assert {name for name in after if after[name] != before[name]} == {gone}
    for one, other in zip(rows_of(job), rows_of(again), strict=True):
        assert one["name"] == other["name"]
        for a, b in zip(one["classes"], other["classes"], strict=True):
            assert a == b | {"probability": pytest.approx(b["probability"], abs=1e-6)}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"top": 3}, "top was 4, and now is 3"),
        ({"format": "parquet"}, 'format was "jsonl", and now is "parquet"'),
        ({"shards": 4}, "shards was 5, and now is 4"),
        ({"features": True}, "top was 4, and now is null"),
    ],
)
def test_another_job_is_refused(job, model, photos, changes, what):
    before = files_in(job.out)
    with pytest.raises(InputError) as error:
        batch.predict_many(model, [photos], job.out, **{"top": 4, **changes})
    assert str(error.value) == f"{job.out} holds another job: {what}; give another folder, or delete that one."
    assert files_in(job.out) == before


def test_another_model_or_other_images_are_refused(job, model, photos, tmp_path):
    net = keras.saving.load_model(model)
    net.layers[-1].bias.assign([1, 0, 0, 0])
    net.save(tmp_path / "other.keras")
    with pytest.raises(InputError, match=r"the model was .*model.keras with digest \w{12}, and now is .*other.keras"):
        batch.predict_many(tmp_path / "other.keras", [photos], job.out, top=4)
    with pytest.raises(InputError, match="it has 12 images, and now there are 6"):
        batch.predict_many(model, [photos / "part0"], job.out, top=4)
    with pytest.raises(InputError, match=r"image file .*00.jpg was in the place of .*01.png"):
        batch.predict_many(model, [photos / "part1", photos / "part0"], job.out, top=4)
    shutil.copytree(photos, tmp_path / "photos")
    first = batch.predict_many(model, [tmp_path / "photos"], tmp_path / "out")
    with (tmp_path / "photos" / "part1" / "01.png").open("ab") as file:
        file.write(b"1")
    with pytest.raises(InputError, match=r"01.png had [\d,]+ bytes, and now has [\d,]+"):
        batch.predict_many(model, [tmp_path / "photos"], tmp_path / "out")
    assert first.shards == 1


def test_broken_images_are_named(model, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "part0" / "00.jpg").write_bytes((photos / "part0" / "00.jpg").read_bytes()[:200])
    (tmp_path / "photos" / "part1" / "empty.png").write_bytes(b"")
    (tmp_path / "photos" / "part1" / "text.gif").write_text("no image")
    (tmp_path / "photos" / "part1" / "link.png").symlink_to(tmp_path / "nowhere")
    found = batch.predict_many(model, [tmp_path / "photos"], tmp_path / "out", shards=3)
    assert (found.images, found.done, found.failed) == (15, 11, 4)
    errors = {Path(row["name"]).name: row["error"] for row in errors_in(tmp_path / "out")}
    single = export.predict(model, [row["name"] for row in errors_in(tmp_path / "out")], on_error="skip")["errors"]
    assert sorted(errors.values()) == sorted(single)
    assert set(errors) == {"00.jpg", "empty.png", "text.gif", "link.png"}
    assert "cannot be read (No such file or directory)" in errors["link.png"]
    assert len(rows_of(found)) == 11
    assert {row["name"] for row in rows_of(found)}.isdisjoint(row["name"] for row in errors_in(tmp_path / "out"))


@pytest.mark.slow
def test_parquet_and_features(model, photos, tmp_path):
    from pyarrow import parquet

    found = batch.predict_many(model, [photos], tmp_path / "a", format="parquet", top=2, shards=2)
    rows = [row for path in found.predictions for row in parquet.read_table(path).to_pylist()]
    expected = export.predict(model, [row["name"] for row in rows])["probabilities"]
    assert [len(row["classes"]) for row in rows] == [2] * 12
    best = [row["classes"][0]["probability"] for row in rows]
    assert best == pytest.approx(expected.max(1), abs=1e-6)

    net = keras.saving.load_model(model)
    served = export.saved_model(net, tmp_path / "served", features=True)
    views = np.stack([_view(net, row["name"]) for row in rows])
    trunk = keras.Model(net.inputs, net.layers[-1].input)
    wanted = trunk.predict(views, verbose=0)
    for number, artifact in enumerate((model, served)):
        for form in ("parquet", "jsonl"):
            out = tmp_path / f"features-{number}-{form}"
            done = batch.predict_many(artifact, [photos], out, format=form, features=True)
            table = parquet.read_table(done.predictions[0]).to_pylist() if form == "parquet" else rows_of(done)
            values = np.array([row["features"] for row in table], "float32")
            assert values.std(0).max() > 1e-3
            np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)
            assert "classes" not in table[0]


def _view(net, path):
    from keras_deepnets.export.classifier import classifier_of

    decoded = export.single_file.decode(Path(path).read_bytes())
    return np.asarray(classifier_of(net, fold=False).view(decoded[None]))[0].astype("float32")


def test_the_run_folder_and_the_saved_model(model, run_folder, photos, job, tmp_path):
    export.saved_model(keras.saving.load_model(model), tmp_path / "served")
    for number, path in enumerate((run_folder, tmp_path / "served")):
        found = batch.predict_many(path, [photos], tmp_path / f"out{number}", top=4)
        for one, other in zip(rows_of(job), rows_of(found), strict=True):
            first = {each["label"]: each["probability"] for each in one["classes"]}
            second = {each["label"]: each["probability"] for each in other["classes"]}
            assert first == pytest.approx(second, abs=1e-5)


def test_rows_of_separated_steps_are_grouped(model, photos, tmp_path, monkeypatch):
    """A runner may give the rows of a shard to several writers; here none of them sees a whole shard."""

    def keep(self, row):
        self._open[row.shard].append(row)
        if len(self._open[row.shard]) == 2:  # as when a bundle ends
            yield beam.pvalue.TaggedOutput("left", (row.shard, self._open.pop(row.shard)))

    monkeypatch.setattr(pipeline.Writer, "process", keep)
    found = batch.predict_many(model, [photos], tmp_path / "out", shards=4)
    assert [row["name"] for row in rows_of(found)] == [str(path) for path in sorted(photos.rglob("*.*"))]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_names_that_are_not_utf8(model, photos, tmp_path, form):
    name = os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    (tmp_path / "in").mkdir()
    try:
        shutil.copy(photos / "part1" / "01.png", name)
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    found = batch.predict_many(model, [tmp_path / "in"], tmp_path / "out", format=form)
    assert (found.done, found.failed) == (1, 0)
    if form == "jsonl":
        assert rows_of(found)[0]["name"] == name


def test_a_shard_that_lacks_rows_is_not_written(tmp_path):
    from keras_deepnets.batch import rows

    row = rows.Row(0, 2, 0, {"name": "a", "classes": []})
    with pytest.raises(RuntimeError, match="shard 0 has 1 of 2 rows"):
        rows.write_shard(str(tmp_path), 1, "jsonl", [row, row], False)
    assert files_in(tmp_path) == []


def test_batches_are_those_of_beam(model, photos, tmp_path, monkeypatch):
    sizes = []
    run = pipeline.Classifier.run_inference

    def counted(self, some, *args):
        sizes.append(len(some))
        return run(self, some, *args)

    monkeypatch.setattr(pipeline.Classifier, "run_inference", counted)
    batch.predict_many(model, [photos], tmp_path / "out", batch_size=3)
    assert sum(sizes) == 12 and max(sizes) <= 3 and len(sizes) < 12


def test_beam_counts_and_progress_is_reported(model, photos, tmp_path, monkeypatch):
    results, said = [], []
    run = beam.Pipeline.run

    def kept(self, *args, **kwargs):
        results.append(run(self, *args, **kwargs))
        time.sleep(0.2)
        return results[-1]

    monkeypatch.setattr(beam.Pipeline, "run", kept)
    monkeypatch.setattr(predicting, "_EVERY", 0.01)
    (tmp_path / "broken.png").write_bytes(b"")
    sources = [photos, tmp_path / "broken.png"]
    batch.predict_many(model, sources, tmp_path / "out", shards=3, report=lambda done, of: said.append((done, of)))
    found = results[0].metrics().query(MetricsFilter().with_namespace(pipeline.COUNTERS))["counters"]
    counters = {counter.key.metric.name: counter.committed for counter in found}
    assert (counters["done"], counters["failed"], counters["num_inferences"]) == (12, 1, 13)
    assert said == sorted(said) and said[-1] == (13, 13)


def test_a_failing_worker_keeps_the_finished_shards(model, photos, tmp_path, monkeypatch):
    run = pipeline.Classifier.run_inference

    def failing(self, some, *args):
        if any(image.shard == 3 for image in some):
            raise MemoryError("no memory for the batch")
        return run(self, some, *args)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Classifier, "run_inference", failing)
        with pytest.raises(batch.JobStopped, match=r"3 of 6 shards are finished \(.*no memory for the batch") as error:
            batch.predict_many(model, [photos], tmp_path / "out", shards=6, batch_size=1)
    assert "\n" not in str(error.value)
    assert batch.predict_many(model, [photos], tmp_path / "out").kept == 3


def test_urls(model, photos, tmp_path):
    from . import memory

    memory.FILES.clear()
    for path in photos.rglob("*.*"):
        memory.FILES[f"mem://bucket/photos/{path.parent.name}/{path.name}"] = path.read_bytes()
    memory.FILES["mem://bucket/photos/note.txt"] = b"note"
    found = batch.predict_many(model, ["mem://bucket/photos"], "mem://bucket/out", shards=3)
    written = {name.removeprefix("mem://bucket/out/") for name in memory.FILES if "/out/" in name}
    assert written == {
        "inputs.jsonl",
        "job.json",
        "model/model.keras",
        *(f"predictions-0000{number}-of-00003.jsonl" for number in range(3)),
    }
    rows = [json.loads(line) for path in found.predictions for line in memory.FILES[path].splitlines()]
    assert len(rows) == 12 and rows[0]["name"] == "mem://bucket/photos/part0/00.jpg"
    expected = export.predict(model, [memory.FILES[row["name"]] for row in rows])["probabilities"]
    assert [row["classes"][0]["probability"] for row in rows] == pytest.approx(expected.max(1), abs=1e-6)
    del memory.FILES["mem://bucket/out/predictions-00001-of-00003.jsonl"]
    assert batch.predict_many(model, ["mem://bucket/photos"], "mem://bucket/out").kept == 2
    # A worker on another machine loads the copy.
    elsewhere = jobs.Model(str(tmp_path / "model.keras"), jobs.model_digest(model), "mem://bucket/out/model")
    with elsewhere.local() as path:
        assert path.read_bytes() == model.read_bytes()
    assert not path.exists()
    with pytest.raises(InputError, match=r"nosuch://a/\*.jpg cannot be listed: "):
        batch.predict_many(model, ["nosuch://a/*.jpg"], tmp_path / "out")


def test_records_by_url(photos, tmp_path):
    from keras_deepnets.batch import inputs

    from . import memory
    from .test_inputs import record_file

    contents = [path.read_bytes() for path in sorted(photos.rglob("*.*"))]
    path = record_file(tmp_path / "a.tfrecord", [("image", content) for content in contents])
    memory.FILES["mem://bucket/a.tfrecord"] = path.read_bytes()
    works, listing = inputs.cut(inputs.find(["mem://bucket/a.tfrecord"]), 3)
    storage.write("mem://bucket/list", listing)
    images = [image for work in works for image in inputs.images_of(work, "mem://bucket/list", "/")]
    assert [image.content for image in images] == contents
    assert images[-1].name == "mem://bucket/a.tfrecord#11"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "csv"}, "format='csv' is neither 'jsonl' nor 'parquet'."),
        ({"top": 0}, "top=0 must be a whole number of at least 1."),
        ({"shards": 13}, "shards=13 is more than the 12 images; give at most one shard per image."),
        ({"runner": "NoRunner"}, "runner 'NoRunner' is unknown; give DirectRunner, DataflowRunner, FlinkRunner, "),
        ({"options": ["nosuch=1"]}, "runner option 'nosuch=1' is unknown to the direct runner; "),
        ({"runner": "DataflowRunner"}, "runner 'DataflowRunner'"),
        ({"options": ["direct_num_workers=x"]}, "runner options direct_num_workers=x: argument --direct_num_workers: "),
        ({"model": "none.keras"}, "none.keras does not exist; give a run folder, a .keras file or an exported model."),
        ({"sources": ["none"]}, "none does not exist; give image files, folders, patterns or TFRecord files."),
    ],
)
def test_bad_input_writes_nothing(model, photos, tmp_path, changes, message):
    arguments = {"model": model, "sources": [photos], "out": tmp_path / "out", **changes}
    with pytest.raises(InputError) as error:
        batch.predict_many(**arguments)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_hold_a_job(model, photos, tmp_path, job):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="full holds other files"):
        batch.predict_many(model, [photos], tmp_path / "full")
    with pytest.raises(InputError, match=r"a.txt is a file; name a folder"):
        batch.predict_many(model, [photos], tmp_path / "full" / "a.txt")
    shutil.copytree(job.out, tmp_path / "damaged")
    (tmp_path / "damaged" / "job.json").write_text("{")
    with pytest.raises(InputError, match=r"job.json is damaged"):
        batch.predict_many(model, [photos], tmp_path / "damaged")
    (tmp_path / "broken.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match="cannot be loaded as a Keras model"):
        batch.predict_many(tmp_path / "broken.keras", [photos], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_artifacts_without_features(model, photos, tmp_path):
    served = export.saved_model(keras.saving.load_model(model), tmp_path / "served")
    with pytest.raises(InputError, match="gives no features; export it again with features=True"):
        batch.predict_many(served, [photos], tmp_path / "out", features=True)
    (tmp_path / "a.tflite").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.tflite gives no features"):
        batch.predict_many(tmp_path / "a.tflite", [photos], tmp_path / "out", features=True)
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_share_a_folder(model, photos, tmp_path):
    with jobs.locked(str(tmp_path / "out")):
        code = f"from keras_deepnets.batch import jobs\nwith jobs.locked({str(tmp_path / 'out')!r}): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another process works on this job" in done.stderr


def test_the_command(cli, model, photos, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    done = cli("predict", model, f"{photos}/*/*.png", "--out", out, "--shards", "2", "--json")
    assert (done.status, done.err) == (0, "")
    values = done.json
    assert (values["images"], values["done"], values["failed"], values["kept"]) == (8, 8, 0, 0)
    assert len(values["predictions"]) == 2
    single = cli("predict", model, *sorted(photos.rglob("*.png")), "--json").json
    rows = [json.loads(line) for path in values["predictions"] for line in Path(path).read_text().splitlines()]
    for row, other in zip(rows, single, strict=True):
        assert row["name"] == other["image"]
        assert [each["label"] for each in row["classes"]] == [each["label"] for each in other["predictions"]]
    again = cli("predict", model, f"{photos}/*/*.png", "--out", out)
    assert (again.status, again.err) == (0, "")
    assert again.out == f"{out}: 8 of 8 images done, 2 shards, 2 finished before, 0.0 img/s\n"


def test_the_command_with_broken_images(cli, model, photos, tmp_path):  # noqa: F811
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    shutil.copy(photos / "part1" / "01.png", tmp_path / "in")
    done = cli("predict", model, tmp_path / "in", "--out", tmp_path / "out")
    assert done.status == 1
    assert done.err == "keras-deepnets: failed: 1 of 2 images cannot be read.\n"
    assert "1 of 2 images done, 1 failed (errors-*.jsonl), 1 shards, " in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--features",), "--features needs --out FOLDER, which predicts with Apache Beam; "),
        (("--runner", "FlinkRunner"), "--runner needs --out FOLDER"),
        (("--out", "out", "--csv", "a.csv"), "--csv does not go with --out; "),
        (("--out", "out", "--strict"), "--strict does not go with --out; "),
        (("--out", "out", "--format", "csv"), "format='csv' is neither 'jsonl' nor 'parquet'."),
    ],
)
def test_options_that_do_not_fit(cli, model, photos, tmp_path, monkeypatch, words, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert cli("predict", model, photos, *words).error.startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_killed_in_the_middle_and_restarted(model, photos, tmp_path):
    """An image that never arrives holds the job. It is killed there, and the same command does the rest."""
    shutil.copytree(photos, tmp_path / "photos")
    os.mkfifo(tmp_path / "photos" / "part1" / "04.png")
    words = ["predict", str(model), str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--shards", "13"]
    words += ["--batch-size", "1"]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words])
    limit = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("predictions-*"))) < 5:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = list((tmp_path / "out").glob("predictions-*"))
    before = {path: path.stat().st_mtime_ns for path in finished}
    (tmp_path / "photos" / "part1" / "04.png").unlink()
    (tmp_path / "photos" / "part1" / "04.png").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words, "--json"], capture_output=True, text=True)
    values = json.loads(done.stdout)
    assert (done.returncode, values["done"], values["failed"], values["kept"]) == (1, 12, 1, len(finished))
    assert 5 <= len(finished) < 13
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    rows = [json.loads(line) for path in values["predictions"] for line in Path(path).read_text().splitlines()]
    expected = export.predict(model, [row["name"] for row in rows])["probabilities"]
    assert [row["classes"][0]["probability"] for row in rows] == pytest.approx(expected.max(1), abs=1e-6)


@pytest.mark.slow
def test_two_worker_processes(model, photos, job, tmp_path):
    options = ["direct_num_workers=2", "direct_running_mode=multi_processing"]
    found = batch.predict_many(model, [photos], tmp_path / "out", shards=5, top=4, options=options)
    assert asdict(found) | {"out": 0, "seconds": 0, "images_per_second": 0, "predictions": 0} == asdict(job) | {
        "out": 0,
        "seconds": 0,
        "images_per_second": 0,
        "predictions": 0,
    }
    for one, other in zip(rows_of(job), rows_of(found), strict=True):
        best = {each["label"]: each["probability"] for each in other["classes"]}
        assert {each["label"]: each["probability"] for each in one["classes"]} == pytest.approx(best, abs=1e-6)
