"""TFLite metadata, as the task libraries of TFLite and MediaPipe read it.

The metadata is a flatbuffer named TFLITE_METADATA among the file's buffers. `LABELS_FILE` is in a zip archive after the end of the
file. TensorFlow ships the schema of models but not that of metadata (metadata_schema.fbs, identifier "M001"). So this module builds
its few tables by hand.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import flatbuffers

NAME = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"

_IDENTIFIER = b"M001"
_PARSER = "1.0.0"  # the first version has all fields used here
_NORMALIZATION = 1  # in the union ProcessUnitOptions
_FEATURE, _IMAGE = 1, 2  # in the union ContentProperties
_COLOURS = {3: 1, 1: 2}  # ColorSpaceType by channels: RGB, GRAYSCALE
_AXIS_LABELS = 2  # in AssociatedFileType: a name for each position along the class axis


def attach(content: bytes, card: dict[str, Any]) -> bytes:
    """Add metadata and labels to the file. It runs as before.

    Args:
        content: A TFLite file from the converter.
        card: Its JSON: name, labels, input with height, width and channels.
    """
    import flatbuffers
    import numpy as np
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(metadata(card), np.uint8)
    entry.name, entry.buffer = NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return _with_file(bytes(builder.Output()), LABELS_FILE, "".join(f"{label}\n" for label in card["labels"]))


def metadata(card: dict[str, Any]) -> bytes:
    """The ModelMetadata flatbuffer of an image classifier that takes RGB or grey with values 0–255 and scales them itself."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    inputs, outputs = _vector(builder, [_input(builder, card["input"])]), _vector(builder, [_output(builder)])
    subgraph = _table(builder, {2: inputs, 3: outputs})
    fields = {0: builder.CreateString(card["name"]), 3: _vector(builder, [subgraph])}
    fields |= {1: builder.CreateString("Image classifier."), 7: builder.CreateString(_PARSER)}
    builder.Finish(_table(builder, fields), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _input(builder: flatbuffers.Builder, view: dict[str, Any]) -> int:
    """TensorMetadata of the images."""
    size = _table(builder, {}, {0: view["width"], 1: view["height"]}, "Uint32")
    image = _table(builder, {1: size}, {0: _COLOURS[view["channels"]]})
    content = _table(builder, {1: image}, {0: _IMAGE})
    normalization = _table(builder, {0: _floats(builder, [0.0]), 1: _floats(builder, [1.0])})
    unit = _table(builder, {1: normalization}, {0: _NORMALIZATION})
    stats = _table(builder, {0: _floats(builder, [255.0]), 1: _floats(builder, [0.0])})
    said = f"{view['channel_order']} with values 0-255, which the network scales itself."
    fields = {0: builder.CreateString("images"), 1: builder.CreateString(said)}
    return _table(builder, fields | {3: content, 4: _vector(builder, [unit]), 5: stats})


def _output(builder: flatbuffers.Builder) -> int:
    """TensorMetadata of the probabilities."""
    content = _table(builder, {1: _table(builder, {})}, {0: _FEATURE})
    stats = _table(builder, {0: _floats(builder, [1.0]), 1: _floats(builder, [0.0])})
    said = builder.CreateString("Names of the classes in the order of the outputs.")
    file = _table(builder, {0: builder.CreateString(LABELS_FILE), 1: said}, {2: _AXIS_LABELS})
    fields = {0: builder.CreateString("probabilities"), 1: builder.CreateString("One per class; they sum to 1.")}
    return _table(builder, fields | {3: content, 5: stats, 6: _vector(builder, [file])})


def _table(
    builder: flatbuffers.Builder, offsets: dict[int, int], numbers: dict[int, int] | None = None, kind: str = "Uint8"
) -> int:
    """Build a table from fields by number: other tables, strings and vectors, and integers of one kind."""
    numbers = numbers or {}
    builder.StartObject(1 + max([*offsets, *numbers], default=-1))
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, number in numbers.items():
        getattr(builder, f"Prepend{kind}Slot")(field, number, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, tables: list[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return builder.EndVector()


def _floats(builder: flatbuffers.Builder, values: list[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return builder.EndVector()


def _with_file(content: bytes, name: str, text: str) -> bytes:
    """Append a zip archive of one file to the content. It is not compressed, because readers map it into memory."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name), text.encode())  # dated 1980, so that equal networks give equal files
    return buffer.getvalue()
