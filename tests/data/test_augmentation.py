import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.data import ImageData, augmentation, transforms
from keras_deepnets.errors import InputError
from tests.data.conftest import picture


def reference_crop(image, row, column, mirrored, padding=4):
    padded = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    crop = padded[row : row + image.shape[0], column : column + image.shape[1]]
    return crop[:, ::-1] if mirrored else crop


def test_crop_and_flip_against_numpy():
    images = np.stack([picture(seed, 12, 10) for seed in range(6)])
    places = [(0, 0, 0), (8, 8, 1), (4, 4, 0), (4, 4, 1), (0, 8, 1), (3, 5, 0)]
    draws = np.array(
        [[(row + 0.5) / 9, (column + 0.5) / 9, 0.25 + 0.5 * side] for row, column, side in places], np.float32
    )
    cropped = augmentation.crop_and_flip(tf.constant(images), draws)
    assert cropped.dtype == tf.uint8 and cropped.shape == images.shape
    np.testing.assert_array_equal(
        cropped, [reference_crop(image, *place) for image, place in zip(images, places, strict=True)]
    )
    np.testing.assert_array_equal(cropped[2], images[2])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_padding_with_a_colour(dtype):
    image = picture(1, 12, 12)
    colour = [250.0, 3.4, 120.0]
    padded = np.empty((20, 20, 3), dtype)
    padded[:] = colour if dtype == "float32" else np.rint(colour)
    padded[4:16, 4:16] = image
    draws = np.array([[0.999, 0.0, 0.0]], np.float32)
    cropped = augmentation.crop_and_flip(tf.constant(image[None].astype(dtype)), draws, fill=colour)
    np.testing.assert_allclose(cropped[0], padded[8:, :12], atol=0 if dtype == "uint8" else 1e-4)


def test_padding_with_the_mean_of_the_images():
    images = np.stack([picture(seed, 12, 12) for seed in range(3)])
    data = ImageData.from_arrays(images, np.arange(3), ("a", "b", "c"))
    mean = np.rint(data.statistics()[0])
    colours = {"pad_crop_flip": mean, "pad_crop_flip(8)": mean, "pad_crop_flip(fill=7)": [7] * 3}
    for policy, colour in (colours | {"pad_crop_flip(12, fill='mean')+lighting(0)": mean}).items():
        (found, _), *_ = data.batches(3, training=True, augment=policy).as_numpy_iterator()
        marks = [tuple(image[row, column]) for image in found for row in (0, -1) for column in (0, -1)]
        assert tuple(colour) in marks  # of twelve corners
    (grey, _), *_ = data.batches(3, channels=1, training=True, augment="pad_crop_flip(12)").as_numpy_iterator()
    assert np.rint(np.mean(data.statistics()[0])) in grey[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert augmentation.get("pad_crop_flip(fill='mean')").name == "pad_crop_flip(fill='mean')"
    for text, message in (("fill='grey'", "must be 'mean' or a number"), ("fill=256", "0 to 255"), ("'x'", "padding=")):
        with pytest.raises(InputError, match=message):
            augmentation.get(f"pad_crop_flip({text})")


def test_draws_close_to_one_stay_inside():
    images = np.stack([picture(1, 12, 12)])
    last = np.nextafter(np.float32(1), np.float32(0))
    cropped = augmentation.crop_and_flip(tf.constant(images), np.full([1, 3], last, np.float32))
    np.testing.assert_array_equal(cropped[0], reference_crop(images[0], 8, 8, True))


def test_every_offset_comes_equally_often():
    marked = np.zeros((4096, 9, 9, 1), np.uint8)
    marked[:, 4, 4] = 255
    draws = tf.random.stateless_uniform([4096, 3], [0, 1])
    cropped = augmentation.crop_and_flip(tf.constant(marked), draws).numpy()
    counts = (cropped[..., 0] > 0).sum(axis=0)
    assert counts.shape == (9, 9) and counts.sum() == 4096
    assert counts.min() > 20 and counts.max() < 90  # 50.6 expected, standard deviation 7.1


def test_shift_without_shift_is_the_identity():
    images = np.stack([picture(seed, 16, 16) for seed in range(2)])
    np.testing.assert_array_equal(
        augmentation.shift_and_rotate(tf.constant(images), np.full([2, 3], 0.5, np.float32)), images
    )


def test_shift_moves_whole_pixels_exactly():
    image = picture(1, 16, 16)
    # The op looks up where an output pixel comes from: a positive shift moves the picture up and left.
    draws = np.array([[1.0, 0.0, 0.5]], np.float32)
    moved = augmentation.shift_and_rotate(tf.constant(image[None]), draws, pixels=2)[0].numpy()
    np.testing.assert_array_equal(moved[:-2, 2:], image[2:, :-2])
    assert not moved[-2:].any() and not moved[:, :2].any()


def test_shift_turns_about_the_centre():
    image = np.zeros((1, 15, 15, 1), np.uint8)
    image[0, 7] = 200  # a horizontal line through the centre
    turned = augmentation.shift_and_rotate(tf.constant(image), np.array([[0.5, 0.5, 1.0]], np.float32), degrees=90)[0]
    np.testing.assert_array_equal(turned, np.swapaxes(image[0], 0, 1))


def test_random_resized_windows_are_inside_and_of_the_stated_shape():
    @tf.function
    def windows_of(height, width, draws):
        return tf.map_fn(
            lambda one: tf.stack(augmentation.random_resized_window(height, width, one)),
            draws,
            fn_output_signature=tf.int32,
        )

    for height, width in ((100, 120), (300, 200)):
        windows = windows_of(height, width, tf.random.stateless_uniform([500, 3], [1, 2])).numpy()
        top, left, tall, wide = windows.T
        assert (top >= 0).all() and (left >= 0).all() and (top + tall <= height).all() and (left + wide <= width).all()
        share, ratio = tall * wide / (height * width), wide / tall
        assert share.min() >= 0.075 and share.min() < 0.12 and share.max() > 0.8
        assert ratio.min() >= 0.72 and ratio.max() <= 1.39
        assert abs(np.log(ratio).mean()) < 0.05


def test_no_window_fits_a_narrow_image():
    draws = tf.constant([0.1, 0.2, 0.3])
    assert [int(value) for value in augmentation.random_resized_window(10, 10_000, draws)] == [0, 4993, 10, 13]
    assert [int(value) for value in augmentation.random_resized_window(10_000, 12, draws)] == [4992, 0, 16, 12]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (250, 250), (1000, 300)])
def test_scaled_windows(height, width):
    """Of sides that the scales 256 to 480 give, each as often, and anywhere."""
    draws = tf.random.stateless_uniform([8000, 4], [3, 4])
    windows = tf.vectorized_map(lambda one: tf.stack(augmentation.scaled_window(height, width, one)), draws).numpy()
    top, left, tall, wide = windows.T
    shorter = min(height, width)
    np.testing.assert_array_equal(tall, wide)
    scales = 256 + np.floor(draws[:, 0].numpy() * 225)
    assert (scales.min(), scales.max()) == (256, 480)
    np.testing.assert_array_equal(tall, np.rint(224 / scales.astype("float32") * np.float32(shorter)))
    assert (tall.min(), tall.max()) == (round(224 / 480 * shorter), round(224 / 256 * shorter))
    assert top.min() == left.min() == 0 and (top + tall).max() == height and (left + wide).max() == width
    assert (top + tall <= height).all() and (left + wide <= width).all()
    for corner, room in ((top, height - tall), (left, width - wide)):
        assert np.mean(corner / room) == pytest.approx(0.5, abs=0.02)  # standard deviation 0.29 / sqrt(8000) = 0.003
        assert np.std(corner / room) == pytest.approx(12**-0.5, abs=0.02)
    assert np.mean(scales) == pytest.approx(368, abs=4)


def test_a_scaled_window_is_the_crop_of_the_resized_image():
    """The window that is cut out before the resizing shows what the paper's crop after it shows."""
    image = picture(2, 400, 600)
    for scale, top, left in ((256, 25, 100), (320, 55, 205)):  # whole pixels at both scales
        side = 224 * 400 // scale
        draws = tf.constant([(scale - 255.5) / 225, (top + 0.5) / (401 - side), (left + 0.5) / (601 - side), 0.0])
        assert [int(one) for one in augmentation.scaled_window(400, 600, draws)] == [top, left, side, side]
        ours = tf.image.resize(image[top : top + side, left : left + side], [224, 224], antialias=True)
        whole = tf.image.resize(image, [scale, scale * 3 // 2], antialias=True)
        down, right = top * scale // 400, left * scale // 400
        theirs = whole[down : down + 224, right : right + 224]
        inside = slice(2, -2)  # the resizing looks beyond the window's edge where there is something
        np.testing.assert_allclose(ours[inside, inside], theirs[inside, inside], atol=1e-2)


def test_only_the_scaled_window_is_decoded():
    policy = augmentation.get("scale_crop_flip(256, 480)")
    contents = tf.io.encode_jpeg(picture(5, 300, 400), quality=95)
    draws = tf.constant([0.5, 0.3, 0.7, 0.9])
    part = transforms.decode(contents, window=lambda height, width: policy.window(height, width, draws))
    top, left, side, _ = (int(one) for one in policy.window(300, 400, draws))
    np.testing.assert_array_equal(part, transforms.decode(contents)[top : top + side, left : left + side])
    np.testing.assert_array_equal(policy.image(part, draws), part[:, ::-1])
    np.testing.assert_array_equal(policy.image(part, tf.constant([0.5, 0.3, 0.7, 0.4])), part)
    with pytest.raises(InputError, match="low=480 must not exceed high=256"):
        augmentation.get("scale_crop_flip(480, 256)")


def test_policies_by_name():
    assert augmentation.policies()[:4] == ["pad_crop_flip", "reflect_crop_flip", "shift", "random_resized_crop_flip"]
    assert augmentation.get(None).name == augmentation.get("none").name == "none"
    own = augmentation.Policy("own")
    assert augmentation.get(own) is own
    with pytest.raises(InputError, match="pad_crop_flip, reflect_crop_flip, shift, random_resized_crop_flip"):
        augmentation.get("cutout")
    with pytest.raises(InputError, match="already registered"):
        augmentation.register(augmentation.Policy("shift"))


def test_a_policy_of_ones_own(monkeypatch):
    monkeypatch.setattr(augmentation, "_POLICIES", dict(augmentation._POLICIES))
    mine = augmentation.register(augmentation.Policy("inverted", batch=lambda images, draws: 255 - images))
    assert augmentation.get("inverted") is mine
