"""Which files of a folder count, and the kinds of files that are read."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deepnets import data
from keras_deepnets.data import files, foreign, transforms, verification
from keras_deepnets.errors import InputError
from tests.data.conftest import picture, write_class_folders

pytestmark = pytest.mark.integration

SYSTEM = ("__MACOSX", "@eaDir", ".hidden", ".Trashes")
JUNK = ("._0.png", ".DS_Store", "Thumbs.db", "thumbs.db", "desktop.ini")

# Two rows of three pixels, 0, 14, 28, …, by libjxl; nothing here can write JPEG XL.
JXL = {
    "RGB": "ff0a084010090800010084004b188b1501125e18e67093894f25ff026100e4517f3ab7bb2e4bba14e954800a00",
    "RGBA": "ff0a0840b0120800100098004b188b1501125e18da85f9c49996d105c400d0525f9edd9e0f87e22185469de8f0152009b000",
    "L": "ff0a084010143702080001003c004b188b15c2415f199e0c85ba739c07",
}
RAMP = (np.arange(18).reshape(2, 3, 3) * 14).astype("uint8")


def saved(form, mode="RGB", image=None, **options):
    file = io.BytesIO()
    Image.fromarray(picture(6) if image is None else image).convert(mode).save(file, form, **options)
    return file.getvalue()


def scatter(folder):
    """What systems leave behind, in a folder and in each folder in it."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in JUNK:
            (place / name).write_bytes(b"junk")
        for name in SYSTEM:
            (place / name).mkdir()
            (place / name / "photo.png").write_bytes(b"junk")


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_what_systems_leave_is_ignored(tmp_path, layout, capfd):
    for place in [tmp_path] if layout == "flat" else [tmp_path / "train", tmp_path / "test"]:
        write_class_folders(place, {"a": 3, "b": 3})
    before = data.load(tmp_path, "all")
    scatter(tmp_path)
    after = data.load(tmp_path, "all")
    assert (after.labels, after.class_counts, after.left_out) == (("a", "b"), before.class_counts, {})
    assert after.store.names == before.store.names
    assert capfd.readouterr().err == ""


def test_files_that_are_no_images_are_counted_in_one_line(tmp_path, capfd):
    write_class_folders(tmp_path / "photos", {"a": 3, "b": 3})
    for name in ("a/notes.txt", "b/deeper/more.TXT", "a/clip.mov", "labels.csv", "b/README"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    images = data.load(tmp_path / "photos", "all")
    assert images.left_out == {".txt": 2, ".mov": 1, ".csv": 1, "": 1}
    line = "left out 5 files that are not images: 2 .txt, 1 without an ending, 1 .csv, 1 .mov"
    assert capfd.readouterr().err == f"{tmp_path / 'photos'}: {line}\n"
    assert images.take(3).left_out == images.divide(2)[1].left_out == images.left_out
    data.load(tmp_path / "photos", "train")
    assert capfd.readouterr().err == ""  # said once


def test_pictures_outside_the_classes_and_kinds_that_nothing_reads(tmp_path, capfd):
    write_class_folders(tmp_path, {"a": 2, "b": 2})
    Image.fromarray(picture(1)).save(tmp_path / "cover.jpg")
    (tmp_path / "a" / "IMG_1.HEIC").write_bytes(b"x")
    images = data.load(tmp_path, "all")
    assert images.left_out == {".jpg in no class folder": 1, ".heic": 1}
    assert capfd.readouterr().err == (
        f"{tmp_path}: left out 2 files that are not images or are in no class folder: 1 .heic, 1 .jpg in no class folder "
        "(convert .heic to JPEG or PNG to use them)\n"
    )


def test_lines_that_are_held_back_come_once_at_the_end(capfd):
    with files.lines_held_back():
        files.say_left_out("photos", {".txt": 1})
        files.say_left_out("photos", {".txt": 1})
        files.say_left_out("photos", {})
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "photos: left out 1 file that is not an image: 1 .txt\n"
    with pytest.raises(InputError), files.lines_held_back():
        files.say_left_out("photos", {".txt": 1})
        raise InputError("the one line")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", JXL)
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_xl(mode, channels):
    image = transforms.decode(bytes.fromhex(JXL[mode]), channels).numpy()
    expected = np.asarray(Image.fromarray(RAMP).convert(mode).convert("RGB" if channels == 3 else "L"))
    assert np.abs(image.astype(int) - expected.reshape(2, 3, channels)).max() <= (channels == 1)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"lossless": True, "exact": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_agrees_with_pillow(mode, options):
    image = picture(6)
    if mode == "RGBA":
        image = np.concatenate([image, picture(7)[..., :1]], -1)
    contents = saved("WEBP", mode, image, **options)
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert(mode))[..., :3]
    np.testing.assert_array_equal(transforms.decode(contents), expected)
    part = transforms.decode(contents, 3, lambda height, width: (2, 3, height // 2, width // 2))
    np.testing.assert_array_equal(part, expected[2:12, 3:15])


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_moving_webp_is_refused_by_the_graph_and_read_by_pillow(mode):
    """Where TensorFlow 2.21 decodes one of three channels, it writes four, past the end of the image's memory."""
    frames = [Image.fromarray(picture(seed)).convert(mode) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    for _ in range(5):
        with pytest.raises(tf.errors.InvalidArgumentError):
            transforms.decode(file.getvalue())
    np.testing.assert_array_equal(foreign.decode(file.getvalue()), picture(0))


FOREIGN = {
    "rgb.tiff": ("TIFF", "RGB", {}),
    "packed.tif": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "grey.tif": ("TIFF", "L", {}),
    "cmyk.tif": ("TIFF", "CMYK", {}),
    "palette.tif": ("TIFF", "P", {}),
    "bits.tif": ("TIFF", "1", {"compression": "group4"}),
    "rgba.tif": ("TIFF", "RGBA", {}),
    "jpeg2000.jp2": ("JPEG2000", "RGB", {}),
    "colour.ppm": ("PPM", "RGB", {}),
    "grey.pgm": ("PPM", "L", {}),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("channels", [1, 3])
def test_pillow_reads_what_tensorflow_does_not(name, channels):
    form, mode, options = FOREIGN[name]
    contents = saved(form, mode, **options)
    with pytest.raises(tf.errors.InvalidArgumentError):
        transforms.decode(contents)
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB").convert("RGB" if channels == 3 else "L"))
    for decode in (foreign.decode, tf.function(foreign.decode)):
        image = decode(tf.constant(contents), channels).numpy()
        assert np.abs(image.astype(int) - expected.reshape(20, 24, channels)).max() <= (channels == 1)
    part = foreign.decode(contents, channels, lambda height, width: (1, 2, 5, 6))
    np.testing.assert_array_equal(part, foreign.decode(contents, channels)[1:6, 2:8])


def test_sixteen_bits_keep_the_upper_eight_and_floats_are_an_error():
    deep = (picture(2)[..., 0].astype("uint16") << 8) + 255
    expected = np.repeat(picture(2)[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(foreign.decode(deep_tiff(deep)), expected)
    with pytest.raises(ValueError, match="floating-point"):
        foreign.pixels(deep_tiff(picture(2)[..., 0].astype("float32")))


def deep_tiff(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize("budget", [1 << 30, 0])
def test_class_folders_of_every_kind(tmp_path, monkeypatch, budget):
    monkeypatch.setattr(verification, "MEMORY_BUDGET", budget)
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
    for number, (name, (form, mode, options)) in enumerate(FOREIGN.items()):
        (tmp_path / "ab"[number % 2] / name).write_bytes(saved(form, mode, **options))
    (tmp_path / "a" / "xl.JXL").write_bytes(bytes.fromhex(JXL["RGBA"]))
    (tmp_path / "b" / "web.webp").write_bytes(saved("WEBP", lossless=True))
    images = data.load(tmp_path, "all")
    assert (images.size, images.left_out) == (len(FOREIGN) + 2, {})
    found = dict(zip(images.store.names, (image for image, _ in images.examples().as_numpy_iterator()), strict=True))
    np.testing.assert_array_equal(found["a/xl.JXL"], RAMP)
    np.testing.assert_array_equal(found["b/web.webp"], picture(6))
    np.testing.assert_array_equal(found["a/rgb.tiff"], picture(6))
    np.testing.assert_array_equal(found["b/packed.tif"], picture(6))
    (tmp_path / "a" / "rgb.tiff").write_bytes(saved("TIFF")[:300])
    with pytest.raises(InputError, match=r"1 of 12 images cannot be decoded \(a/rgb.tiff\)"):
        data.load(tmp_path, "all")


def test_the_quick_check_knows_every_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "DECODE_LIMIT", 0)
    kinds = {name: saved(form, mode, **options) for name, (form, mode, options) in FOREIGN.items()}
    kinds |= {"web.webp": saved("WEBP"), "xl.jxl": bytes.fromhex(JXL["RGB"]), "box.jxl": b"\0\0\0\x0cJXL \r\n\x87\n"}
    for name, contents in kinds.items():
        (tmp_path / name).write_bytes(contents)
        assert verification.looks_whole(str(tmp_path / name)), name
    (tmp_path / "web.webp").write_bytes(kinds["web.webp"][:-10])
    assert not verification.looks_whole(str(tmp_path / "web.webp"))
    (tmp_path / "rgb.tiff").write_bytes(b"not an image")
    assert not verification.looks_whole(str(tmp_path / "rgb.tiff"))


def test_shards_hold_every_kind_byte_for_byte(tmp_path):
    for label, name in (("a", "rgb.tiff"), ("b", "colour.ppm"), ("a", "grey.tif"), ("b", "jpeg2000.jp2")):
        form, mode, options = FOREIGN[name]
        (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / label / name).write_bytes(saved(form, mode, **options))
    (tmp_path / "photos" / "a" / "xl.jxl").write_bytes(bytes.fromhex(JXL["RGB"]))
    index = data.write_shards(tmp_path / "photos", tmp_path / "out", 1, split="all")
    path = tmp_path / "out" / index.splits["all"].shards[0].file
    examples = [tf.train.Example.FromString(raw.numpy()).features.feature for raw in tf.data.TFRecordDataset(str(path))]
    forms = {
        example["image/filename"].bytes_list.value[0]: example["image/format"].bytes_list.value[0]
        for example in examples
    }
    assert forms[b"a/rgb.tiff"] == b"TIFF" and forms[b"a/xl.jxl"] == b"JXL" and forms[b"b/jpeg2000.jp2"] == b"JPEG2000"
    for example in examples:
        name = example["image/filename"].bytes_list.value[0].decode()
        assert example["image/encoded"].bytes_list.value[0] == (tmp_path / "photos" / name).read_bytes()
    shapes = sorted(image.shape for image, _ in data.load(tmp_path / "out", "all").examples().as_numpy_iterator())
    assert shapes == [(2, 3, 3), *[(20, 24, 3)] * 4]


def test_shards_beside_what_a_mac_leaves(two_classes, tmp_path):
    (two_classes / "._train-00000-of-00001.tfrecord").write_bytes(b"junk")
    assert data.load(two_classes, "all").size == 30


def test_natural_order():
    names = ["img12", "img2", "b", "10", "9", "a10b", "a2b", "a2", "09"]
    assert sorted(names, key=files.natural) == ["09", "9", "10", "a2", "a2b", "a10b", "b", "img2", "img12"]
