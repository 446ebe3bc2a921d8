"""One small model in two versions, and the servers that serve it."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import keras
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export
from tests.export.conftest import photographs, unsettle
from tests.serving.stand_in import Model, StandIn

BATCH_SIZES = (1, 2, 4)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Versions 1 and 2 of a network, which differ in weights and in the names of the classes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for version, labels in ((1, ["old a", "old b", "old c"]), (2, ["ä", "b", "c"])):
        keras.utils.set_random_seed(version)
        model = kd.PlainNet(
            depth=8, stem="cifar", filters=(8, 8, 8), input_shape=(16, 16, 3), classes=3, include_preprocessing=True
        )
        export.saved_model(unsettle(model, version), folder, labels, version, batch_sizes=BATCH_SIZES)
    return folder


@pytest.fixture(scope="session")
def image_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / "one.jpg", folder / "two.png", folder / "three.jpg"]
    for number, (path, size) in enumerate(zip(paths, [(16, 16), (40, 25), (20, 33)], strict=True)):
        picture = photographs(1, *size, seed=number)[0]
        encoded = tf.io.encode_png(picture) if path.suffix == ".png" else tf.io.encode_jpeg(picture)
        path.write_bytes(encoded.numpy())
    return paths


@pytest.fixture
def stand_in(loaded_model):
    """A fresh stand-in: faults and counts are a test's own."""
    with StandIn({"tiny": loaded_model}) as server:
        yield server


@pytest.fixture(scope="session")
def loaded_model(model_folder):
    return Model(model_folder, {"stable": 1, "canary": 2})


@pytest.fixture(params=["stand-in", "tensorflow_model_server"])
def url(request):
    """Where a server is: the stand-in, and the real one where it is installed."""
    if request.param == "stand-in":
        return request.getfixturevalue("stand_in").url
    return request.getfixturevalue("real_server")


@pytest.fixture(scope="session")
def real_server(model_folder, tmp_path_factory):
    """`tensorflow_model_server` with what `serving_config` writes; its REST URL."""
    program = shutil.which("tensorflow_model_server")
    if program is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    folder = tmp_path_factory.mktemp("real") / "tiny"
    shutil.copytree(model_folder, folder)
    models, batching, monitoring = export.serving_config(
        folder, batch_sizes=BATCH_SIZES, base_path=str(folder), version_labels={"stable": 1, "canary": 2}
    )
    port = free_port()
    command = [program, f"--port={free_port()}", f"--rest_api_port={port}", f"--model_config_file={models}"]
    command += ["--allow_version_labels_for_unavailable_models", f"--monitoring_config_file={monitoring}"]
    command += ["--enable_batching", f"--batching_parameters_file={batching}"]
    with (folder.parent / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/tiny", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None and time.monotonic() < end, (folder.parent / "log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
