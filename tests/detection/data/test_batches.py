import bisect

import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.data.pipelines import Share
from keras_deepnets.detection import data
from keras_deepnets.detection.data import pipelines
from keras_deepnets.errors import InputError
from tests.detection.data.folders import many, save, write_voc

AUGMENTED = "flip+scale_jitter(0.8, 1.25)+crop(0.6)+colour_jitter(0.4)"


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return data.load(many(tmp_path_factory.mktemp("many")))


@pytest.fixture(scope="module")
def expected(train):
    return all_of(train.examples())


def all_of(dataset):
    return list(dataset.as_numpy_iterator())


def same(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


def test_no_pipeline_is_autotuned(train):
    datasets = [train.examples(), train.batches(2), train.batches(2, shuffle=True, augmentation="flip")]
    assert [dataset.options().autotune.enabled for dataset in datasets] == [False] * 3


def test_examples_are_in_order(train, expected):
    assert len(expected) == len(train) == train.size == 10
    for index, example in enumerate(expected):
        annotation = train.annotations[index]
        np.testing.assert_array_equal(example["image"], train.image(index))
        np.testing.assert_array_equal(example["boxes"], annotation.boxes)
        np.testing.assert_array_equal(example["labels"], annotation.labels)
        assert example["image_id"].decode() == annotation.image_id


def test_batches_are_padded(train):
    (batch,) = all_of(train.batches(10, min_size=24, max_size=30))
    assert batch["images"].shape == (10, 30, 30, 3) and batch["images"].dtype == np.float32
    assert batch["count"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1] and batch["count"].dtype == np.int32
    assert batch["boxes"].shape == (10, 3, 4) and batch["labels"].shape == batch["crowd"].shape == (10, 3)
    assert (batch["boxes"].dtype, batch["labels"].dtype, batch["sizes"].dtype) == (np.float32, np.int64, np.int32)
    assert batch["index"].tolist() == list(range(10))
    for row, annotation in enumerate(train.annotations):
        height, width = batch["sizes"][row]
        assert (height, width) == ((30, 22) if row % 3 == 0 else (22, 30))
        assert not batch["images"][row, height:].any() and not batch["images"][row, :, width:].any()
        count = batch["count"][row]
        ratio = np.array([width / annotation.width, height / annotation.height] * 2)
        np.testing.assert_allclose(batch["boxes"][row, :count], annotation.boxes * ratio, rtol=1e-6)
        assert not batch["boxes"][row, count:].any() and not batch["labels"][row, count:].any()
        image = tf.image.resize(train.image(row), (height, width))
        np.testing.assert_array_equal(batch["images"][row, :height, :width], image)


def test_sizes_of_batches(train):
    first = next(train.batches(4, min_size=24, max_size=30, divisor=16).as_numpy_iterator())
    assert first["images"].shape == (4, 32, 32, 3) and not first["images"][:, 30:].any()
    dataset = train.batches(4, min_size=24, max_size=30, size=(40, 32), dtype="uint8", drop_remainder=True)
    assert dataset.element_spec["images"].shape == (4, 40, 32, 3)
    batch = next(dataset.as_numpy_iterator())
    assert batch["images"].dtype == np.uint8 and len(all_of(dataset)) == 2
    plain = next(train.batches(1, min_size=None, max_size=None).as_numpy_iterator())
    np.testing.assert_array_equal(plain["images"][0], train.image(0))
    np.testing.assert_array_equal(plain["boxes"][0], train.annotations[0].boxes)
    jittered = next(train.batches(4, augmentation="large_scale_jitter(0.5, 2, 40)+flip").as_numpy_iterator())
    assert jittered["images"].shape == (4, 40, 40, 3)


def test_the_shorter_side_is_drawn_from_several(train):
    sizes = np.concatenate([batch["sizes"].min(axis=1) for batch in all_of(train.batches(5, min_size=(12, 18, 24)))])
    assert set(sizes) == {12, 18, 24}


def test_an_epoch_resumes(train):
    arguments = {
        "seed": 3,
        "epoch": 2,
        "shuffle": True,
        "augmentation": AUGMENTED,
        "min_size": (20, 24),
        "max_size": 40,
    }
    whole = all_of(train.batches(1, **arguments))
    tf.random.set_seed(99)
    fresh = data.load(train.name, cached=False)
    same(all_of(fresh.batches(1, start=4, **arguments)), whole[4:])


def test_epochs_and_seeds_differ(train):
    def order(**options):
        return np.concatenate(
            [batch["index"] for batch in train.batches(4, shuffle=True, min_size=8, **options)]
        ).tolist()

    orders = [order(seed=0, epoch=0), order(seed=0, epoch=1), order(seed=1, epoch=0)]
    assert all(sorted(each) == list(range(10)) for each in orders)
    assert len({tuple(each) for each in orders}) == 3 and order(seed=0, epoch=1) == orders[1]
    assert train.steps(4) == 3 and train.steps(4, drop_remainder=True) == 2


def test_augmented_boxes_stay_inside(train):
    for batch in all_of(train.batches(5, augmentation="flip+iou_crop+crop(0.6)", min_size=30, max_size=60)):
        for boxes, size, count in zip(batch["boxes"], batch["sizes"], batch["count"], strict=True):
            x1, y1, x2, y2 = boxes[:count].T
            assert (x2 > x1).all() and (y2 > y1).all() and (boxes >= 0).all()
            assert (x2 <= size[1] + 1e-3).all() and (y2 <= size[0] + 1e-3).all()


@pytest.mark.parametrize("kept", ["memory", "disk", "nowhere"])
def test_places_of_the_cache(train, expected, monkeypatch, tmp_path, kept):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if kept != "memory":
        monkeypatch.setattr("keras_deepnets.data.verification.MEMORY_BUDGET", 0)
    if kept == "nowhere":
        monkeypatch.setattr("keras_deepnets.data.caching.DISK_BUDGET", 0)
    fresh = train.subset(range(10))
    dataset = fresh.examples()
    for _ in range(2):
        same(all_of(dataset), expected)
    cache = fresh._images.cache
    assert (cache is None) == (kept == "nowhere")
    if cache is not None:
        assert cache.present.all() and isinstance(cache.values, np.memmap) == (kept == "disk")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_checking_fills_the_cache(train):
    fresh = train.subset([3, 4])
    fresh.check()
    assert fresh._images.cache.present.all()


def test_parts(train):
    rest, cut = train.split_off(0.3, seed=1)
    names = [{each.image_id for each in part.annotations} for part in (rest, cut)]
    assert (len(rest), len(cut), cut.split) == (7, 3, "validation") and not names[0] & names[1]
    assert {each.image_id for each in train.split_off(3, seed=1)[1].annotations} == names[1]
    part = train.subset([5, 2])
    assert [each.image_id for each in part.annotations] == ["005", "002"] and part.classes == train.classes
    np.testing.assert_array_equal(part.image(0), train.image(5))
    for wrong in (
        lambda: train.split_off(10),
        lambda: train.subset([]),
        lambda: train.subset([10]),
        lambda: train.image(-1),
    ):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 11, "drop_remainder": True}, "leaves no batch of 10 images"),
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 2}, "epochs=2 with drop_remainder=False would mix epochs"),
        ({"start": 11}, "start=11 must be a whole number of examples from 0 to 10"),
        ({"min_size": 0}, "min_size=0"),
        ({"min_size": (8, 2.5)}, "min_size=2.5"),
        ({"max_size": -1}, "max_size=-1"),
        ({"divisor": 0}, "divisor=0"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"size": 100, "divisor": 32}, "not a multiple of divisor=32"),
        ({"size": 32, "min_size": 32, "max_size": 60}, r"size=\(32, 32\) is smaller than images may become \(42x42\)"),
        ({"size": 64, "min_size": 40, "max_size": 60, "augmentation": "scale_jitter(1, 2)"}, r"\(106x106\)"),
        ({"size": 50, "min_size": 40, "max_size": 60, "augmentation": "crop"}, r"\(60x60\)"),
        ({"size": 50, "augmentation": "large_scale_jitter(1, 2, 64)"}, r"\(64x64\)"),
        ({"augmentation": "spin"}, "'spin' is unknown"),
    ],
)
def test_bad_arguments(train, options, message):
    with pytest.raises(InputError, match=message) as caught:
        train.batches(**({"batch_size": 2} | options))
    assert "\n" not in str(caught.value)


def test_a_set_without_any_box(tmp_path):
    train = data.load(write_voc(tmp_path, {"a": [], "b": []}, {"train": ["a", "b"]}), classes=["dog"])
    (batch,) = all_of(train.batches(2, min_size=24, max_size=40, augmentation="flip+crop+iou_crop"))
    assert batch["boxes"].shape == (2, 0, 4) and batch["count"].tolist() == [0, 0]
    assert train.class_counts == (0, 0)


def test_a_damaged_image_is_named(tmp_path):
    folder = write_voc(tmp_path, {"a": [], "b": []}, {"train": ["b", "a"]})
    save(folder / "JPEGImages/a.png", 1)
    contents = (folder / "JPEGImages/a.png").read_bytes()
    (folder / "JPEGImages/a.png").write_bytes(contents[:200])
    train = data.load(folder, classes=["dog"])
    with pytest.raises(InputError, match=r"a.png cannot be decoded"):
        train.image(1)
    with pytest.raises(InputError, match=r"1 of 2 images cannot be decoded \(.*a.png\); repair or replace them"):
        train.check()


def test_images_of_a_batch_have_similar_aspect_ratios(train):
    """Every image comes once, as without groups; the epochs differ, and an epoch resumes."""
    ratios = np.array([each.width / each.height for each in train.annotations])

    def rows(epoch=0, **options):
        return [
            batch["index"] for batch in all_of(train.batches(2, shuffle=True, epoch=epoch, aspect_groups=0, **options))
        ]

    first = rows()
    assert sorted(np.concatenate(first)) == list(range(10))
    plain = [batch["index"] for batch in all_of(train.batches(2, shuffle=True))]
    kinds = [[len(set((ratios[batch] < 1).tolist())) for batch in batches] for batches in (first, plain)]
    assert sum(ratios < 1) == 4 and kinds[0] == [1] * 5 and 2 in kinds[1]
    assert np.concatenate(rows(epoch=1)).tolist() != np.concatenate(first).tolist()
    np.testing.assert_array_equal(rows(start=4), first[2:])


@pytest.mark.parametrize("aspect_groups", [None, 0])
@pytest.mark.parametrize("share", [Share(), Share(1, 2)])
def test_epochs_in_a_row(train, aspect_groups, share):
    """Three epochs at once, from inside the first, are the batches of the single ones."""
    options = {"augmentation": AUGMENTED, "min_size": (20, 24), "max_size": 40, "aspect_groups": aspect_groups}
    options |= {"seed": 3, "shuffle": True, "drop_remainder": True, "share": share}
    single = [all_of(train.batches(4, epoch=epoch, start=4 * (epoch == 5), **options)) for epoch in (5, 6, 7)]
    assert [len(each) for each in single] == [1, 2, 2]
    together = all_of(train.batches(4, epoch=5, epochs=3, start=4, **options))
    same(together, [batch for each in single for batch in each])
    assert [batch["epoch"].tolist() for batch in together[:2]] == [[5] * (4 // share.count), [6] * (4 // share.count)]


def test_groups_are_torchvisions():
    """`bisect_right` on its edges: seven for a factor of 3, and 1 for 0."""
    edges = [0.5, 0.62996, 0.7937, 1.0, 1.25992, 1.5874, 2.0]
    ratios = np.array([0.3, 0.5, 0.6, 0.99, 1.0, 1.3, 1.99, 2.0, 5.0])
    shapes = np.stack([np.full(9, 1000.0), 1000 * ratios], axis=1)
    assert pipelines.groups_of(shapes, 3).tolist() == [bisect.bisect_right(edges, ratio) for ratio in ratios]
    assert pipelines.groups_of(shapes, 0).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_what_fills_no_batch_is_last():
    order, groups = np.arange(8), np.array([0, 1, 1, 0, 0, 1, 1, 1])
    assert pipelines.grouped(order, groups, 3).tolist() == [0, 3, 4, 1, 2, 5, 6, 7]
    assert pipelines.grouped(order[::-1], groups, 3).tolist() == [7, 6, 5, 4, 3, 0, 2, 1]


@pytest.mark.parametrize("value", [-1, 1.5, True, "3"])
def test_bad_groups(train, value):
    with pytest.raises(InputError, match=r"aspect_groups=.* must be a whole number of at least 0"):
        train.batches(2, aspect_groups=value)
