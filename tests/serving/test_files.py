"""What TF Serving reads beside the graph: warm-up requests and configuration."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.errors import InputError
from keras_deepnets.export import serving
from tests.serving.conftest import BATCH_SIZES
from tests.serving.protos import CLASSES

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(tmp_path):
    """A model's folder as `serving_config` looks at it."""
    for version in (1, 3, 10):
        (tmp_path / "tiny" / str(version)).mkdir(parents=True)
        (tmp_path / "tiny" / str(version) / "saved_model.pb").touch()
    (tmp_path / "tiny" / "12").mkdir()
    return tmp_path / "tiny"


def parsed(path, message):
    """The file as our own definitions of TF Serving's messages read it."""
    return text_format.Parse(path.read_text(encoding="ascii"), CLASSES[message]())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def warmup_records(version):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def check_warmup(parse, version):
    signatures = tf.saved_model.load(str(version)).signatures
    requests = [parse(record).predict_log.request for record in warmup_records(version)]
    found = []
    for request in requests:
        assert request.model_spec.name == "default" and list(request.inputs) in (["image_bytes"], ["images"])
        ((name, proto),) = request.inputs.items()
        value = tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(proto.dtype))  # as the C++ server does
        np.testing.assert_array_equal(value, tf.make_ndarray(proto))
        outputs = signatures[request.model_spec.signature_name](**{name: value})
        assert outputs["probabilities"].shape == (value.shape[0], 3)
        found.append((request.model_spec.signature_name, value.dtype, tuple(value.shape)))
    assert found == [
        expected
        for size in BATCH_SIZES
        for expected in (
            ("serving_default", tf.string, (size,)),
            ("serving_images", tf.uint8, (size, 16, 16, 3)),
        )
    ]


def test_every_batch_size_is_warmed_up_on_both_signatures(model_folder):
    check_warmup(CLASSES["PredictionLog"].FromString, model_folder / "2")


def test_servings_own_parser_reads_the_same_warm_up_requests(model_folder):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="no tensorflow-serving-api")
    check_warmup(logs.PredictionLog.FromString, model_folder / "2")
    for record in warmup_records(model_folder / "2"):
        log = logs.PredictionLog.FromString(record)
        assert log.SerializeToString(deterministic=True) == record  # nothing unknown, nothing in another order


def test_warm_up_requests_are_small_whatever_the_batch(model_folder):
    assert max(map(len, warmup_records(model_folder / "2"))) < 1500


@pytest.mark.parametrize("sizes", [(), (0, 1), (2, 1), (1, 1), (1.0,), (True, 2), 8, "18"])
def test_batch_sizes_are_whole_numbers_in_rising_order(sizes, folder, tmp_path):
    with pytest.raises(InputError, match="whole numbers from 1 in rising order") as error:
        export.serving_config(folder, batch_sizes=sizes)
    assert "\n" not in str(error.value) and contents(folder) == {}
    model = kd.PlainNet(depth=8, stem="cifar", filters=(8, 8, 8), input_shape=(16, 16, 3), classes=3)
    with pytest.raises(InputError, match="rising order"):
        export.saved_model(model, tmp_path / "new", batch_sizes=sizes)
    assert not (tmp_path / "new").exists()


def test_the_default_configuration(folder):
    paths = export.serving_config(folder)
    assert [path.name for path in paths] == ["models.config", "batching_parameters.txt", "monitoring.config"]
    assert sorted(contents(folder)) == sorted(path.name for path in paths)
    (model,) = parsed(paths[0], "ModelServerConfig").model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("tiny", "/models/tiny", "tensorflow")
    assert not model.HasField("model_version_policy") and not model.version_labels
    batching = parsed(paths[1], "BatchingParameters")
    assert list(batching.allowed_batch_sizes) == [1, 8, 32] and batching.max_batch_size.value == 32
    assert batching.batch_timeout_micros.value == 2000 and batching.max_enqueued_batches.value == 100
    assert not batching.HasField("num_batch_threads") and not batching.pad_variable_length_inputs
    monitoring = parsed(paths[2], "MonitoringConfig").prometheus_config
    assert monitoring.enable and monitoring.path == "/monitoring/prometheus/metrics"


def test_every_value_reaches_its_field(folder):
    models, batching, _ = export.serving_config(
        folder,
        "other-name",
        batch_sizes=[2, 16],
        timeout_micros=0,
        threads=3,
        queue=7,
        base_path='gs://bücket/"quoted"\\',
        version_labels={"stable": 3, "canary": 10, "last": 3},
    )
    (model,) = parsed(models, "ModelServerConfig").model_config_list.config
    assert (model.name, model.base_path) == ("other-name", 'gs://bücket/"quoted"\\')
    assert list(model.model_version_policy.specific.versions) == [3, 10]
    assert dict(model.version_labels) == {"stable": 3, "canary": 10, "last": 3}
    values = parsed(batching, "BatchingParameters")
    assert list(values.allowed_batch_sizes) == [2, 16] and values.max_batch_size.value == 16
    assert values.HasField("batch_timeout_micros") and values.batch_timeout_micros.value == 0
    assert values.num_batch_threads.value == 3 and values.max_enqueued_batches.value == 7


def test_servings_own_parser_reads_the_models(folder):
    config = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2", reason="no tensorflow-serving-api"
    )
    models, _, _ = export.serving_config(folder, base_path="/ä/b", version_labels={"stable": 3})
    (model,) = text_format.Parse(models.read_bytes(), config.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, dict(model.version_labels)) == ("tiny", "/ä/b", {"stable": 3})
    assert list(model.model_version_policy.specific.versions) == [3]


def test_the_text_is_what_the_documentation_shows(folder):
    models, batching, _ = export.serving_config(folder, batch_sizes=(1, 4), version_labels={"stable": 3})
    assert " ".join(models.read_text().split()) == (
        'model_config_list { config { name: "tiny" base_path: "/models/tiny" model_platform: "tensorflow" '
        'model_version_policy { specific { versions: 3 } } version_labels { key: "stable" value: 3 } } }'
    )
    assert batching.read_text().splitlines() == [
        "max_batch_size { value: 4 }",
        "batch_timeout_micros { value: 2000 }",
        "max_enqueued_batches { value: 100 }",
        "allowed_batch_sizes: 1",
        "allowed_batch_sizes: 4",
        "pad_variable_length_inputs: false",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model_name": "a/b"}, "model_name 'a/b' cannot be part of a URL"),
        ({"model_name": ""}, "model_name '' cannot be part"),
        ({"timeout_micros": -1}, "timeout_micros=-1 is not a whole number from 0"),
        ({"timeout_micros": 1.5}, "timeout_micros=1.5 is not"),
        ({"threads": 0}, "threads=0 is not a whole number from 1"),
        ({"queue": True}, "queue=True is not"),
        ({"base_path": "models/tiny"}, "base_path='models/tiny' is neither absolute nor a URL"),
        ({"version_labels": {"stable": 12}}, "version 12; .* holds versions 1, 3, 10"),
        ({"version_labels": {"stable": True}}, "is for version True"),
        ({"version_labels": {"a b": 1}}, "label 'a b' cannot be part"),
    ],
)
def test_values_out_of_range_are_named_and_nothing_is_written(folder, arguments, message):
    with pytest.raises(InputError, match=message) as error:
        export.serving_config(folder, **arguments)
    assert "\n" not in str(error.value) and contents(folder) == {}


def test_a_folder_without_versions_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=f"{path} holds no version of a model"):
            export.serving_config(path)
    assert list(tmp_path.iterdir()) == []


def card(version, batch_sizes=None, batch_size=None):
    sizes = {} if batch_sizes is None else {"batch_sizes": batch_sizes}
    (version / "model_card.json").write_text(json.dumps({"options": {"batch_size": batch_size}} | sizes))


def allowed(folder, **arguments):
    """The batch sizes that the server gets."""
    _, batching, _ = export.serving_config(folder, **arguments)
    values = parsed(batching, "BatchingParameters")
    assert values.max_batch_size.value == values.allowed_batch_sizes[-1]
    return list(values.allowed_batch_sizes)


def test_batch_sizes_are_those_that_the_served_versions_were_exported_with(folder):
    card(folder / "1", [1, 4])
    card(folder / "3", [1, 2, 64])
    card(folder / "10", [2, 16])
    assert allowed(folder) == [2, 16]  # the newest is served
    assert allowed(folder, version_labels={"stable": 1, "canary": 3}) == [1, 2, 4, 64]
    assert allowed(folder, batch_sizes=[16, 32]) == [16, 32]  # smaller warm-up requests are padded
    card(folder / "10", batch_size=5)
    assert allowed(folder) == allowed(folder, batch_sizes=(5,)) == [5]
    card(folder / "10")  # of an export that did not say it yet
    assert allowed(folder) == [1, 8, 32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batch_sizes": (1, 8)},
            r"batch_sizes=\(1, 8\): \S*/10 warms up with 16 images, .* make the last size 16 or more, or export it with "
            r"batch_sizes=\(1, 8\)\.",
        ),
        (
            {"batch_sizes": (1, 4), "version_labels": {"fixed": 3}},
            r"batch_sizes=\(1, 4\): \S*/3 takes only batches of 4; give \(4,\), or export it without batch_size",
        ),
        (
            {"version_labels": {"fixed": 3, "free": 10}},
            r"batch_sizes=\(2, 4, 16\): \S*/3 takes only batches of 4; serve it without the other versions, or",
        ),
        ({"version_labels": {"a": 1}}, r"/1/model_card\.json is not a model card \(.*\); export the version again"),
    ],
)
def test_what_would_keep_the_server_from_loading_a_version_is_refused(folder, arguments, message):
    (folder / "1" / "model_card.json").write_text("[")
    card(folder / "3", [4], batch_size=4)
    card(folder / "10", [2, 16])
    with pytest.raises(InputError, match=message) as error:
        export.serving_config(folder, **arguments)
    assert "\n" not in str(error.value) and contents(folder) == {}


def test_the_card_of_an_export_says_its_batch_sizes(model_folder, tmp_path):
    shutil.copytree(model_folder / "2", tmp_path / "tiny" / "2")
    assert allowed(tmp_path / "tiny") == list(BATCH_SIZES)
    with pytest.raises(InputError, match="warms up with 4 images"):
        export.serving_config(tmp_path / "tiny", batch_sizes=(1, 2))


def test_a_failing_write_leaves_the_old_configuration_whole(folder, monkeypatch):
    paths = export.serving_config(folder)
    before = contents(folder)

    def full_disk(*words):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serving, "_models", lambda *words: "x" * 100)
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(InputError, match="No space left on device; give a writable place"):
        export.serving_config(folder, batch_sizes=(1,))
    assert contents(folder) == before and len(before) == len(paths)


def test_the_configuration_is_no_version(model_folder, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(model_folder / "1", folder / "1")
    export.serving_config(folder)
    picture = np.zeros((1, 16, 16, 3), "uint8")
    assert export.predict(folder, picture)["labels"][0].startswith("old")


def test_saved_model_cli_shows_both_signatures(model_folder):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "show", "--all", "--dir"]
    done = subprocess.run([*command, str(model_folder / "2")], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found, block, entry = {}, None, None
    for line in map(str.strip, done.stdout.splitlines()):
        if line.startswith("signature_def['"):
            block = found.setdefault(line.split("'")[1], {})
        elif line.startswith(("inputs['", "outputs['")) and block is not None:
            entry = block.setdefault(f"{line.split('[')[0]} {line.split(chr(39))[1]}", [])
        elif line.startswith(("dtype: ", "shape: ")) and entry is not None:
            entry.append(line.split(": ")[1])
    outputs = {
        "outputs probabilities": ["DT_FLOAT", "(-1, 3)"],
        "outputs classes": ["DT_INT64", "(-1)"],
        "outputs labels": ["DT_STRING", "(-1)"],
    }
    assert found["serving_default"] == {"inputs image_bytes": ["DT_STRING", "(-1)"]} | outputs
    assert found["serving_images"] == {"inputs images": ["DT_UINT8", "(-1, -1, -1, 3)"]} | outputs
    assert set(found) <= {"serving_default", "serving_images", "__saved_model_init_op"}
