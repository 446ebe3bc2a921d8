"""Errors that end a run early."""

from __future__ import annotations

import errno

from keras_deepnets.errors import InputError


class TrainingError(InputError):
    """A run cannot continue.

    The one-line message says why and which checkpoint is left. The command line exits with status 2.
    """


class DivergedError(TrainingError):
    """The loss or a weight became NaN or infinite.

    Attributes:
        what: What became infinite, and in which epoch and step.
    """

    def __init__(self, what: str, advice: str = ""):
        super().__init__(f"{what}; try a lower learning rate, a warm-up, or float32.{' ' * bool(advice)}{advice}")
        self.what = what


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether `error`, or an error that caused it, means a full disk or an exceeded quota.

    HDF5 and TensorFlow pass the system's error on only as text.
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
