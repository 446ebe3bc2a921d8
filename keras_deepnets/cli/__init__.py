"""The command line: a thin layer over the library.

Importing this package imports neither TensorFlow nor Keras; the commands that need them load them, quietly.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: its words, without the program's name; those of the process by default.

    Returns:
        The exit status: 0; 1 where a check failed; 2 for bad input, said in one line on stderr; 130 when interrupted.
    """
    from keras_deepnets.cli import app, problems

    return problems.status_of(lambda: app.run(argv))
