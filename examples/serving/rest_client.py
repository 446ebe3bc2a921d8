"""Classify image files over REST with a model that TF Serving serves. Needs only Python's standard library.

    python rest_client.py --model digits one.png two.jpg
    python rest_client.py --model digits --label canary --url http://serving.example:8501 one.png

Prints one line per file: path, label and probability. In a program: `RestClient(url, model).predict_files([bytes, ...])`.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import math
import random
import sys
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class ServerError(Exception):
    """An error response of the server, or no response before the deadline.

    Attributes:
        status: HTTP status, or 0 without a response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RestClient:
    """One connection to one model. Not thread-safe: give each thread its own client.

    Args:
        url: URL of the server, like ``http://localhost:8501``.
        model: the model's name in the server's configuration.
        version: a version number. By default, the largest that the server serves.
        label: a version label like ``"stable"``, instead of `version`.
        deadline: time limit of one call in seconds, including retries and the pauses between them.
        retries: number of retries if the connection fails or the server answers 503 (its queue is full). Predictions have no side
            effects, so a repeated request is safe.
    """

    def __init__(
        self,
        url: str,
        model: str,
        version: int | None = None,
        label: str | None = None,
        deadline: float = 10.0,
        retries: int = 5,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://host:port or https://host:port.")
        if version is not None and label is not None:
            raise ValueError("give a version or a label, not both.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=deadline)
        which = "" if version is None else f"/versions/{version}"
        which = which if label is None else f"/labels/{urllib.parse.quote(label, safe='')}"
        self._path = f"{parts.path.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}{which}"
        self._deadline, self._retries = deadline, retries

    def predict_files(self, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """Classify JPEG or PNG files, given as bytes.

        Returns:
            For each file a dict with ``"label"``, ``"class"`` (the index) and ``"probabilities"`` (a list, one per class). If the
            model was exported with ``on_error="skip"``, a file that is not an image has the label "", the class -1 and NaN.

        Raises:
            ServerError: a file is not an image, the model is unknown, or the deadline has passed.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(file).decode("ascii")}} for file in files]
        return self._predict({"instances": instances})

    def predict_pixels(self, images: Any) -> list[dict[str, Any]]:
        """Classify pixels ``[n, height, width, 3]``, integers 0–255, as nested lists or an array with ``tolist()``."""
        values = images.tolist() if hasattr(images, "tolist") else images
        return self._predict({"signature_name": "serving_images", "instances": values})

    def rows(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Send a request of rows, and return the rows of the response: all outputs of the model by name."""
        return self._answer("POST", f"{self._path}:predict", json.dumps(request))["predictions"]

    def status(self) -> dict[int, str]:
        """Return each version that the server knows with its state: ``{3: "AVAILABLE"}``."""
        found = self._answer("GET", self._path)["model_version_status"]
        return {int(version["version"]): version["state"] for version in found}

    def close(self) -> None:
        """Close the connection. The next call opens a new one."""
        self._connection.close()

    def _predict(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"label": row["labels"], "class": row["classes"], "probabilities": row["probabilities"]}
            for row in self.rows(request)
        ]

    def _answer(self, method: str, path: str, body: str | None = None) -> Any:
        """Send a request, with retries, until a response arrives or the deadline has passed."""
        end = time.monotonic() + self._deadline
        for attempt in range(self._retries + 1):
            try:
                return self._once(method, path, body, end)
            except ServerError as error:
                if error.status not in (0, 503):
                    raise
                # Random, growing pauses, so that clients that failed together do not retry together.
                pause = random.uniform(0.5, 1) * min(0.1 * 2**attempt, 2)
                if attempt == self._retries or time.monotonic() + pause >= end:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _once(self, method: str, path: str, body: str | None, end: float) -> Any:
        connection = self._connection
        try:
            connection.timeout = max(end - time.monotonic(), 0.001)
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            status, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # or the rest of this response would be read as the next one
            host = f"{connection.host}:{connection.port}"
            raise ServerError(0, f"no answer from {host} ({str(error) or type(error).__name__})") from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"error": content.decode("utf-8", "replace").strip() or "an empty answer"}
            status = 502 if status == 200 else status
        if status != 200:
            message = answer.get("error") if isinstance(answer, dict) else None
            raise ServerError(status, f"{status}: {message or 'no reason given'}")
        return answer


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="JPEG or PNG files")
    parser.add_argument("--model", required=True, help="name of the model in models.config")
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--version", type=int, help="version number; by default the largest that the server serves")
    parser.add_argument("--label", help="version label, instead of --version")
    parser.add_argument("--deadline", type=float, default=10.0, help="time limit in seconds, including retries")
    args = parser.parse_args()
    try:
        client = RestClient(args.url, args.model, args.version, args.label, args.deadline)
        rows = client.predict_files([path.read_bytes() for path in args.images])
    except (ServerError, OSError, ValueError) as error:
        print(f"rest_client: {error}", file=sys.stderr)
        return 1
    for path, row in zip(args.images, rows, strict=True):
        # With on_error="skip", a file that is not an image has NaN probabilities.
        skipped = math.isnan(row["probabilities"][0])
        print(f"{path}\tskipped" if skipped else f"{path}\t{row['label']}\t{max(row['probabilities']):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
