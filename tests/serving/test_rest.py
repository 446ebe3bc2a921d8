"""TF Serving's REST mapping of the exports: what an operator's `curl` sends and gets, against the stand-in and, where it is, the server."""

import base64
import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from keras_deepnets import export
from tests.export.conftest import photographs

pytestmark = pytest.mark.integration


def ask(url, body=None, path="/v1/models/tiny:predict"):
    """Status and parsed answer; `body` None is a GET."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url + path, data), timeout=60) as response:
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def b64(path):
    return {"b64": base64.b64encode(path.read_bytes()).decode()}


def check_rows(rows, expected):
    assert all(set(row) == {"probabilities", "classes", "labels"} for row in rows)
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected["probabilities"], atol=1e-6)
    assert [row["classes"] for row in rows] == expected["classes"].tolist()
    assert [row["labels"] for row in rows] == expected["labels"].tolist()


def check_columns(columns, expected):
    assert set(columns) == {"probabilities", "classes", "labels"}
    np.testing.assert_allclose(columns["probabilities"], expected["probabilities"], atol=1e-6)
    assert columns["classes"] == expected["classes"].tolist() and columns["labels"] == expected["labels"].tolist()


def test_encoded_files_in_every_notation(url, model_folder, image_files):
    expected = export.predict(model_folder, image_files)
    files = [b64(path) for path in image_files]
    for instances in (files, [{"image_bytes": file} for file in files]):
        status, answer = ask(url, {"instances": instances})
        assert status == 200 and list(answer) == ["predictions"]
        check_rows(answer["predictions"], expected)
    for inputs in (files, {"image_bytes": files}):
        status, answer = ask(url, {"signature_name": "serving_default", "inputs": inputs})
        assert status == 200 and list(answer) == ["outputs"]
        check_columns(answer["outputs"], expected)


def test_pixels_by_the_signatures_name(url, model_folder):
    images = photographs(2, 20, 31)
    expected = export.predict(model_folder, images)
    status, answer = ask(url, {"signature_name": "serving_images", "instances": images.tolist()})
    assert status == 200
    check_rows(answer["predictions"], expected)
    status, answer = ask(url, {"signature_name": "serving_images", "inputs": {"images": images.tolist()}})
    assert status == 200
    check_columns(answer["outputs"], expected)


def test_versions_and_labels(url, model_folder, image_files):
    body = {"instances": [b64(image_files[0])]}
    for path, version in (
        ("", 2),
        ("/versions/1", 1),
        ("/versions/2", 2),
        ("/labels/stable", 1),
        ("/labels/canary", 2),
    ):
        status, answer = ask(url, body, f"/v1/models/tiny{path}:predict")
        assert status == 200
        check_rows(answer["predictions"], export.predict(model_folder / str(version), image_files[:1]))


def test_the_status_lists_the_versions(url):
    status, answer = ask(url, path="/v1/models/tiny")
    assert status == 200
    found = {int(entry["version"]): entry for entry in answer["model_version_status"]}
    assert set(found) == {1, 2} and all(entry["state"] == "AVAILABLE" for entry in found.values())
    status, answer = ask(url, path="/v1/models/tiny/versions/1")
    assert status == 200 and [entry["version"] for entry in answer["model_version_status"]] == ["1"]


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (":predict", b"{", 400),
        (":predict", {}, 400),
        (":predict", {"instances": [], "inputs": []}, 400),
        (":predict", {"instances": []}, 400),
        (":predict", {"instances": [{"b64": "not base64!"}]}, 400),
        (":predict", {"instances": [{"b64": base64.b64encode(b"no picture").decode()}]}, 400),
        (":predict", {"instances": [{"other": "x"}]}, 400),
        (":predict", {"inputs": {"other": ["x"]}}, 400),
        (":predict", {"instances": [3]}, 400),
        (":predict", {"signature_name": "unknown", "instances": ["x"]}, 400),
        (":predict", {"signature_name": "serving_images", "instances": ["x"]}, 400),
        ("/versions/7:predict", {"instances": ["x"]}, 404),
        ("-unknown:predict", {"instances": ["x"]}, 404),
        (":unknown", {"instances": ["x"]}, 400),
    ],
)
def test_errors_are_json_with_a_reason(request, url, path, body, expected):
    status, answer = ask(url, body, f"/v1/models/tiny{path}")
    assert list(answer) == ["error"] and isinstance(answer["error"], str) and answer["error"]
    # Which of the 4xx the server chooses depends on its release.
    assert status == expected or (request.node.callspec.params["url"] != "stand-in" and 400 <= status < 500)
