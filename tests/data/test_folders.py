from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from keras_deepnets import data
from keras_deepnets.data import stores, verification
from keras_deepnets.errors import InputError
from tests.data.conftest import picture, write_class_folders


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_images_in_class_and_natural_order(tmp_path):
    write_class_folders(tmp_path, {"class10": 2, "class2": 12})
    images = data.load(tmp_path, "all")
    assert images.labels == ("class2", "class10")
    assert (images.size, images.class_counts, images.image_shape) == (14, (12, 2), (20, 24, 3))
    assert images.store.names[:3] == ("class2/0.png", "class2/1.png", "class2/2.png")
    assert images.store.names[9:13] == ("class2/9.png", "class2/10.png", "class2/11.png", "class10/0.png")
    for number, (image, label) in enumerate(images.examples().as_numpy_iterator()):
        expected = picture(1000 + number) if label == 0 else picture(number - 12)
        np.testing.assert_array_equal(image, expected)


def test_a_folder_of_classes_is_split_by_name_and_seed(two_classes):
    parts = {split: data.load(str(two_classes), split) for split in ("train", "validation", "test", "all")}
    counts = {split: part.class_counts for split, part in parts.items()}
    assert counts == {"train": (16, 8), "validation": (2, 1), "test": (2, 1), "all": (20, 10)}
    names = [set(parts[split].store.names) for split in ("train", "validation", "test")]
    assert set.union(*names) == set(parts["all"].store.names)
    assert sum(map(len, names)) == 30
    assert set(data.load(two_classes, "test").store.names) == names[2]
    assert set(data.load(two_classes, "test", seed=1).store.names) != names[2]
    train, cut = (data.load(two_classes, split, validation=9) for split in ("train", "validation"))
    assert (train.class_counts, cut.class_counts) == ((12, 6), (6, 3))
    assert not set(train.store.names) & set(cut.store.names)
    assert not (set(train.store.names) | set(cut.store.names)) & names[2]
    assert data.load(two_classes, validation=0).size == 27


def test_splits_share_the_decoded_pixels(two_classes):
    train, test = data.load(two_classes), data.load(two_classes, "test")
    assert train.store.pixels is test.store.pixels
    (two_classes / "cat" / "0.png").write_bytes((two_classes / "cat" / "1.png").read_bytes())
    assert data.load(two_classes).store.pixels is not train.store.pixels


def test_small_classes_fill_train_first(tmp_path):
    write_class_folders(tmp_path, {"one": 1, "two": 2, "three": 3})
    assert data.load(tmp_path).labels == ("one", "three", "two")
    assert [data.load(tmp_path, split).class_counts for split in ("train", "validation", "test")] == [
        (1, 1, 1), (0, 1, 0), (0, 1, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["validation", "Val"])
def test_split_folders(tmp_path, name):
    write_class_folders(tmp_path / "train", {"a": 6, "b": 6, "c": 6})
    write_class_folders(tmp_path / name, {"a": 2, "b": 1})
    write_class_folders(tmp_path / "test", {"b": 3, "c": 2})
    counts = {split: data.load(tmp_path, split).class_counts for split in ("train", "validation", "test", "all")}
    assert counts == {"train": (6, 6, 6), "validation": (2, 1, 0), "test": (0, 3, 2), "all": (8, 10, 8)}
    assert data.load(tmp_path, "train", validation=3).class_counts == (5, 5, 5)
    assert data.load(tmp_path, "validation", validation=3).class_counts == (1, 1, 1)
    assert data.load(tmp_path / "train", "all").class_counts == (6, 6, 6)


def test_split_folders_without_some_split(tmp_path):
    write_class_folders(tmp_path / "train", {"a": 6, "b": 6})
    raises("split 'test': .* has train, validation, all", tmp_path, "test")
    raises("no validation split of its own", tmp_path, "validation")
    assert data.load(tmp_path, "validation", validation=0.5).size == 6
    raises("split 'dev'", tmp_path, "dev")
    raises("split 'dev': .* has train, validation, test, all", tmp_path / "train", "dev")


def test_classes_called_as_splits_and_folders_beside_splits(tmp_path):
    write_class_folders(tmp_path / "vehicles", {"train": 4, "bus": 4})
    assert data.load(tmp_path / "vehicles", "all").labels == ("bus", "train")
    write_class_folders(tmp_path / "set" / "train", {"a": 2, "b": 2})
    (tmp_path / "set" / "notes").mkdir()
    assert data.load(tmp_path / "set", "train").labels == ("a", "b")
    write_class_folders(tmp_path / "flat", {"train": 3, "test": 3})
    raises("images but no class folders", tmp_path / "flat")


def test_formats_cases_and_hidden_files(tmp_path):
    write_class_folders(tmp_path, {"a": 1, "b": 1})
    for extension in ("jpg", "JPEG", "bmp", "GIF"):
        Image.fromarray(picture(1)).save(tmp_path / "a" / f"more.{extension}")
    (tmp_path / "a" / "deeper").mkdir()
    Image.fromarray(picture(2)).save(tmp_path / "a" / "deeper" / "one.png")
    (tmp_path / "a" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.md").write_text("two classes")
    images = data.load(tmp_path, "all")
    assert (images.labels, images.class_counts) == (("a", "b"), (6, 1))


def test_images_of_many_sizes_stay_packed_in_memory(tmp_path):
    write_class_folders(tmp_path, {"a": 5, "b": 5}, size=lambda index: (10 + index, 20))
    images = data.load(tmp_path, "all")
    assert images.image_shape == (None, None, 3)
    assert isinstance(images.store.pixels, stores.PackedPixels)
    expected = [picture(1000 * label + index, 10 + index, 20) for label in range(2) for index in range(5)]
    for (image, _), wanted in zip(images.examples().as_numpy_iterator(), expected, strict=True):
        np.testing.assert_array_equal(image, wanted)
    flat = np.concatenate([image.reshape(-1, 3) for image in expected]).astype(np.float64)
    np.testing.assert_allclose(images.statistics(), [flat.mean(axis=0), flat.std(axis=0)], rtol=1e-12)
    with pytest.raises(InputError, match="differ in size; give image_size"):
        images.batches(4)


def test_what_does_not_fit_is_read_from_files(two_classes, monkeypatch):
    in_memory = data.load(two_classes)
    statistics = in_memory.statistics()
    batches = [batch for batch, _ in in_memory.batches(7, 16, crop_fraction=0.9).as_numpy_iterator()]
    del in_memory
    monkeypatch.setattr(verification, "MEMORY_BUDGET", 10_000)
    streamed = data.load(two_classes)
    assert isinstance(streamed.store.pixels, stores.FilePixels)
    assert (streamed.size, streamed.class_counts) == (24, (16, 8))
    np.testing.assert_allclose(streamed.statistics(), statistics, rtol=1e-12)
    again = streamed.batches(7, 16, crop_fraction=0.9)
    for _ in range(2):  # the second time from the cache
        for ours, theirs in zip(again.as_numpy_iterator(), batches, strict=True):
            np.testing.assert_array_equal(ours[0], theirs)


def break_some(folder):
    whole = (folder / "cat" / "3.png").read_bytes()
    (folder / "cat" / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "7.png").write_bytes(b"")
    (folder / "dog" / "2.png").write_text("this is no image")
    return ("cat/3.png", "cat/7.png", "dog/2.png")


@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_broken_images_are_named_in_every_split(two_classes, split):
    break_some(two_classes)
    message = raises("3 of 30 images cannot be decoded", two_classes, split)
    assert "(cat/3.png, cat/7.png, dog/2.png)" in message and "skip_broken=True" in message


def test_broken_images_are_skipped_and_counted(two_classes):
    broken = break_some(two_classes)
    images = data.load(two_classes, "all", skip_broken=True)
    assert images.skipped == broken
    assert images.class_counts == (18, 9)
    # Images of one size stay one array, broken ones or not.
    assert images.image_shape == (20, 24, 3)
    kept = [index for index in range(20) if index not in (3, 7)]
    for (image, _), index in zip(images.examples().take(18).as_numpy_iterator(), kept, strict=True):
        np.testing.assert_array_equal(image, picture(index))


def test_many_broken_images_make_one_line(tmp_path):
    write_class_folders(tmp_path, {"a": 12, "b": 2})
    for index in range(9):
        (tmp_path / "a" / f"{index}.png").write_bytes(b"x")
    assert "a/4.png, … 4 more)" in raises("9 of 14 images", tmp_path)


def test_a_truncated_jpeg_is_broken(tmp_path):
    write_class_folders(tmp_path, {"a": 3, "b": 3}, extension="jpg")
    whole = (tmp_path / "a" / "1.jpg").read_bytes()
    (tmp_path / "a" / "1.jpg").write_bytes(whole[:-100])
    assert "(a/1.jpg)" in raises("1 of 6 images", tmp_path, "all")


def test_large_sets_are_checked_by_beginning_and_end(two_classes, monkeypatch):
    monkeypatch.setattr(verification, "DECODE_LIMIT", 0)
    assert isinstance(data.load(two_classes, "all").store.pixels, stores.FilePixels)
    broken = break_some(two_classes)
    assert data.load(two_classes, "all", skip_broken=True).skipped == broken
    for extension in ("jpg", "gif", "bmp"):
        path = two_classes / f"x.{extension}"
        Image.fromarray(picture(1)).save(path)
        assert verification.looks_whole(str(path))
        path.write_bytes(path.read_bytes()[:-100] if extension != "bmp" else b"MB")
        assert not verification.looks_whole(str(path))
    assert not verification.looks_whole(str(two_classes / "nothing.jpg"))


def test_a_class_of_broken_images_only(tmp_path):
    write_class_folders(tmp_path, {"a": 2, "b": 2})
    for index in range(2):
        (tmp_path / "b" / f"{index}.png").write_bytes(b"x")
    raises("no image of class b can be decoded", tmp_path, skip_broken=True)


def test_folder_errors(tmp_path):
    raises("no such folder", tmp_path / "missing")
    raises("no such folder", str(tmp_path / "missing"))
    raises("no images", tmp_path)
    (tmp_path / "file.txt").write_text("x")
    raises("is a file; give a folder", tmp_path / "file.txt")
    Image.fromarray(picture(1)).save(tmp_path / "loose.png")
    raises("images but no class folders", tmp_path)
    (tmp_path / "a").mkdir()
    raises(r"no images \(\.jpg \.jpeg .*\.png .*\.webp .*\.tiff .*\) in its class folders", tmp_path)
    write_class_folders(tmp_path, {"a": 2})
    raises("only one class \\('a'\\)", tmp_path)
    (tmp_path / "b").mkdir()
    raises("no images of class b; add images or remove the folder", tmp_path)
    write_class_folders(tmp_path, {"b": 1})
    assert data.load(tmp_path).class_counts == (1, 1)
    assert data.load(tmp_path, "test").class_counts == (1, 0)
    raises("too few images for a validation split", tmp_path, "validation")
    raises("validation=3", tmp_path, validation=3)


def test_a_class_that_train_lacks(tmp_path):
    write_class_folders(tmp_path / "train", {"a": 2, "b": 2})
    write_class_folders(tmp_path / "test", {"a": 2, "c": 2})
    raises("no images of class c", tmp_path)


def test_a_link_to_nowhere_is_broken(tmp_path):
    write_class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "gone.png")
    raises("1 of 5 images cannot be decoded \\(a/link.png\\)", tmp_path)


def test_loading_in_threads(two_classes):
    with ThreadPoolExecutor(4) as threads:
        sizes = list(threads.map(lambda split: data.load(two_classes, split).size, ["train", "test"] * 2))
    assert sizes == [24, 3, 24, 3]
