"""Turned photographs, WebP and files that are broken: what exported graphs and `predict` make of them."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deepnets import export
from keras_deepnets.errors import InputError
from tests.data.exif import BIG, block, pillow, saved, with_exif
from tests.data.test_files import JXL
from tests.export.conftest import photographs

pytestmark = pytest.mark.integration

INVERSE = {6: 8, 8: 6}


def turned(form="PNG", size=(20, 28)):
    """Eight files that show the same upright picture, stored in eight ways."""
    upright = photographs(1, *size, seed=4)[0]
    return [saved(pillow(saved(upright, "PNG", INVERSE.get(turn, turn))), form, turn) for turn in range(1, 9)]


def moving():
    frames = [Image.fromarray(frame) for frame in photographs(3, 16, 16)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    return file.getvalue()


def large_webp(kind):
    """The header of a WebP of 16,384 × 16,384 pixels."""
    whole = bytearray(saved(photographs(1, 16, 16)[0], "WEBP", lossless=kind == "VP8L"))
    side = 2**14 - 1
    if kind == "VP8X":
        extended = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + side.to_bytes(3, "little") * 2
        return bytes(whole[:12]) + extended + bytes(whole[12:])
    if kind == "VP8L":
        whole[21:25] = (side | side << 14).to_bytes(4, "little")
    else:
        whole[26:30] = side.to_bytes(2, "little") * 2
    return bytes(whole)


@pytest.fixture(scope="module")
def artifacts(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    small.save(folder / "small.keras")
    return {
        "savedmodel": export.saved_model(small, folder / "served"),
        "skipping": export.saved_model(small, folder / "skipping", on_error="skip"),
        "tflite": export.tflite(small, folder / "small.tflite"),
        "keras": folder / "small.keras",
    }


@pytest.fixture(scope="module")
def serve(artifacts):
    loaded = tf.saved_model.load(str(artifacts["savedmodel"]))
    return lambda files: loaded.signatures["serving_default"](image_bytes=tf.constant(files))["probabilities"].numpy()


@pytest.fixture(scope="module")
def serve_pixels(artifacts):
    loaded = tf.saved_model.load(str(artifacts["savedmodel"]))
    return lambda images: loaded.signatures["serving_images"](images=tf.constant(images))["probabilities"].numpy()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_served_graph_turns_images(serve, serve_pixels, form):
    stored = photographs(1, 20, 28, seed=5)[0]
    files = [saved(stored, form, turn) for turn in range(1, 9)]
    expected = np.concatenate([serve_pixels(pillow(file)[None]) for file in files])
    assert np.abs(expected[0] - expected[1:]).max(-1).min() > 1e-4  # turning matters
    np.testing.assert_allclose(serve(files), expected, atol=1e-6)


def test_the_served_graph_passes_over_broken_blocks(serve):
    jpeg = saved(photographs(1, 20, 28)[0], "JPEG")
    whole = block(6, BIG)
    broken = [with_exif(jpeg, whole[:length]) for length in (0, 7, 11, 30, len(whole) - 5)]
    np.testing.assert_allclose(serve(broken), np.repeat(serve([jpeg]), 5, axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ["savedmodel", "tflite", "keras"])
def test_predict_sees_one_picture_in_eight_orientations(artifacts, kind):
    found = export.predict(artifacts[kind], turned())["probabilities"]
    np.testing.assert_allclose(found, np.repeat(found[:1], 8, axis=0), atol=1e-6)


def test_the_served_graph_decodes_still_webp_only(serve, serve_pixels):
    image = photographs(1, 20, 28)[0]
    found = serve([saved(image, "WEBP", lossless=True)])
    np.testing.assert_allclose(found, serve_pixels(image[None]), atol=1e-6)
    for refused in (moving(), bytes.fromhex(JXL["RGB"]), saved(image, "TIFF")):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"image_bytes\[1\] is not a JPEG, PNG, BMP, GIF or WebP"
        ):
            serve([saved(image, "PNG"), refused])


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_a_webp_that_is_too_large_is_known_from_its_header(serve, kind):
    from keras_deepnets.export import decoding

    with pytest.raises(tf.errors.InvalidArgumentError, match="of at most 50000000 pixels"):
        decoding.checked(tf.constant(large_webp(kind)))
    good = saved(photographs(1, 18, 30)[0], "WEBP", lossless=kind == "VP8L")
    assert decoding.checked(tf.constant(good), 18 * 30).numpy() == good
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoding.checked(tf.constant(good), 18 * 30 - 1)


@pytest.mark.parametrize("kind", ["savedmodel", "skipping", "tflite", "keras"])
def test_predict_takes_what_the_data_pipeline_reads(artifacts, kind):
    image = photographs(1, 16, 16, seed=7)[0]
    files = [
        saved(image, "PNG"),
        saved(image, "TIFF"),
        saved(image, "WEBP", lossless=True),
        moving(),
        bytes.fromhex(JXL["L"]),
    ]
    found = export.predict(artifacts[kind], files)
    np.testing.assert_allclose(found["probabilities"][1:3], found["probabilities"][:1].repeat(2, 0), atol=1e-6)
    assert np.isfinite(found["probabilities"]).all()


@pytest.mark.parametrize("kind", ["savedmodel", "skipping", "tflite", "keras"])
def test_broken_files_are_reported_at_their_places(artifacts, kind, tmp_path):
    good = [saved(image, "JPEG") for image in photographs(70, 16, 16)]
    expected = export.predict(artifacts[kind], good)
    (tmp_path / "half.jpg").write_bytes(good[0][:200])
    (tmp_path / "text.png").write_text("no image")
    files = [tmp_path / "half.jpg", *good[:40], tmp_path / "missing.png", *good[40:], tmp_path / "text.png"]
    found = export.predict(artifacts[kind], files, on_error="skip")
    errors = found.pop("errors")
    bad = [0, 41, 72]
    assert [index for index, error in enumerate(errors) if error] == bad
    assert errors[0].startswith(f"{tmp_path / 'half.jpg'} is not an image file that can be decoded")
    assert errors[41] == f"{tmp_path / 'missing.png'}: cannot be read (No such file or directory)."
    assert errors[72].startswith(f"{tmp_path / 'text.png'} is not an image file")
    keep = np.setdiff1d(np.arange(73), bad)
    for name in ("probabilities", "classes", "labels"):
        np.testing.assert_allclose(found[name][keep].astype(float), expected[name].astype(float), atol=1e-6)
    assert np.isnan(found["probabilities"][bad]).all()
    assert found["classes"][bad].tolist() == [-1] * 3 and found["labels"][bad].tolist() == [""] * 3
    with pytest.raises(InputError, match=r"half\.jpg is not an image file"):
        export.predict(artifacts[kind], [good[0], tmp_path / "half.jpg"])


def test_an_artifact_of_its_own_limit_refuses_at_the_place(small, tmp_path):
    path = export.saved_model(small, tmp_path / "served", max_pixels=400)
    good = saved(photographs(1, 16, 16)[0], "PNG")
    files = [good, saved(photographs(1, 21, 20)[0], "PNG"), b"text", good]
    errors = export.predict(path, files, on_error="skip")["errors"]
    assert [error is None for error in errors] == [True, False, False, True]


def test_nothing_but_broken_files(artifacts):
    found = export.predict(artifacts["keras"], [b"text", b""], on_error="skip")
    assert found["probabilities"].shape == (2, 0) and found["classes"].tolist() == [-1, -1]
    assert [error.split(" is not")[0] for error in found["errors"]] == ["image 0", "image 1"]


def test_on_error_is_one_of_two(artifacts):
    with pytest.raises(InputError, match="on_error='ignore' is neither 'fail' nor 'skip'"):
        export.predict(artifacts["keras"], [b""], on_error="ignore")
