"""Warm-up requests for TF Serving: it runs them before a new version takes traffic, so that no user waits for lazy set-up.

The file is a TFRecord of ``PredictionLog`` messages. They are small enough to be encoded here, which spares the
tensorflow-serving-api package at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Field numbers of tensorflow_serving/apis: prediction_log.proto, predict.proto, model.proto.
_LOG_PREDICT, _PREDICT_REQUEST = 6, 1
_REQUEST_SPEC, _REQUEST_INPUTS = 1, 2
_SPEC_NAME, _SPEC_SIGNATURE = 1, 3
_MAP_KEY, _MAP_VALUE = 1, 2


def write_warmup(folder: Path, requests: Sequence[tuple[str, str, np.ndarray]], model_name: str = "default") -> Path:
    """Writes ``assets.extra/tf_serving_warmup_requests`` into a SavedModel folder.

    Args:
        folder: the SavedModel, one version of it.
        requests: (signature, input name, value) for each request.
        model_name: recorded in the requests; the server fills in its own.
    """
    import tensorflow as tf

    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, name, value in requests:
            writer.write(_prediction_log(model_name, signature, name, tf.make_tensor_proto(value).SerializeToString()))
    return path


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
