"""Exceptions for invalid input."""

from __future__ import annotations


class InputError(ValueError):
    """The caller's input cannot be used. The message is one line with the value, the rule and a way out.

    The command line prints the message and exits with status 2.
    """


class NoSuchSplit(InputError):  # noqa: N818 - the name states the condition
    """An image source has no split with this name, or no labelled one. Callers may continue without it, unlike with a broken split."""
