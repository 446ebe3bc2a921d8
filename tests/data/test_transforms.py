import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deepnets.data import transforms
from keras_deepnets.data.channels import normalised
from keras_deepnets.errors import InputError
from tests.data.conftest import picture

PIL_METHODS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


def encoded(image, format, mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, format, **options)
    return file.getvalue()


def pil_view(image, height, width, crop_fraction, method):
    """Resize and CenterCrop as torchvision does them, with PIL."""
    old_height, old_width = image.shape[:2]
    goal_height, goal_width = round(height / crop_fraction), round(width / crop_fraction)
    if goal_height * old_width >= goal_width * old_height:
        size = (goal_height, goal_height * old_width // old_height)
    else:
        size = (goal_width * old_height // old_width, goal_width)
    resized = np.asarray(Image.fromarray(image).resize(size[::-1], method))
    top, left = round((size[0] - height) / 2), round((size[1] - width) / 2)
    return resized[top : top + height, left : left + width]


@pytest.mark.parametrize("method", PIL_METHODS)
@pytest.mark.parametrize(
    ("old", "new", "crop_fraction"),
    [
        ((47, 61), (32, 32), 0.875),
        ((61, 47), (20, 20), 0.5),
        ((30, 90), (24, 24), 1.0),
        ((8, 8), (32, 32), 1.0),
        ((47, 61), (24, 40), 0.9),
    ],
)
def test_evaluation_view_is_pil_resize_and_centre_crop(method, old, new, crop_fraction):
    image = picture(1, *old)
    view = transforms.evaluation_view(image, *new, 3, crop_fraction, method)
    expected = pil_view(image, *new, crop_fraction, PIL_METHODS[method])
    assert view.dtype == tf.uint8
    # PIL rounds between its two passes.
    assert np.abs(view.numpy().astype(int) - expected).max() <= (0 if method == "nearest" else 1)


@pytest.mark.parametrize("method", ["nearest", "area"])
@pytest.mark.parametrize(
    ("old", "new", "crop_fraction"),
    [
        ((47, 61), (32, 32), 0.875),
        ((8, 9), (32, 32), 1.0),
        ((31, 57), (32, 64), 0.8),
        ((1, 70), (24, 24), 0.9),
        ((90, 2), (16, 20), 1.0),
        ((33, 32), (32, 32), 1.0),
    ],
)
def test_evaluation_view_looks_up_the_part_that_the_whole_resized_image_would_have(method, old, new, crop_fraction):
    images = picture(1, *old).astype("float32")[None]
    size = [int(side) for side in transforms.resized_size(*old, *new, crop_fraction)]
    top, left = (round((whole - side) / 2) for whole, side in zip(size, new, strict=True))
    whole = tf.image.resize(images, size, method=method)
    expected = whole[:, top : top + new[0], left : left + new[1]]
    view = transforms.evaluation_view(images, *new, 3, crop_fraction, method)
    np.testing.assert_allclose(view, expected, atol=0 if method == "nearest" else 1e-2)


@pytest.mark.parametrize("method", transforms.INTERPOLATIONS)
def test_evaluation_view_of_a_thin_image_is_made_of_its_middle(method):
    """Resized as a whole, it would be 14.7 million pixels high."""
    image = np.zeros((65_535, 1, 3), "uint8")
    image[32_767] = 250  # the middle one: all that is seen
    view = transforms.evaluation_view(image, 224, 224, 3, 1.0, method).numpy()
    assert view[110:114].min() > 190 and np.ptp(view, axis=1).max() <= 1


def test_evaluation_view_of_a_batch_is_that_of_its_images():
    images = np.stack([picture(seed, 40, 50) for seed in range(3)])
    batch = transforms.evaluation_view(images, 24, 24, 3, 0.875)
    single = [transforms.evaluation_view(image, 24, 24, 3, 0.875) for image in images]
    np.testing.assert_array_equal(batch, np.stack(single))


def test_evaluation_view_leaves_images_of_the_right_size_alone():
    image = picture(2, 32, 32)
    np.testing.assert_array_equal(transforms.evaluation_view(image, 32, 32, 3, 0.875), image)


@pytest.mark.parametrize("shape", [[None, None, None], [None, None, None, None]])
@pytest.mark.parametrize(("present", "wanted"), [(1, 1), (1, 3), (3, 1), (3, 3), (4, 3), (2, 1)])
def test_evaluation_view_in_a_graph_that_knows_no_shape(shape, present, wanted):
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
    def view(images):
        return transforms.evaluation_view(images, 16, 16, wanted, 0.875)

    for size in ((40, 30), (16, 16)):
        image = np.concatenate([picture(3, *size), picture(4, *size)], axis=-1)[..., :present]
        image = image if len(shape) == 3 else image[None]
        result = view(image)
        assert result.shape == (*image.shape[:-3], 16, 16, wanted)
        np.testing.assert_array_equal(result, transforms.evaluation_view(image, 16, 16, wanted, 0.875))


@pytest.mark.parametrize("method", sorted(transforms._KERNELS))
@pytest.mark.parametrize("size", [(7, 5), (40, 61), (1, 30)])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_resampling_is_the_op_of_both_axes_bit_for_bit(method, size, channels):
    images = tf.constant(np.stack([picture(seed, 33, 20) for seed in (1, 2)])[..., : channels or 3])
    (height, width), scales, offsets = size, [1.3, 0.7], [-2.5, -1.0]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, channels], tf.uint8)])
    def resampled(images):
        return transforms.resampled(images, (height, width), scales, offsets, method)

    whole = tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=[height, width],
        scale=scales,
        translation=offsets,
        kernel_type=transforms._KERNELS[method],
        antialias=True,
    )
    np.testing.assert_array_equal(resampled(images), tf.saturate_cast(tf.round(whole), tf.uint8))


def test_grey_is_repeated_and_colour_is_weighted():
    image = picture(5)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert np.abs(transforms.convert_channels(image, 1).numpy()[..., 0].astype(int) - grey).max() <= 1
    np.testing.assert_array_equal(transforms.convert_channels(grey[..., None], 3), np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 8, 3, 1.0, "bilinear"), "positive"),
        ((8, 8, 2, 1.0, "bilinear"), "channels=2"),
        ((8, 8, 3, 0.0, "bilinear"), "crop_fraction"),
        ((8, 8, 3, 1.0, "cubic"), "bicubic"),
    ],
)
def test_evaluation_view_names_what_is_wrong(arguments, message):
    with pytest.raises(InputError, match=message):
        transforms.evaluation_view(picture(1), *arguments)


def test_evaluation_view_wants_images():
    with pytest.raises(InputError, match="batch, h, w, c"):
        transforms.evaluation_view(np.zeros((4, 4), np.uint8), 2, 2, 1)


@pytest.mark.parametrize(
    ("format", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "LA", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("BMP", "RGB", {}),
        ("BMP", "RGBA", {}),
        ("BMP", "L", {}),
        ("BMP", "P", {}),
        ("GIF", "P", {}),
        ("GIF", "RGB", {"save_all": True, "append_images": [Image.fromarray(picture(9))]}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_decoding_agrees_with_pil(format, mode, options, channels):
    contents = encoded(picture(6), format, mode, **options)
    image = transforms.decode(contents, channels).numpy()
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB" if channels == 3 else "L"))
    assert image.shape == (20, 24, channels)
    assert np.abs(image.astype(int) - expected.reshape(image.shape)).max() <= (0 if channels == 3 else 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_decoding_a_window_is_cutting_it_out(format):
    contents = encoded(picture(7, 64, 80), format, **({"subsampling": 0} if format == "JPEG" else {}))
    whole = transforms.decode(contents).numpy()
    part = transforms.decode(contents, 3, lambda height, width: (height // 4, width // 5, 24, 30)).numpy()
    np.testing.assert_array_equal(part, whole[16:40, 16:46])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF"])
@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_truncated_file_is_an_error(format, keep):
    contents = encoded(picture(8, 60, 80), format)
    length = int(keep * len(contents)) if isinstance(keep, float) else keep
    with pytest.raises(tf.errors.InvalidArgumentError):
        transforms.decode(contents[:length])


def test_decoding_inside_a_graph():
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode_all(contents):
        return tf.map_fn(
            lambda one: transforms.evaluation_view(transforms.decode(one), 16, 16, 3),
            contents,
            fn_output_signature=tf.uint8,
        )

    files = [encoded(picture(seed, 20 + seed, 30), format) for seed, format in enumerate(("JPEG", "PNG", "BMP", "GIF"))]
    expected = [transforms.evaluation_view(transforms.decode(file), 16, 16, 3) for file in files]
    np.testing.assert_array_equal(decode_all(tf.constant(files)), np.stack(expected))


@pytest.mark.parametrize("shape", [[None, 5, 7, 3], [None, None, None, 3], [2, 5, 7, 1], [1, 2, 5, 7, 3]])
def test_normalising_is_a_subtraction_and_a_division(shape):
    mean, std = ([120.5, 110.25, 99.0], [61.0, 62.5, 63.75]) if shape[-1] == 3 else ([33.3], [77.7])
    images = np.stack([picture(seed, 5, 7) for seed in (1, 2)])[..., : shape[-1]]
    images = images.reshape([2, 5, 7, shape[-1]] if len(shape) == 4 else shape)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
    def scaled(images):
        found = normalised(images, mean, std)
        assert found.shape.as_list() == shape
        return found

    expected = (images.astype("float32") - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(scaled(images), expected, rtol=3e-7)
