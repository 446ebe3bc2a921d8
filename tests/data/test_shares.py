"""Workers share the batches of one process, and a run resumes in the middle of an epoch."""

import numpy as np
import pytest
from PIL import Image

from keras_deepnets.data import ImageData
from keras_deepnets.data.image_data import Share
from keras_deepnets.data.shard_writing import write
from keras_deepnets.data.sources import load
from keras_deepnets.errors import InputError

pytestmark = pytest.mark.integration


def numbered(count=50, side=8):
    """Images whose first pixel holds their number."""
    images = np.zeros((count, side, side, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return ImageData.from_arrays(images, np.arange(count) % 3, ("a", "b", "c"))


def taken(batches, steps):
    return [(images, labels) for images, labels in batches.take(steps).as_numpy_iterator()]


OPTIONS = {"training": True, "seed": 5, "drop_remainder": True, "repeat": True}
KINDS = {
    "array": {"augment": "pad_crop_flip"},
    "resized": {"augment": "pad_crop_flip", "image_size": 6},
    "windows": {"augment": "random_resized_crop_flip", "image_size": 6},
    "mixed": {"augment": "pad_crop_flip+mixup(0.2)"},
    "repeated": {"augment": "pad_crop_flip", "copies": 3},
    "repeated windows": {"augment": "random_resized_crop_flip", "image_size": 6, "copies": 2},
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixed"])
@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_a_batch_make_the_batch_of_one_process(kind, count):
    data, options = numbered(), OPTIONS | KINDS[kind]
    whole = taken(data.batches(12, **options), 9)  # four steps per epoch
    parts = [taken(data.batches(12, share=Share(at, count), **options), 9) for at in range(count)]
    for step, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[step][0] for part in parts]), images)
        np.testing.assert_array_equal(np.concatenate([part[step][1] for part in parts]), labels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [None, Share(1, 2)])
def test_an_epoch_resumes_in_its_middle(kind, share):
    data, options = numbered(), OPTIONS | KINDS[kind]
    whole = taken(data.batches(12, first_epoch=3, share=share, **options), 9)
    rest = taken(data.batches(12, first_epoch=3, first_step=3, share=share, **options), 6)
    for (images, labels), (same, same_labels) in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, same_labels)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """40 records in four files."""
    folder = tmp_path_factory.mktemp("shards")
    for at in range(40):
        file = folder / "images" / "ab"[at % 2] / f"{at}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (at * 6, 0, 0)).save(file)
    write(folder / "images", folder / "out", shards=4, split="all")
    return load(str(folder / "out"), "all")


def test_workers_read_every_record_once_and_their_own_files(records):
    assert records.size == 40 and len(records.store.pieces) == 4
    seen = [
        [
            int(image[0, 0, 0]) // 6
            for images, _ in taken(records.batches(8, share=Share(at, 2), **OPTIONS), 5)
            for image in images
        ]
        for at in range(2)
    ]
    assert [len(part) for part in seen] == [20, 20]
    assert len({*seen[0], *seen[1]}) == 40
    files = [{piece.path for piece in records.store.part(at, 2).pieces} for at in range(2)]
    assert len(files[0] & files[1]) <= 1
    again = records.batches(8, share=Share(1, 2), **OPTIONS)
    resumed = records.batches(8, share=Share(1, 2), first_step=2, **OPTIONS)
    for (images, _), (same, _) in zip(taken(again, 7)[2:], taken(resumed, 5), strict=True):
        np.testing.assert_array_equal(images, same)


def test_parts_for_validation_hold_every_example_once(records):
    for data in (numbered(), records):
        parts = [data.part(Share(at, 3)) for at in range(3)]
        assert sum(part.size for part in parts) == data.size
        pixels = [image.tobytes() for part in parts for image, _ in part.examples().as_numpy_iterator()]
        assert pixels == [image.tobytes() for image, _ in data.examples().as_numpy_iterator()]
    with pytest.raises(InputError, match="2 all examples cannot be shared by 3 workers"):
        numbered(2).part(Share(0, 3))


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="batch_size=10 must be divisible by the 3 workers"):
        numbered().batches(10, share=Share(0, 3), **OPTIONS)
    with pytest.raises(InputError, match="first_step=2 needs repeat=True"):
        numbered().batches(10, training=True, first_step=2)
