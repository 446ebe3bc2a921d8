"""Why a run ends before its time."""

from __future__ import annotations

import errno

from keras_deepnets.errors import InputError


class TrainingError(InputError):
    """A run cannot go on; the one-line message says why and what is kept. The command line exits with status 2."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether `error`, or what it came from, is the lack of space (or quota) on a device.

    HDF5 and TensorFlow hand the system's error on only as text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        text = str(error)
        if any(
            phrase in text
            for phrase in ("No space left on device", "errno = 28", "Disk quota exceeded", "File too large")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
