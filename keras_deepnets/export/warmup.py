"""Warm-up requests for TF Serving. It runs them before a new version takes traffic, so that no user waits for lazy set-up.

The file is a TFRecord of ``PredictionLog`` messages. The messages are small enough to be encoded here, which avoids a dependency on
tensorflow-serving-api at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError

BATCH_SIZES = (1, 8, 32)  # warm-up sizes, and the server's batch sizes

# Field numbers of tensorflow_serving/apis: prediction_log.proto, predict.proto, model.proto.
_LOG_PREDICT, _PREDICT_REQUEST = 6, 1
_REQUEST_SPEC, _REQUEST_INPUTS = 1, 2
_SPEC_NAME, _SPEC_SIGNATURE = 1, 3
_MAP_KEY, _MAP_VALUE = 1, 2


def write_warmup(
    folder: Path, height: int, width: int, batch_sizes: Sequence[int], model_name: str = "default"
) -> Path:
    """Write ``assets.extra/tf_serving_warmup_requests`` into a SavedModel folder: one request per batch size and signature.

    Args:
        folder: The folder of one version of the SavedModel.
        height: Rows of the grey images to send, pixels.
        width: Columns, pixels.
        batch_sizes: Images per request, as `checked_batch_sizes` returns them.
        model_name: Name recorded in the requests. The server replaces it with its own.
    """
    import tensorflow as tf

    encoded = tf.io.encode_jpeg(tf.fill([height, width, 3], tf.constant(128, tf.uint8))).numpy()
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for size in batch_sizes:
            # One value for all elements: a tensor of any size takes a few bytes in the file.
            files = tf.make_tensor_proto(encoded, tf.string, [size])
            pixels = tf.make_tensor_proto(128, tf.uint8, [size, height, width, 3])
            writer.write(_prediction_log(model_name, "serving_default", "image_bytes", files.SerializeToString()))
            writer.write(_prediction_log(model_name, "serving_images", "images", pixels.SerializeToString()))
    return path


def checked_batch_sizes(batch_sizes: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes as a tuple; raise InputError unless they are whole numbers from 1 in strictly rising order."""
    sizes = tuple(batch_sizes) if isinstance(batch_sizes, Iterable) and not isinstance(batch_sizes, str) else ()
    if not sizes or not all(_is_count(size) for size in sizes) or list(sizes) != sorted(set(sizes)):
        raise InputError(
            f"batch_sizes={batch_sizes!r} are not whole numbers from 1 in rising order; give for example {BATCH_SIZES}."
        )
    return sizes


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _prediction_log(model_name: str, signature: str, input_name: str, tensor: bytes) -> bytes:
    spec = _field(_SPEC_NAME, model_name.encode()) + _field(_SPEC_SIGNATURE, signature.encode())
    entry = _field(_MAP_KEY, input_name.encode()) + _field(_MAP_VALUE, tensor)
    request = _field(_REQUEST_SPEC, spec) + _field(_REQUEST_INPUTS, entry)
    return _field(_LOG_PREDICT, _field(_PREDICT_REQUEST, request))


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protocol buffer field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
