"""Image files with EXIF orientations, written byte by byte, and what Pillow makes of them."""

import io
import struct

import numpy as np
from PIL import Image, ImageOps

LITTLE, BIG = "<", ">"


def block(orientation, order=LITTLE, *, before=2, kind=3, count=1, next_directory=b"\0\0\0\0"):
    """An EXIF block from its TIFF header on, with some entries before the orientation's."""
    value = struct.pack(order + "HH", orientation, 0) if kind == 3 else struct.pack(order + "I", orientation)
    entries = [struct.pack(order + "HHI4s", 0x0100 + number, 3, 1, bytes(4)) for number in range(before)]
    entries.append(struct.pack(order + "HHI4s", 0x0112, kind, count, value))
    magic = b"II*\0" if order == LITTLE else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + next_directory


def segment(marker, contents):
    """A segment of a JPEG."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(contents) + 2) + contents


def with_exif(jpeg, tiff, before=b""):
    """The JPEG with an EXIF segment after its beginning and ``before``."""
    return jpeg[:2] + before + segment(0xE1, b"Exif\0\0" + tiff) + jpeg[2:]


def saved(image, form, orientation=None, **options):
    """An array as a file that Pillow writes."""
    file = io.BytesIO()
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(image).save(file, form, **options)
    return file.getvalue()


def pillow(encoded):
    """The pixels that Pillow reads, turned upright."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
