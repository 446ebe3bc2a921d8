"""Load TensorFlow without its log messages, which do not concern users of a command."""

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
    "MPLBACKEND": "Agg",  # pictures go to files, so no display is needed
    # TensorFlow leaves oneDNN off on processors without AVX-512 VNNI, where it is faster too (docs/benchmarks.md). Without oneDNN in
    # the build, as on ARM, this has no effect.
    "TF_ENABLE_ONEDNN_OPTS": "1",
}


def load_tensorflow() -> None:
    """Import TensorFlow and Keras without output, unless that fails. Cheap if they are already loaded."""
    if os.environ.get(DEBUG):
        _prepare()
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    logging.getLogger("absl").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # hide warnings that other libraries address to developers
    with native_output_held_back():
        # TensorFlow always logs until it has first looked for devices.
        _prepare()


def _prepare() -> None:
    from keras_deepnets.training import precision

    precision.prepare_gpus()


@contextlib.contextmanager
def native_output_held_back() -> Iterator[None]:
    """Hold back writes to file descriptor 2 in the block. Show them if the block fails with an unexpected error.

    `logging` levels and ``TF_CPP_MIN_LOG_LEVEL`` do not affect lines logged before the native logger is set up. They do not
    affect other native libraries either, such as libjpeg on a broken file.
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
            raise  # its message is complete
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
