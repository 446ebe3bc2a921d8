"""Single-file artifacts, and the JSON next to each that says how to feed it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import decoding, exporters, writing

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

Card = dict[str, Any]

_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"BM",
    b"GIF8",
)  # first bytes of the formats that exported graphs decode, without WebP


def check(path: str | os.PathLike[str], ending: str) -> Path:
    """Check that the path can be written to; raise InputError if it has another suffix or is a folder."""
    path = Path(path)
    if path.suffix != ending:
        raise InputError(f"path {str(path)!r} does not end in {ending}; change the file name.")
    if path.is_dir():
        raise InputError(f"path {str(path)!r} is a folder; name a file.")
    return path


def write(path: Path, content: bytes, card: Card, further: Mapping[str, bytes] | None = None) -> None:
    """Write an artifact and its JSON, with the hash of the file added to the JSON. Either both are replaced or neither.

    Two files cannot be renamed at once. So the JSON first describes both the new file and the one to replace, and the file is replaced
    after that. `read` finds a matching pair at any moment, even if the writer is killed in between.

    Args:
        path: The file.
        content: Its content.
        card: The values of its JSON.
        further: Contents of further files by suffix, which replaces that of `path`. They are replaced just before the file.
    """
    beside, card = card_path(path), card | {"sha256": sha256(content)}
    with writing.folder_aside(path.parent) as aside, writing.write_errors(path):
        replaced = _replaced_by(path)
        (aside / path.name).write_bytes(content)
        others = {path.with_suffix(suffix): content for suffix, content in (further or {}).items()}
        for other, data in others.items():
            (aside / other.name).write_bytes(data)
        writing.write_json(aside / "both.json", card | replaced)
        writing.write_json(aside / beside.name, card)
        (aside / "both.json").replace(beside)
        for other in others:
            (aside / other.name).replace(other)
        (aside / path.name).replace(path)
        if replaced:
            (aside / beside.name).replace(beside)


def read(path: Path, writer: str, task: str = "classification") -> tuple[bytes, Card]:
    """Read an artifact's content and its JSON, once their hashes agree.

    Raises:
        InputError: A file cannot be read, or ``export.<writer>`` did not write it, or it is for another task.
    """
    try:
        # A writer may have replaced both files between the two reads. A second read then finds a matching pair.
        found = _pair(path) or _pair(path)
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); export.{writer} writes it next to the model; keep them together."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_ours(path, writer, f"{type(error).__name__}: {error}") from error
    if found is None or not {"input", "labels"} <= found[1].keys():
        raise not_ours(path, writer, "the file is damaged, or belongs to another JSON")
    if (own := found[1].get("task", "classification")) != task:
        raise exporters.finds_objects(path) if own == "detection" else InputError(f"{path} is for {own}, not {task}.")
    return found


def not_ours(path: Path, writer: str, why: str) -> InputError:
    """The error for a damaged file or JSON, or one written by other software."""
    return InputError(
        f"{path} or its JSON is not what export.{writer} writes: {(why.splitlines() or ['it is empty'])[0]}; export it again."
    )


def card_path(path: Path) -> Path:
    """The path of the JSON for a single-file artifact."""
    return path.with_name(path.name + ".json")


def data_files(path: Path) -> list[Path]:
    """The file itself, and the ``.bin`` of an OpenVINO file."""
    weights = path.with_suffix(".bin")
    return [path, weights] if path.suffix == ".xml" and weights.is_file() else [path]


def sha256(content: bytes) -> str:
    """The hash that links a file and its JSON. It is needed because TensorFlow's interpreter crashes on a truncated file."""
    return hashlib.sha256(content).hexdigest()


@functools.cache
def _decoder() -> Callable[[Any], tf.Tensor]:
    """`decode` as a graph, created once."""
    import tensorflow as tf

    from keras_deepnets.data import transforms

    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(
        lambda encoded: transforms.decode(decoding.checked(encoded)), input_signature=signature, autograph=False
    )


def decode(encoded: bytes) -> tf.Tensor:
    """Decode an image file to uint8 ``[h, w, 3]``, as an exported graph does; tf.errors.InvalidArgumentError if that fails."""
    return _decoder()(encoded)


def known(encoded: bytes) -> bytes:
    """The file unchanged, or as PNG if only the data pipeline can decode its format.

    Raises:
        ValueError: The format needs conversion or is unknown, and the file cannot be decoded.
    """
    import tensorflow as tf

    from keras_deepnets.data import foreign

    moving = encoded[12:16] == b"VP8X" and len(encoded) > 20 and encoded[20] & 2
    if encoded.startswith(_STARTS) or (encoded.startswith(b"RIFF") and not moving):
        return encoded
    try:
        return tf.io.encode_png(foreign.decode(encoded)).numpy()
    except tf.errors.OpError as error:
        raise ValueError(str(error).splitlines()[0]) from error


def views(images: list[bytes] | np.ndarray, card: Card) -> np.ndarray:
    """The network's views of image files or pixels ``[n, h, w, c]``, uint8 ``[n, height, width, channels]``.

    Images are processed one by one, because a file may hold as many pixels as thousands of views.
    """
    import numpy as np

    from keras_deepnets.data import transforms

    view = card["input"]
    size = (view["height"], view["width"], view["channels"], view["crop_fraction"], view["interpolation"])

    def seen(image: Any) -> np.ndarray:
        return np.asarray(transforms.evaluation_view(decode(image) if isinstance(image, bytes) else image, *size))

    return np.stack([seen(image) for image in images])


def _pair(path: Path) -> tuple[bytes, Card] | None:
    """The file and the matching part of its JSON, or None if no part matches."""
    card = json.loads(card_path(path).read_text(encoding="utf-8"))
    content = path.read_bytes()
    found = sha256(content)
    for each in (card, card.get("replaces", card)):
        if each["sha256"] == found:
            return content, {key: each[key] for key in each if key != "replaces"}
    return None


def _replaced_by(path: Path) -> Card:
    """The part of a new JSON that describes the existing file; empty if that file is not an artifact."""
    try:
        pair = _pair(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {} if pair is None else {"replaces": pair[1]}
