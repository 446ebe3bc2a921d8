"""Policies that are written with numbers and joined, the colours, RandAugment and the mixing of images."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from keras_deepnets.data import ImageData, augmentation, rand_augment
from keras_deepnets.errors import InputError


def photograph(rng, height=40, width=48):
    """Smooth and colourful, uint8 ``[h, w, 3]``."""
    small = rng.integers(0, 256, (6, 7, 3)).astype("uint8")
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def draws(policy, count, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=(count, policy.draws)), tf.float32)


def test_numbers_and_joining():
    policy = augmentation.get("random_resized_crop_flip + rand_augment(7, probability=0.5) + mixup(0.1) + cutmix")
    assert policy.name == "random_resized_crop_flip+rand_augment(magnitude=7, probability=0.5)+mixup(alpha=0.1)+cutmix"
    assert augmentation.get(policy.name).name == policy.name
    stages = (policy.window, policy.image, policy.batch, policy.mix)
    assert all(stage is not None for stage in stages)
    assert policy.draws == 3 + 2 + 2 + 2 + 1


def test_parts_for_single_images_keep_their_order_and_numbers(rng):
    """Colour jitter behind a window is applied to each image, and behind anything for batches to the batch."""
    for text, batches in (
        ("random_resized_crop_flip+color_jitter(0.4)", False),
        ("random_resized_crop_flip+color_jitter(0.4)+lighting(0.1)", True),
        ("random_resized_crop_flip+lighting(0.1)+color_jitter(0.4)", True),
    ):
        policy, images = augmentation.get(text), tf.constant(np.stack([photograph(rng) for _ in range(4)]))
        assert (policy.batch is not None) == batches
        numbers = draws(policy, 4)
        found = tf.stack([policy.image(image, own) for image, own in zip(images, numbers, strict=True)])
        found = policy.batch(found, numbers) if batches else found
        start = 3
        expected = tf.stack([augmentation.flip(image, own[:3]) for image, own in zip(images, numbers, strict=True)])
        for name in text.split("+")[1:]:
            part = augmentation.get(name)
            expected = part.batch(expected, numbers[:, start : start + part.draws])
            start += part.draws
        assert np.abs(found.numpy().astype(int) - expected.numpy()).max() <= 1


def test_single_images_are_changed_only_after_a_window():
    with pytest.raises(InputError, match=r"Policy 'turned' has `image` but no `window`; .* as `batch`"):
        augmentation.Policy("turned", image=lambda image, draws: image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mixup+blur", "'mixup\\+blur' is unknown"),
        ("mixup(", "is unknown"),
        ("mixup(a)", r"write it as mixup\(alpha=0.2\)"),
        ("mixup(1, 2)", r"write it as mixup\(alpha=0.2\)"),
        ("mixup(1)*(2)", r"write it as mixup\(alpha=0.2\)"),
        ("mixup(0.1)(0.2)", r"write it as mixup\(alpha=0.2\)"),
        ("mixup(-1)", "alpha=-1 must be a non-negative number"),
        ("rand_augment(11)", "magnitude=11 must be in"),
        ("random_erasing(2)+mixup(__import__('os'))", "write it as"),
        ("pad_crop_flip+random_resized_crop_flip", "must come first"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(InputError, match=message):
        augmentation.get(text)


def test_color_jitter_is_torchvisions(rng):
    """Against PIL's enhancers, with the factors and the order that the numbers give."""
    image = photograph(rng)
    numbers = np.array([[0.0, 0.9, 0.2, 0.7], [0.99, 0.1, 0.6, 0.3]], "float32")
    policy = augmentation.get("color_jitter(0.4)")
    found = policy.batch(tf.constant(np.stack([image, image])), tf.constant(numbers)).numpy()
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for row, order, result in zip(numbers, [(0, 1, 2), (2, 1, 0)], found, strict=True):
        expected = Image.fromarray(image)
        for kind in order:
            expected = enhancers[kind](expected).enhance(0.6 + 0.8 * float(row[1 + kind]))
        assert np.abs(result.astype(int) - np.asarray(expected)).max() <= 3  # PIL rounds after every step


def test_lighting_shifts_all_pixels_alike(rng):
    policy = augmentation.get("lighting(0.1)")
    images = tf.constant(rng.integers(100, 150, (400, 2, 2, 3)).astype("uint8"))
    shift = policy.batch(images, draws(policy, 400)).numpy().astype(float) - images.numpy()
    assert np.ptp(shift, axis=(1, 2)).max() == 0
    # 255 · 0.1 · sqrt(Σ (component · deviation)²) for red
    expected = 25.5 * np.linalg.norm(np.array([-0.5675, 0.7192, 0.4009]) * [0.2175, 0.0188, 0.0045])
    assert shift[:, 0, 0, 0].std() == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("level", [-0.7, 0.4, 1.0])
@pytest.mark.parametrize("name", list(rand_augment.OPERATIONS))
def test_operations_are_pils(name, level, rng):
    """Each operation against PIL's, whose affine transforms are a fraction of a pixel apart."""
    image = photograph(rng)
    picture, size = Image.fromarray(image), abs(level)
    enhanced = {"color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast}
    enhanced |= {"brightness": ImageEnhance.Brightness, "sharpness": ImageEnhance.Sharpness}
    affine = {
        "shear_x": (1, 0.3 * level, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * level, 1, 0),
        "translate_x": (1, 0, 0.45 * level * 48, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 0.45 * level * 40),
    }
    options = {"resample": Image.Resampling.BILINEAR, "fillcolor": (128, 128, 128)}
    if name in enhanced:
        expected = enhanced[name](picture).enhance(1 + 0.9 * level)
    elif name in affine:
        expected = picture.transform(picture.size, Image.Transform.AFFINE, affine[name], **options)
    else:
        expected = {
            "auto_contrast": lambda: ImageOps.autocontrast(picture),
            "equalize": lambda: ImageOps.equalize(picture),
            "invert": lambda: ImageOps.invert(picture),
            "rotate": lambda: picture.rotate(30 * level, **options),
            "posterize": lambda: ImageOps.posterize(picture, 4 - int(4 * size)) if int(4 * size) < 4 else None,
            "solarize": lambda: ImageOps.solarize(picture, 256 - int(256 * size)),
            "solarize_add": lambda: np.where(image < 128, np.minimum(image.astype(int) + int(110 * size), 255), image),
        }[name]()
    found = rand_augment.apply(name, tf.constant(image), level).numpy().astype(int)
    if expected is None:
        assert not found.any()
        return
    difference = np.abs(found - np.asarray(expected).astype(int))
    if name in affine or name == "rotate":
        assert np.median(difference) <= 2 and difference.mean() < 12
    else:
        assert difference.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("level", [-1.0, -0.37, 0.0, 0.5, 1.0])
def test_moved_rows_are_those_of_the_general_op(level, channels, rng):
    """Shearing and shifting against the op that transforms by any matrix."""
    image = photograph(rng)[..., :channels]
    matrices = {
        "shear_x": (1, 0.3 * level, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * level, 1, 0),
        "translate_x": (1, 0, 0.45 * level * 48, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 0.45 * level * 40),
    }
    for name, matrix in matrices.items():
        expected = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(image, tf.float32)[None],
            transforms=tf.constant([[*matrix, 0, 0]], tf.float32),
            output_shape=image.shape[:2],
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
            fill_value=128.0,
        )[0]
        found = rand_augment.apply(name, tf.constant(image), level)
        assert np.abs(found.numpy() - expected.numpy()).max() < 0.501, name


@pytest.mark.parametrize("name", list(rand_augment.OPERATIONS))
def test_operations_take_grey_images_and_constant_ones(name, rng):
    """A grey image changes as three equal channels do. An image of one colour has no contrast to stretch."""
    grey = photograph(rng)[..., :1]
    found = rand_augment.apply(name, tf.constant(grey), 0.6).numpy().astype(int)
    colour = rand_augment.apply(name, tf.constant(np.repeat(grey, 3, -1)), 0.6).numpy().astype(int)
    assert np.abs(found - colour).max() <= 1
    plain = np.broadcast_to(np.array([10, 100, 200], "uint8"), (9, 11, 3))
    same = rand_augment.apply(name, tf.constant(plain), 0.6).numpy()
    if name in ("auto_contrast", "equalize", "sharpness"):
        np.testing.assert_array_equal(same, plain)


def test_rand_augment_is_a_function_of_the_draws(rng):
    policy = augmentation.get("rand_augment(9)")
    images = tf.constant(np.stack([photograph(rng) for _ in range(24)]))
    numbers = draws(policy, 24)
    run = tf.function(policy.batch)
    found = run(images, numbers).numpy()
    np.testing.assert_array_equal(found, run(images, numbers).numpy())
    # An image's variation does not depend on its neighbours.
    np.testing.assert_array_equal(found[5:9], run(images[5:9], numbers[5:9]).numpy())
    changed = [(one != two).any() for one, two in zip(found, images.numpy(), strict=True)]
    assert sum(changed) >= 22
    never = augmentation.get("rand_augment(9, probability=0)")
    np.testing.assert_array_equal(never.batch(images, numbers), images)


def test_mixup_blends_images_and_targets_alike(rng):
    policy = augmentation.get("mixup(0.8)")
    images = rng.integers(0, 256, (16, 4, 4, 3)).astype("uint8")
    images[:, 0, 0] = np.arange(16)[:, None] * 10  # which image a pixel is of
    targets = tf.one_hot(np.arange(16), 16)
    mixed, shares = policy.mix(tf.constant(images), targets, draws(policy, 16))
    np.testing.assert_allclose(shares.numpy().sum(1), 1, rtol=1e-6)
    expected = np.einsum("ij,jhwc->ihwc", shares.numpy(), images.astype(float))
    assert np.abs(mixed.numpy() - expected).max() <= 0.51
    assert 0.02 < (1 - shares.numpy().max(1)).mean() < 0.5


def test_mixing_follows_the_beta_distribution():
    """λ has a mean of a half and the variance of Beta(α, α), also where almost all its values are 0 or 1."""
    for alpha in (0.02, 0.2, 1.0):
        policy = augmentation.get(f"mixup({alpha})")
        images, targets = tf.zeros([4000, 1, 1, 1], tf.uint8), tf.eye(4000)
        _, shares = policy.mix(images, targets, draws(policy, 4000))
        assert np.isfinite(shares.numpy()).all()
        np.testing.assert_allclose(shares.numpy().sum(1), 1, rtol=1e-6)
        own = shares.numpy().diagonal()
        assert own.mean() == pytest.approx(0.5, abs=0.03)
        assert own.var() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.08)


def boxes(changed):
    """Height and width of the box of each changed image, and whether all of the box is changed."""
    for image in changed:
        rows, columns = image.any(1), image.any(0)
        yield rows.sum(), columns.sum(), (image == rows[:, None] & columns).all()


def test_cutmix_targets_are_areas(rng):
    policy = augmentation.get("cutmix(1.0)")
    images = np.broadcast_to(np.arange(200, dtype="uint8")[:, None, None, None], (200, 30, 20, 3))
    mixed, shares = policy.mix(tf.constant(images), tf.one_hot(np.arange(200), 200), draws(policy, 200))
    areas = np.stack([np.bincount(image[..., 0].ravel(), minlength=200) / 600 for image in mixed.numpy()])
    np.testing.assert_allclose(areas, shares, atol=1e-6)
    assert (mixed.numpy() == mixed.numpy()[..., :1]).all()
    pasted = mixed.numpy()[..., 0] != images[..., 0]
    found = [box for box in boxes(pasted) if box[0]]
    assert len(found) > 170 and all(whole for _, _, whole in found)
    assert 0.1 < pasted.mean() < 0.5
    # Some centres are near the border, so the share of the box is not always that of both sides.
    assert any(abs(height / 30 - width / 20) > 0.2 for height, width, _ in found)


def test_random_erasing(rng):
    policy = augmentation.get("random_erasing(0.5)")
    images = np.broadcast_to(rng.integers(0, 256, (1, 32, 32, 3)).astype("uint8"), (400, 32, 32, 3))
    numbers = draws(policy, 400)
    found = policy.batch(tf.constant(images), numbers).numpy()
    np.testing.assert_array_equal(found, policy.batch(tf.constant(images), numbers))
    changed = found != images
    erased = changed.any((1, 2, 3))
    np.testing.assert_array_equal(erased, numbers[:, 0] < 0.5)
    sizes = np.array([box[:2] for box in boxes(changed[erased].any(-1))])
    assert 0.01 < sizes.prod(1).min() / 32**2 < 0.03 and 0.28 < sizes.prod(1).max() / 32**2 < 0.36
    ratios = sizes[:, 0] / sizes[:, 1]
    assert ratios.min() < 0.5 and ratios.max() > 2 and 0.8 < np.median(ratios) < 1.25
    noise = found[changed]
    assert noise.mean() == pytest.approx(127.5, abs=1) and noise.std() == pytest.approx(73.9, abs=1)
    assert len(np.unique(found[erased][:, 15, 15], axis=0)) > 5  # each image has its own noise


@pytest.mark.parametrize("name", ["color_jitter", "lighting", "rand_augment", "random_erasing(1)", "mixup", "cutmix"])
def test_policies_of_unknown_sizes_are_those_of_known_ones(name, rng):
    """Inside a graph that knows no sizes, as with the last batch of an epoch."""
    policy = augmentation.get(name)
    images, targets = tf.constant(np.stack([photograph(rng) for _ in range(5)])), tf.one_hot(range(5), 5)
    call = policy.batch or (lambda images, draws: policy.mix(images, targets, draws)[0])
    shapes = [tf.TensorSpec([None, None, None, 3], tf.uint8), tf.TensorSpec([None, policy.draws])]
    numbers = draws(policy, 5)
    found = tf.function(call, input_signature=shapes)(images, numbers).numpy().astype(int)
    assert (
        np.abs(found - call(images, numbers).numpy()).max() <= 2
    )  # of two operations, the second may double a rounding


def set_of(rng, size=32):
    labels = np.arange(size) % 4
    return ImageData.from_arrays(rng.integers(0, 256, (size, 8, 8, 3)).astype("uint8"), labels, tuple("abcd"), "made")


def test_mixed_batches_are_the_same_after_a_resume(rng):
    data = set_of(rng)
    arguments = {"training": True, "augment": "pad_crop_flip+mixup(0.4)+cutmix", "seed": 3, "repeat": True}
    whole = list(data.batches(8, **arguments).take(12).as_numpy_iterator())
    later = list(data.batches(8, **arguments, first_epoch=2).take(4).as_numpy_iterator())
    for (images, targets), (others, shares) in zip(whole[8:], later, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(targets, shares)
        assert images.dtype == np.uint8 and targets.shape == (8, 4)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    assert any((targets.max(1) < 0.99).any() for _, targets in whole)


@pytest.mark.parametrize("size", [8, 6])
def test_repeated_augmentation(rng, size):
    """Two thirds of a batch are copies; from memory, and where images are resized one by one."""
    data = set_of(rng, 30)
    batches = data.batches(
        30, size, training=True, augment=None if size == 8 else "random_resized_crop_flip", copies=3, seed=1
    )
    images, labels = next(batches.as_numpy_iterator())
    assert len(images) == 30
    np.testing.assert_array_equal(labels[::3], labels[1::3])
    np.testing.assert_array_equal(labels[::3], labels[2::3])
    if size == 8:
        assert len(np.unique(images.reshape(30, -1), axis=0)) == 10
    with pytest.raises(InputError, match="copies=0"):
        data.batches(4, training=True, copies=0)
