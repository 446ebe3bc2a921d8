"""Classifies image files with a model that TF Serving serves, over REST. Needs nothing but Python.

    python rest_client.py --model digits one.png two.jpg
    python rest_client.py --model digits --label canary --url http://serving.example:8501 one.png

For your own program: `RestClient(url, model).predict_files([bytes, ...])`.
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
    """The server's answer is an error, or there was none before the deadline.

    Attributes:
        status: the HTTP status; 0 where no answer came.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RestClient:
    """One connection to one model. Not for several threads at once: give each its own.

    Args:
        url: the server, like ``http://localhost:8501``.
        model: the model's name in the server's configuration.
        version: a version number; by default the largest that is served.
        label: a version label like ``"stable"``, in place of `version`.
        deadline: seconds that one call may take, retries and the pauses between them included.
        retries: how often a request is sent again when the connection fails or the server answers 503 (its queue is
            full). Predictions change nothing, so that sending one twice does no harm.
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
        """Classifies JPEG or PNG files, given as their bytes.

        Returns:
            For each file ``"label"``, ``"class"`` (its number) and ``"probabilities"`` (a list, one a class). Of an export with
            ``on_error="skip"``, a file that is no image has the label "", the class -1 and NaN.

        Raises:
            ServerError: a file is no image, the model is unknown, or the deadline has passed.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(file).decode("ascii")}} for file in files]
        return self._predict({"instances": instances})

    def predict_pixels(self, images: Any) -> list[dict[str, Any]]:
        """Classifies pixels ``[n, height, width, 3]``, whole numbers 0–255: nested lists, or an array with ``tolist()``."""
        values = images.tolist() if hasattr(images, "tolist") else images
        return self._predict({"signature_name": "serving_images", "instances": values})

    def status(self) -> dict[int, str]:
        """The versions that the server knows, and the state of each: ``{3: "AVAILABLE"}``."""
        found = self._answer("GET", self._path)["model_version_status"]
        return {int(version["version"]): version["state"] for version in found}

    def close(self) -> None:
        """Closes the connection; the next call would open a new one."""
        self._connection.close()

    def _predict(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        rows = self._answer("POST", f"{self._path}:predict", json.dumps(request))["predictions"]
        return [
            {"label": row["labels"], "class": row["classes"], "probabilities": row["probabilities"]} for row in rows
        ]

    def _answer(self, method: str, path: str, body: str | None = None) -> Any:
        """Sends a request until it is answered, the retries are used up or the deadline has passed."""
        end = time.monotonic() + self._deadline
        for attempt in range(self._retries + 1):
            try:
                return self._once(method, path, body, end)
            except ServerError as error:
                if error.status not in (0, 503):
                    raise
                # A random pause of growing length: clients that failed together do not come back together.
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
            connection.close()  # what is left of the exchange must not be read as the next answer
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
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="JPEG or PNG files")
    parser.add_argument("--model", required=True, help="its name in models.config")
    parser.add_argument("--url", default="http://localhost:8501")
    parser.add_argument("--version", type=int, help="by default the largest that is served")
    parser.add_argument("--label", help="a version label, in place of --version")
    parser.add_argument("--deadline", type=float, default=10.0, help="seconds, retries included")
    args = parser.parse_args()
    try:
        client = RestClient(args.url, args.model, args.version, args.label, args.deadline)
        rows = client.predict_files([path.read_bytes() for path in args.images])
    except (ServerError, OSError, ValueError) as error:
        print(f"rest_client: {error}", file=sys.stderr)
        return 1
    for path, row in zip(args.images, rows, strict=True):
        # Of an export with on_error="skip": a file that is no image has no probabilities.
        skipped = math.isnan(row["probabilities"][0])
        print(f"{path}\tskipped" if skipped else f"{path}\t{row['label']}\t{max(row['probabilities']):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
