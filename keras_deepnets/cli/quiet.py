"""TensorFlow without its log: what its native code writes to stderr by the way is not for the user of a command."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from keras_deepnets.cli.problems import DEBUG
from keras_deepnets.errors import InputError

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "NONE",
    "MPLBACKEND": "Agg",  # pictures go to files; a display is neither needed nor opened
}


def load_tensorflow() -> None:
    """Imports TensorFlow and Keras, saying nothing unless that fails. Cheap when they are there already."""
    if os.environ.get(DEBUG):
        _prepare()
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of the libraries below us, to their callers
    with native_output_held_back():
        # The first look for devices is the last thing that TensorFlow always talks about.
        _prepare()


def _prepare() -> None:
    from keras_deepnets.training import precision

    precision.prepare_gpus()


@contextlib.contextmanager
def native_output_held_back() -> Iterator[None]:
    """Holds back what is written to file descriptor 2 in the block; shows it if the block fails for an unknown reason.

    `logging` levels and ``TF_CPP_MIN_LOG_LEVEL`` do not reach lines that are logged before the native logger is set up, nor those
    of other native libraries, such as libjpeg's on a broken file.
    """
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as held:
        _flush()
        os.dup2(held.fileno(), 2)
        try:
            yield
        except InputError:
            raise  # which says all there is to say
        except Exception:
            _restore(kept)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            _restore(kept)
            os.close(kept)


def _restore(kept: int) -> None:
    _flush()
    os.dup2(kept, 2)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
