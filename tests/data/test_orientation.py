"""Images are turned as Pillow's exif_transpose turns them, by whatever reads them; a damaged block is no error."""

import io
import struct
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deepnets import data
from keras_deepnets.data import headers, orientation, transforms, verification
from tests.data.conftest import picture
from tests.data.exif import BIG, LITTLE, block, pillow, saved, segment, with_exif

pytestmark = pytest.mark.integration

IMAGE = picture(3, 37, 52)
JPEG = saved(IMAGE, "JPEG", quality=95, subsampling=0)
KINDS = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}


@pytest.fixture(scope="module")
def decode():
    """`transforms.decode` as a graph."""
    return tf.function(transforms.decode, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.fixture(scope="module")
def of():
    """`orientation.of` as a graph, to a number."""
    graph = tf.function(orientation.of, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda encoded: int(graph(encoded))


@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_is_that_of_pillow(decode, form, turn):
    encoded = saved(IMAGE, form, turn, **KINDS[form])
    expected = pillow(encoded)
    assert expected.shape[:2] == ((52, 37) if turn >= 5 else (37, 52))
    np.testing.assert_array_equal(decode(encoded), expected)
    np.testing.assert_array_equal(transforms.decode(encoded), expected)  # eagerly


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("turn", range(1, 9))
def test_both_orders_of_bytes(decode, of, order, turn):
    encoded = with_exif(JPEG, block(turn, order))
    assert of(encoded) == turn
    np.testing.assert_array_equal(decode(encoded), pillow(encoded))
    assert of(with_exif(JPEG, block(turn, order, kind=4))) == turn  # LONG in place of SHORT


def test_exif_after_other_segments(decode, of):
    large = segment(0xE2, b"ICC_PROFILE\0" + bytes(65_000))
    others = segment(0xE0, b"JFIF\0" + bytes(9)) + large * 3 + segment(0xFE, b"no Exif\0\0 here") + b"\xff\xff\xff"
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta exif=''/>")
    for before in (others, xmp, others + xmp):
        encoded = with_exif(JPEG, block(6, BIG), before)
        assert of(encoded) == 6
        np.testing.assert_array_equal(decode(encoded), pillow(encoded))
    tables = JPEG.index(b"\xff\xda")  # after the tables, before the compressed image
    encoded = JPEG[:tables] + segment(0xE1, b"Exif\0\0" + block(8)) + JPEG[tables:]
    assert of(encoded) == 8
    np.testing.assert_array_equal(decode(encoded), pillow(encoded))
    assert of(JPEG + segment(0xE1, b"Exif\0\0" + block(8))) == 1  # after the end


def test_a_png_chunk_after_the_pixels(decode):
    plain = saved(IMAGE, "PNG")
    with_block = saved(IMAGE, "PNG", 7)
    start = with_block.index(b"eXIf") - 4
    length = 12 + struct.unpack(">I", with_block[start : start + 4])[0]
    encoded = plain[:-12] + with_block[start : start + length] + plain[-12:]
    np.testing.assert_array_equal(decode(encoded), pillow(encoded))
    assert decode(encoded).shape == (52, 37, 3)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_webp_chunks_with_and_without_jpegs_prefix(decode, of, prefix):
    encoded = saved(IMAGE, "WEBP", lossless=True, exif=prefix + block(5, BIG))
    assert of(encoded) == 5
    np.testing.assert_array_equal(decode(encoded), IMAGE.transpose(1, 0, 2))


@pytest.mark.parametrize("order", [LITTLE, BIG])
def test_a_block_that_is_cut_off_counts_as_far_as_it_goes(decode, of, order):
    whole = block(6, order)
    needed = len(whole) - 4  # without the place of the next directory
    for length in range(len(whole)):
        encoded = with_exif(JPEG, whole[:length])
        assert of(encoded) == (6 if length >= needed else 1), length
    assert decode(with_exif(JPEG, whole[:20])).shape == (37, 52, 3)


def test_files_that_end_inside_a_block(of):
    for turned in (with_exif(JPEG, block(6)), saved(IMAGE, "PNG", 6), saved(IMAGE, "WEBP", 6, lossless=True)):
        start = max(0, turned.lower().index(b"exif") - 20)
        for end in range(start, start + 60, 3):
            assert of(turned[:end]) in (1, 6)
    assert of(b"") == 1


@pytest.mark.parametrize(
    "tiff",
    [
        block(0),
        block(9),
        block(65_535),
        block(6, count=2),
        block(6, kind=2),
        block(6, kind=65_535),
        b"XX" + block(6)[2:],
        b"IM" + block(6)[2:],
        b"II" + b"\1\2" + block(6)[4:],
        block(6)[:4] + b"\xff\xff\xff\xff" + block(6)[8:],  # a directory beyond the end
        block(6)[:4] + b"\xff\xff\xff\x7f" + block(6)[8:],
        b"",
        bytes(200),
    ],
)
def test_what_says_nothing_is_upright(decode, of, tiff):
    encoded = with_exif(JPEG, tiff)
    assert of(encoded) == 1
    np.testing.assert_array_equal(decode(encoded), decode(JPEG))


def test_more_entries_than_there_are(of):
    tiff = block(6)
    assert of(with_exif(JPEG, tiff[:8] + b"\xff\xff" + tiff[10:])) == 6


def test_random_damage_is_never_an_error(of):
    random = np.random.default_rng(0)
    for encoded in (with_exif(JPEG, block(6)), saved(IMAGE, "PNG", 6), saved(IMAGE, "WEBP", 6, lossless=True)):
        start = encoded.lower().index(b"exif") - 8
        for _ in range(150):
            damaged = bytearray(encoded)
            for place in start + random.integers(0, 60, 4):
                damaged[place % len(damaged)] = random.integers(256)
            assert 1 <= of(bytes(damaged)) <= 8


def test_millions_of_empty_segments_take_no_time(of):
    begin = time.perf_counter()
    assert of(with_exif(JPEG, block(6), segment(0xFE, b"") * 1_000_000)) == 1
    assert time.perf_counter() - begin < 20
    assert of(with_exif(JPEG, block(6), segment(0xFE, b"") * 1_000)) == 6


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_window_is_one_of_the_upright_image(form, turn):
    encoded = saved(IMAGE, form, turn, **KINDS[form])
    sizes = []

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def part(contents):
        def window(height, width):
            sizes.append((height, width))
            return height // 4, width // 5, height // 2, width // 3

        return transforms.decode(contents, 3, window)

    expected = pillow(encoded)
    height, width = expected.shape[:2]
    top, left = height // 4, width // 5
    np.testing.assert_array_equal(part(encoded), expected[top : top + height // 2, left : left + width // 3])
    assert sizes


def test_inside_map_fn():
    files = [saved(IMAGE, "JPEG", turn) for turn in range(1, 9)]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def shapes(contents):
        return tf.map_fn(lambda one: tf.shape(transforms.decode(one)), contents, fn_output_signature=tf.int32)

    assert shapes(files).numpy().tolist() == [[37, 52, 3]] * 4 + [[52, 37, 3]] * 4


def turned_files(folder, form="jpeg"):
    """Eight files of each of two classes that all show the same upright picture, stored in eight ways."""
    inverse = {6: 8, 8: 6}
    for number, label in enumerate(("a", "b")):
        (folder / label).mkdir(parents=True)
        upright = picture(number, 24, 32)
        for turn in range(1, 9):
            stored = pillow(saved(upright, "PNG", inverse.get(turn, turn)))
            options = {"quality": 95, "subsampling": 0} if form == "jpeg" else {}
            (folder / label / f"{turn}.{form}").write_bytes(saved(stored, form, turn, **options))
    return [picture(number, 24, 32) for number in range(2)]


@pytest.mark.parametrize("form", ["png", "tiff"])
def test_class_folders_show_upright_images(tmp_path, form, monkeypatch):
    shown = turned_files(tmp_path, form)
    images = data.load(tmp_path, "all")
    assert images.image_shape == (24, 32, 3)
    for image, label in images.examples().as_numpy_iterator():
        np.testing.assert_array_equal(image, shown[label])
    del images
    monkeypatch.setattr(verification, "MEMORY_BUDGET", 0)
    for image, label in data.load(tmp_path, "all").examples().as_numpy_iterator():
        np.testing.assert_array_equal(image, shown[label])


def test_shards_keep_the_bytes_and_show_upright_images(tmp_path):
    turned_files(tmp_path / "photos")
    index = data.write_shards(tmp_path / "photos", tmp_path / "shards", 1, split="all")
    assert index.splits["all"].image_size == (24, 32)  # of the upright images, though half are stored 32 × 24
    records = tf.data.TFRecordDataset(str(tmp_path / "shards" / index.splits["all"].shards[0].file))
    examples = [tf.train.Example.FromString(record.numpy()).features.feature for record in records]
    for example in examples:
        name = example["image/filename"].bytes_list.value[0].decode()
        encoded = (tmp_path / "photos" / name).read_bytes()
        assert example["image/encoded"].bytes_list.value[0] == encoded
        assert (example["image/height"].int64_list.value[0], example["image/width"].int64_list.value[0]) == (24, 32)
    for image, label in data.load(tmp_path / "shards", "all").examples().as_numpy_iterator():
        assert image.shape == (24, 32, 3)
        assert np.abs(image.astype(int) - picture(label, 24, 32)).max() < 40
    for batch, _ in data.load(tmp_path / "shards", "all").batches(
        8, 16, training=True, augment="random_resized_crop_flip"
    ):
        assert batch.shape == (8, 16, 16, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_sizes_of_headers_are_those_of_upright_images(form):
    for turn, size in ((1, (37, 52)), (3, (37, 52)), (6, (52, 37)), (8, (52, 37))):
        assert headers.describe(saved(IMAGE, form, turn)) == (form, *size)
    assert headers.describe(JPEG) == ("JPEG", 37, 52)
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "TIFF")
    assert headers.describe(file.getvalue()) == ("TIFF", 37, 52)


@pytest.mark.parametrize("form", KINDS)
def test_the_fast_search_finds_every_block(form):
    without, turned = saved(IMAGE, form, **KINDS[form]), saved(IMAGE, form, 6, **KINDS[form])
    assert not orientation.may_have(without) and not orientation.may_have(without, jpeg=True)
    assert orientation.may_have(turned)
    assert orientation.may_have(turned, jpeg=True) == (form == "JPEG")


def test_the_fast_search_of_a_jpeg_finds_a_late_block():
    late = with_exif(JPEG, block(6), before=segment(0xE2, b"ICC_PROFILE\0" + bytes(65_000)) * 3)
    assert orientation.may_have(late) and orientation.may_have(late, jpeg=True)
