"""Classify image files over gRPC with a model that TF Serving serves. Needs `pip install tensorflow-serving-api`.

    python grpc_client.py --model digits one.png two.jpg
    python grpc_client.py --model digits --label canary --server serving.example:8500 one.png

Prints one line per file: path, label and probability. In a program: `GrpcClient(server, model).predict_files([bytes, ...])`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

# gRPC itself retries requests that the server refused because its queue is full, and requests that never reached it. The deadline
# covers all attempts.
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": "tensorflow.serving.PredictionService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_ANY_SIZE = -1  # no limit: a batch of 224 × 224 images exceeds the default of 4 MiB


class GrpcClient:
    """One channel to one model. Threads may share it.

    Args:
        server: ``host:port``.
        model: the model's name in the server's configuration.
        version: a version number. By default, the largest that the server serves.
        label: a version label like ``"stable"``, instead of `version`.
        deadline: time limit of one call in seconds, including retries.
    """

    def __init__(
        self, server: str, model: str, version: int | None = None, label: str | None = None, deadline: float = 10.0
    ) -> None:
        if version is not None and label is not None:
            raise ValueError("give a version or a label, not both.")
        options = [
            ("grpc.service_config", json.dumps(_RETRIES)),
            ("grpc.max_send_message_length", _ANY_SIZE),
            ("grpc.max_receive_message_length", _ANY_SIZE),
        ]
        self._channel = grpc.insecure_channel(server, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model, self._version, self._label, self._deadline = model, version, label, deadline

    def predict_files(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Classify JPEG or PNG files, given as bytes.

        Returns:
            For each file a dict with ``"label"``, ``"class"`` (the index) and ``"probabilities"`` (float32, one per class). If the
            model was exported with ``on_error="skip"``, a file that is not an image has the label "", the class -1 and NaN.

        Raises:
            grpc.RpcError: a file is not an image, the model is unknown, or the deadline has passed. Its ``code()`` says which.
        """
        return self._predict("serving_default", "image_bytes", tf.make_tensor_proto(files, tf.string))

    def predict_pixels(self, images: np.ndarray) -> list[dict[str, Any]]:
        """Classify pixels, uint8 ``[n, height, width, 3]``."""
        return self._predict("serving_images", "images", tf.make_tensor_proto(images, tf.uint8))

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _predict(self, signature: str, name: str, tensor: Any) -> list[dict[str, Any]]:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = self._model, signature
        if self._version is not None:
            request.model_spec.version.value = self._version
        if self._label is not None:
            request.model_spec.version_label = self._label
        request.inputs[name].CopyFrom(tensor)
        outputs = self._stub.Predict(request, timeout=self._deadline).outputs
        values = [tf.make_ndarray(outputs[name]) for name in ("labels", "classes", "probabilities")]
        return [
            {"label": label.decode(), "class": int(number), "probabilities": row}
            for label, number, row in zip(*values, strict=True)
        ]


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="JPEG or PNG files")
    parser.add_argument("--model", required=True, help="name of the model in models.config")
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--version", type=int, help="version number; by default the largest that the server serves")
    parser.add_argument("--label", help="version label, instead of --version")
    parser.add_argument("--deadline", type=float, default=10.0, help="time limit in seconds, including retries")
    args = parser.parse_args()
    try:
        client = GrpcClient(args.server, args.model, args.version, args.label, args.deadline)
        rows = client.predict_files([path.read_bytes() for path in args.images])
    except grpc.RpcError as error:
        print(f"grpc_client: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"grpc_client: {error}", file=sys.stderr)
        return 1
    for path, row in zip(args.images, rows, strict=True):
        # With on_error="skip", a file that is not an image has NaN probabilities.
        skipped = math.isnan(row["probabilities"][0])
        print(f"{path}\tskipped" if skipped else f"{path}\t{row['label']}\t{max(row['probabilities']):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
