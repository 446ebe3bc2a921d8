"""The command line: a thin layer over the library.

Importing this package imports neither TensorFlow nor Keras. Commands that need them load them without log output.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The words of the command, without the program's name. By default those of the process.

    Returns:
        The exit status: 0 on success, 1 if a check failed, 2 for bad input (one line on stderr), 130 if interrupted.
    """
    from keras_deepnets.cli import app, problems

    return problems.status_of(lambda: app.run(argv))
