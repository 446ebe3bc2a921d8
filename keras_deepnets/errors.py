"""The error of bad input."""

from __future__ import annotations


class InputError(ValueError):
    """What the caller gave cannot be used. The message is one line: the value, the rule, the way out.

    The command line prints it and exits with status 2.
    """


class NoSuchSplit(InputError):  # noqa: N818 - said as what it is
    """A source of images has no split of that name, or none with labels: one may do without it, unlike a broken one."""
