"""The scripts of `examples/serving/`, as a user starts them, against the stand-in."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export
from tests.export.conftest import photographs, unsettle
from tests.serving.stand_in import Model, StandIn

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples" / "serving"
needs_api = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_serving") is None, reason="tensorflow-serving-api is not installed"
)


def script(name, *words, expected=0):
    """What a script prints: its lines on stdout, or the text on stderr where it is to fail."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expected, done.stderr
    return done.stderr if expected else done.stdout.splitlines()


@pytest.fixture(scope="module")
def rest():
    return module("rest_client")


def module(name):
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


def lines_for(paths, expected):
    rows = zip(paths, expected["labels"], expected["probabilities"].max(-1), strict=True)
    return [f"{path}\t{label}\t{value:.4f}" for path, label, value in rows]


def test_the_rest_client_needs_only_python_and_prints_labels(stand_in, model_folder, image_files):
    # -I -S: without site-packages.
    command = [sys.executable, "-I", "-S", str(EXAMPLES / "rest_client.py"), "--model", "tiny", "--url", stand_in.url]
    done = subprocess.run([*command, *image_files], capture_output=True, timeout=60, check=True)
    assert done.stdout.decode().splitlines() == lines_for(image_files, export.predict(model_folder, image_files))
    found = script("rest_client.py", "--model", "tiny", "--url", stand_in.url, "--label", "stable", *image_files)
    assert found == lines_for(image_files, export.predict(model_folder / "1", image_files))


@pytest.fixture(scope="module")
def skipping(tmp_path_factory):
    """A server of an export that skips broken images."""
    folder = tmp_path_factory.mktemp("skipping")
    model = kd.PlainNet(depth=8, stem="cifar", filters=(8, 8, 8), input_shape=(16, 16, 3), classes=3)
    export.saved_model(unsettle(model), folder, on_error="skip")
    with StandIn({"tiny": Model(folder)}) as server:
        yield server, folder


@pytest.mark.parametrize("client", ["rest", pytest.param("grpc", marks=needs_api)])
def test_skipped_images_are_told(client, skipping, image_files, tmp_path):
    server, folder = skipping
    (tmp_path / "text.jpg").write_text("no picture")
    where = ["--url", server.url] if client == "rest" else ["--server", server.grpc]
    found = script(
        f"{client}_client.py", "--model", "tiny", *where, image_files[0], tmp_path / "text.jpg", image_files[1]
    )
    good = lines_for(image_files[:2], export.predict(folder, image_files[:2]))
    assert found == [good[0], f"{tmp_path / 'text.jpg'}\tskipped", good[1]]


def test_the_rest_client_reads_nan(skipping, rest):
    (row,) = rest.RestClient(skipping[0].url, "tiny").predict_files([b"no picture"])
    assert (row["label"], row["class"]) == ("", -1) and np.isnan(row["probabilities"]).all()


def test_the_rest_client_in_a_program(rest, stand_in, model_folder, image_files):
    client = rest.RestClient(stand_in.url, "tiny", version=1)
    assert client.status() == {1: "AVAILABLE"}
    images = photographs(2, 20, 31)
    expected = export.predict(model_folder / "1", images)
    for pixels in (images, images.tolist()):
        rows = client.predict_pixels(pixels)
        np.testing.assert_allclose([row["probabilities"] for row in rows], expected["probabilities"], atol=1e-6)
        assert [row["class"] for row in rows] == expected["classes"].tolist()
    client.close()
    assert len(client.predict_files([image_files[0].read_bytes()])) == 1  # connects again


def test_refused_and_dropped_requests_are_sent_again(rest, stand_in, image_files):
    client = rest.RestClient(stand_in.url, "tiny")
    stand_in.faults = [503, "drop", 503]
    assert len(client.predict_files([image_files[0].read_bytes()])) == 1 and stand_in.requests == 4
    stand_in.faults, stand_in.requests = [503] * 10, 0
    with pytest.raises(rest.ServerError, match="503: The batch scheduling queue") as error:
        rest.RestClient(stand_in.url, "tiny", retries=2).predict_files([b""])
    assert error.value.status == 503 and stand_in.requests == 3


@pytest.mark.parametrize("fault", [400, 404, 500])
def test_other_errors_are_not_sent_again(rest, stand_in, fault):
    stand_in.faults = [fault]
    with pytest.raises(rest.ServerError) as error:
        rest.RestClient(stand_in.url, "tiny").predict_files([b""])
    assert error.value.status == fault and stand_in.requests == 1


def test_the_deadline_holds_for_all_attempts(rest, stand_in, image_files):
    files = [image_files[0].read_bytes()]
    start = time.monotonic()
    stand_in.faults = [503] * 1000
    with pytest.raises(rest.ServerError):
        rest.RestClient(stand_in.url, "tiny", deadline=0.5, retries=1000).predict_files(files)
    stand_in.faults, stand_in.delay = [], 2.0
    with pytest.raises(rest.ServerError, match=r"no answer from 127\.0\.0\.1:.*timed out") as error:
        rest.RestClient(stand_in.url, "tiny", deadline=0.5).predict_files(files)
    assert error.value.status == 0 and time.monotonic() - start < 1.9


def test_the_rest_clients_errors_are_one_line(stand_in, image_files, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    common = ["--model", "tiny", "--url", stand_in.url]
    for words, message in (
        ([*common, tmp_path / "text.jpg"], "400: "),
        ([*common, tmp_path / "missing.jpg"], "No such file"),
        (
            ["--model", "other", "--url", stand_in.url, image_files[0]],
            "404: Servable not found for request: Latest(other)",
        ),
        (["--model", "tiny", "--url", "localhost:8501", image_files[0]], "'localhost:8501' is not http://host:port"),
        (["--model", "tiny", "--url", "http://127.0.0.1:9", "--deadline", "0.3", image_files[0]], "no answer from"),
        ([*common, "--version", "1", "--label", "stable", image_files[0]], "a version or a label, not both"),
    ):
        error = script("rest_client.py", *words, expected=1)
        assert error.startswith("rest_client: ") and message in error and "Traceback" not in error


@needs_api
def test_the_grpc_client(stand_in, model_folder, image_files):
    common = ["--model", "tiny", "--server", stand_in.grpc]
    expected = lines_for(image_files, export.predict(model_folder, image_files))
    stand_in.faults = [503, 503]  # gRPC sends them again
    assert script("grpc_client.py", *common, *image_files) == expected
    assert stand_in.requests == 3
    found = script("grpc_client.py", *common, "--label", "stable", *image_files)
    assert found == lines_for(image_files, export.predict(model_folder / "1", image_files))
    assert "NOT_FOUND: Servable not found" in script(
        "grpc_client.py", *common, "--version", "7", *image_files, expected=1
    )


@needs_api
def test_the_grpc_client_sends_pixels(stand_in, model_folder):
    client = module("grpc_client").GrpcClient(stand_in.grpc, "tiny", version=1)
    images = photographs(40, 224, 224)  # more than gRPC's 4 MiB
    expected = export.predict(model_folder / "1", images)
    rows = client.predict_pixels(images)
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected["probabilities"], atol=1e-6)
    assert [row["label"] for row in rows] == expected["labels"].tolist()
    client.close()


def check_load(lines, clients, batch):
    first = re.fullmatch(rf"(\d+) requests in ([\d.]+) s, 0 failed; {clients} clients, {batch} images each", lines[0])
    count, seconds = int(first[1]), float(first[2])
    rate, images = map(float, re.fullmatch(r"throughput  ([\d.]+) requests/s  ([\d.]+) images/s", lines[1]).groups())
    pattern = r"latency     p50 ([\d.]+) ms  p90 ([\d.]+) ms  p99 ([\d.]+) ms  max ([\d.]+) ms"
    latencies = [float(value) for value in re.fullmatch(pattern, lines[2]).groups()]
    assert count >= clients and rate == pytest.approx(count / seconds, rel=0.1)
    assert images == pytest.approx(rate * batch, rel=0.05) and latencies == sorted(latencies)
    return count, latencies


def test_load_over_rest(stand_in, image_files):
    stand_in.delay = 0.05
    words = ["--model", "tiny", "--url", stand_in.url, "--clients", 4, "--seconds", 1, "--batch", 2, *image_files]
    count, latencies = check_load(script("load.py", *words), 4, 2)
    assert count + 4 == stand_in.requests and latencies[0] >= 50  # one request a client before the clock starts


@needs_api
def test_load_over_grpc(stand_in, image_files):
    words = ["--model", "tiny", "--grpc", stand_in.grpc, "--clients", 2, "--seconds", 0.5, image_files[0]]
    check_load(script("load.py", *words), 2, 1)


def test_load_counts_failures_and_says_why(stand_in, image_files):
    stand_in.faults = [None, None, 503]
    words = ["--model", "tiny", "--url", stand_in.url, "--clients", 2, "--seconds", 0.5, image_files[0]]
    assert "failed 1 times: 503: The batch scheduling queue" in script("load.py", *words, expected=1)
    assert "load: 404" in script("load.py", "--model", "other", "--url", stand_in.url, image_files[0], expected=1)


def test_percentiles_are_the_nearest_rank():
    percentile = module("load").percentile
    values = [float(value) for value in range(1, 11)]
    assert [percentile(values, percent) for percent in (0, 10, 50, 90, 91, 99, 100)] == [1, 1, 5, 9, 10, 10, 10]
    assert percentile([3.0], 50) == 3


def test_a_real_server_takes_the_load(request, image_files):
    if shutil.which("tensorflow_model_server") is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    url = request.getfixturevalue("real_server")
    lines = script("load.py", "--model", "tiny", "--url", url, "--clients", 4, "--seconds", 1, *image_files)
    check_load(lines, 4, 1)
