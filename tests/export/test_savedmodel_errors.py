"""Files that are no pictures, or too large, or made to do harm: an error for the one, and memory that stays bounded."""

import dataclasses
import io
import struct
import subprocess
import sys
import textwrap
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deepnets import export
from keras_deepnets.errors import InputError
from tests.export.conftest import photographs

pytestmark = pytest.mark.integration


def png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width, height):
    encoded = tf.io.encode_jpeg(tf.zeros([16, 16, 3], tf.uint8)).numpy()
    place = encoded.index(b"\xff\xc0") + 5
    return encoded[:place] + struct.pack(">HH", height, width) + encoded[place + 4 :]


def bmp(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 616, 0, 0, 54) + header + bytes(616)  # 14 rows of 14 pixels


def gif(width, height, frames=1):
    frame = b"\x2c" + struct.pack("<HHHH", 0, 0, width, height) + b"\x00" + b"\x02\x02\x44\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def animation():
    """A GIF of three frames."""
    frames = [Image.fromarray(frame) for frame in photographs(3, 16, 16)]
    file = io.BytesIO()
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
    return file.getvalue()


def picture(kind="png", size=(16, 16)):
    pixels = tf.constant(photographs(1, *size)[0])
    return (tf.io.encode_png(pixels) if kind == "png" else tf.io.encode_jpeg(pixels)).numpy()


BROKEN = {
    "large png": png(30_000, 30_000),
    "large jpeg": jpeg(30_000, 30_000),
    "large bmp": bmp(30_000, 30_000),
    "large bmp from the top": bmp(30_000, -30_000),
    "large gif": gif(30_000, 30_000),
    "gif of many frames": gif(5_000, 5_000, 100),
    "small gif of large frames": gif(2, 2)[:-1] + gif(30_000, 30_000)[19:],
    "wide png": png(1_000_000, 1),
    "png without pixels": png(0, 16),
    "truncated png": picture()[:100],
    "truncated jpeg": picture("jpeg")[:200],
    "header of a jpeg": b"\xff\xd8\xff",
    "header of a bmp": b"BM",
    "header of a gif": b"GIF89a",
    "nothing": b"",
    "zeros": bytes(100),
    "text": b"This is not an image.\n" * 10,
}


@pytest.fixture(scope="module")
def failing(small, tmp_path_factory):
    return export.saved_model(small, tmp_path_factory.mktemp("errors"))


@pytest.fixture(scope="module")
def skipping(small, tmp_path_factory):
    return export.saved_model(small, tmp_path_factory.mktemp("errors"), on_error="skip", top_k=2, features=True)


@pytest.fixture(scope="module")
def fails(failing):
    loaded = tf.saved_model.load(str(failing))
    return lambda files: loaded.signatures["serving_default"](image_bytes=tf.constant(files))


@pytest.fixture(scope="module")
def skips(skipping):
    loaded = tf.saved_model.load(str(skipping))
    return lambda files: loaded.signatures["serving_default"](image_bytes=tf.constant(files))


@pytest.mark.parametrize("kind", list(BROKEN))
def test_the_broken_one_is_named_by_its_index(kind, fails):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"image_bytes\[2\] is not a JPEG, PNG, BMP, GIF or WebP of at"
    ):
        fails([picture(), picture("jpeg"), BROKEN[kind], picture(), BROKEN["text"]])


@pytest.mark.parametrize("kind", list(BROKEN))
def test_the_broken_one_alone_is_skipped(kind, fails, skips):
    good = [picture(), picture("jpeg", (40, 20)), picture("png", (9, 30))]
    found = skips([good[0], BROKEN[kind], *good[1:]])
    expected = fails(good)
    keep = [0, 2, 3]
    np.testing.assert_allclose(found["probabilities"].numpy()[keep], expected["probabilities"], atol=1e-6)
    np.testing.assert_array_equal(found["classes"].numpy()[keep], expected["classes"])
    np.testing.assert_array_equal(found["labels"].numpy()[keep], expected["labels"])
    assert np.isfinite(found["features"].numpy()[keep]).all() and (found["top_classes"].numpy()[keep] >= 0).all()
    for name in ("probabilities", "top_probabilities", "features"):
        assert np.isnan(found[name].numpy()[1]).all()
    assert found["classes"].numpy()[1] == -1 and (found["top_classes"].numpy()[1] == -1).all()
    assert found["labels"].numpy()[1] == b"" and (found["top_labels"].numpy()[1] == b"").all()


def test_a_batch_without_a_picture_is_nothing_but_skipped(skips):
    found = skips([BROKEN["text"], BROKEN["nothing"]])
    assert np.isnan(found["probabilities"]).all() and found["classes"].numpy().tolist() == [-1, -1]


@pytest.mark.parametrize("interpolation", ["nearest", "area"])
def test_memory_stays_bounded_for_thin_images(interpolation, small, tmp_path):
    """Resized as a whole, each would be a million pixels long and take 200 MB."""
    scaling = small.scaling
    try:
        small.scaling = dataclasses.replace(scaling, interpolation=interpolation)
        path = export.saved_model(small, tmp_path)
    finally:
        small.scaling = scaling
    before, after, *finite = in_a_process(
        """
        import resource, sys
        import numpy as np
        import tensorflow as tf
        signatures = tf.saved_model.load(sys.argv[1]).signatures
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        thin = [np.zeros([65_535, 1, 3], "uint8"), np.zeros([1, 65_535, 3], "uint8")]
        files = tf.stack([tf.io.encode_png(image) for image in thin])
        signatures["serving_default"](image_bytes=tf.stack([tf.io.encode_png(image[:20, :20]) for image in thin]))
        print(peak())
        found = [signatures["serving_default"](image_bytes=files)["probabilities"]]
        found += [signatures["serving_images"](images=tf.constant(image[None]))["probabilities"] for image in thin]
        print(peak(), *(np.isfinite(values).all() for values in found))
        """,
        path,
    )
    assert finite == ["True"] * 3
    assert int(after) - int(before) < 60, "MB"


def test_other_kinds_of_good_files_pass(skips):
    tall = tf.io.encode_png(tf.zeros([60_000, 1, 3], tf.uint8)).numpy()
    upside = bmp(14, -14)
    found = skips([animation(), tall, upside, bmp(14, 14)])
    assert np.isfinite(found["probabilities"]).all()


def test_the_limit_can_be_set(small, tmp_path):
    loaded = tf.saved_model.load(str(export.saved_model(small, tmp_path, max_pixels=400)))
    run = loaded.signatures["serving_default"]
    assert run(image_bytes=tf.constant([picture(size=(20, 20))]))["classes"].shape == (1,)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of at most 400 pixels"):
        run(image_bytes=tf.constant([picture(size=(20, 21))]))


def test_predict_names_it_for_every_artifact(failing, skipping, small, tmp_path):
    paths = [failing, skipping, export.tflite(small, tmp_path / "small.tflite"), small]
    if all(find_spec(name) for name in ("onnx", "tf2onnx", "onnxruntime")):
        paths.append(export.onnx(small, tmp_path / "small.onnx"))
    for path in paths:
        for kind in ("large png", "text"):
            with pytest.raises(InputError, match="image 1 is not an image file"):
                export.predict(path, [picture(), BROKEN[kind]])


def test_predict_names_what_is_too_large_for_an_artifact_of_its_own_limit(small, tmp_path):
    for number, on_error in enumerate(("fail", "skip")):
        path = export.saved_model(small, tmp_path / str(number), max_pixels=400, on_error=on_error, batch_size=2)
        with pytest.raises(InputError, match="image 2 is not an image file that can be decoded, or it has too many"):
            export.predict(path, [picture(), picture(), picture(size=(20, 21))])


def in_a_process(code, *arguments, timeout=600):
    """Runs code in a process of its own, so that a crash of it is seen; what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout.split()


def test_memory_stays_bounded(skipping, tmp_path):
    """The largest of these would take 2.7 GB decoded."""
    for number, content in enumerate(BROKEN.values()):
        (tmp_path / str(number)).write_bytes(content)
    (tmp_path / "good").write_bytes(picture())
    before, after, broken = in_a_process(
        """
        import pathlib, resource, sys
        import numpy as np
        import tensorflow as tf
        loaded = tf.saved_model.load(sys.argv[1])
        run = loaded.signatures["serving_default"]
        good = pathlib.Path(sys.argv[2], "good").read_bytes()
        run(image_bytes=tf.constant([good] * 17))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(peak())
        files = [path.read_bytes() for path in pathlib.Path(sys.argv[2]).iterdir() if path.name != "good"]
        found = run(image_bytes=tf.constant(files))["probabilities"].numpy()
        print(peak(), np.isnan(found).all())
        """,
        skipping,
        tmp_path,
    )
    assert broken == "True"
    assert int(after) - int(before) < 100, "MB"


FUZZ = """
import sys
import numpy as np
import tensorflow as tf
from tests.export.test_savedmodel_errors import BROKEN, animation, bmp, mutated, picture

strict, lenient = (tf.saved_model.load(path) for path in sys.argv[1:3])
count, batch = int(sys.argv[3]), 50
random = np.random.default_rng(int(sys.argv[4]))
fine = [picture(), picture("jpeg"), picture("jpeg", (50, 33)), bmp(14, 14), animation()]
seeds = 10 * fine + list(BROKEN.values())
good = bad = 0
for start in range(0, count, batch):
    files = [mutated(seeds[random.integers(len(seeds))], random) for _ in range(batch)]
    found = lenient.signatures["serving_default"](image_bytes=tf.constant(files))
    values, classes = found["probabilities"].numpy(), found["classes"].numpy()
    broken = np.isnan(values).all(-1)
    assert np.isfinite(values[~broken]).all() and np.allclose(values[~broken].sum(-1), 1, atol=1e-4)
    assert ((classes == -1) == broken).all()
    good, bad = good + (~broken).sum(), bad + broken.sum()
    try:
        strict.signatures["serving_default"](image_bytes=tf.constant(files))
        assert not broken.any()
    except tf.errors.InvalidArgumentError as error:
        assert f"image_bytes[{broken.argmax()}] is not" in str(error), str(error)
print(good, bad)
"""


def mutated(content, random):
    """A file with some bytes changed, cut out, put in, or its end cut off."""
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, len(data) + 1))
        # Most of what decoders trip over is near the beginning.
        place = min(place, int(random.integers(0, 64))) if random.random() < 0.5 else place
        kind = random.integers(5)
        if kind == 0:
            data[place : place + 1] = bytes([random.integers(256)])
        elif kind == 1:
            data[place : place + 4] = random.choice([0, 1, 0x7F, 0xFF]).astype("uint8").tobytes() * 4
        elif kind == 2:
            del data[place : place + int(random.integers(1, 20))]
        elif kind == 3:
            data[place:place] = random.bytes(int(random.integers(1, 20)))
        elif random.random() < 0.3:
            del data[place:]
    return bytes(data)


def fuzz(failing, skipping, count, seed):
    good, bad = map(int, in_a_process(FUZZ, failing, skipping, count, seed, timeout=1800))
    assert good + bad == count and good > count / 10 and bad > count / 10


def test_mutated_files_give_probabilities_or_an_error(failing, skipping):
    fuzz(failing, skipping, 300, 0)


@pytest.mark.slow
def test_many_mutated_files_give_probabilities_or_an_error(failing, skipping):
    fuzz(failing, skipping, 10_000, 1)
