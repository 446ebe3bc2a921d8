"""The workers of a job find each other before TensorFlow connects them.

TensorFlow waits for all workers in one call that cannot print, be interrupted or end. Here, the workers connect to the chief at its own
address, which TensorFlow uses afterwards. So missing workers are named, and nobody waits without end.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable, Sequence

from keras_deepnets.distribution.cluster import Cluster
from keras_deepnets.errors import InputError

CONNECT = 600.0
"""Seconds that a worker waits for the others unless the caller says otherwise."""
_FIRST_WORD, _NEXT_WORD = 10.0, 60.0  # seconds until the missing workers are named, and between two such lines
_RETURN = 30.0  # seconds that a worker which has stopped has to come back: a scheduler may start it again
_PAUSE = 0.25


def meet(cluster: Cluster, within: float, say: Callable[[str], None]) -> None:
    """Return on all workers as soon as all are there.

    Args:
        cluster: The workers.
        within: Seconds to wait.
        say: Called with lines that name the missing workers.

    Raises:
        InputError: A worker did not come in time or stopped meanwhile. Or the address of the chief is in use.
    """
    if cluster.index == 0:
        _Chief(cluster, within, say).wait()
    else:
        _wait_for_chief(cluster, within, say)


def name_of(cluster: Cluster, index: int) -> str:
    """A worker in words, for messages."""
    return f"worker {index} ({cluster.workers[index]})"


class _Chief:
    """The side of worker 0, which knows who is there."""

    def __init__(self, cluster: Cluster, within: float, say: Callable[[str], None]):
        self._cluster, self._within, self._say = cluster, within, say
        self._there: dict[int, socket.socket] = {}
        self._gone: dict[int, float] = {}
        self._selector = selectors.DefaultSelector()

    def wait(self) -> None:
        address = self._cluster.workers[0]
        try:
            server = socket.create_server(("", int(address.rpartition(":")[2])))
        except OSError as error:
            raise InputError(
                f"Worker 0 cannot use its address {address}: {error.strerror or error}. Wait until the earlier job has ended, or choose "
                "another port."
            ) from None
        with server, contextlib.ExitStack() as opened:
            opened.callback(self._close)
            self._selector.register(server, selectors.EVENT_READ)
            try:
                self._until_all_are_there(server)
            except InputError as error:
                self._tell({"failed": str(error)})
                raise
            self._tell({"go": True})

    def _until_all_are_there(self, server: socket.socket) -> None:
        begin = time.monotonic()
        word = begin + _FIRST_WORD
        while missing := [index for index in range(1, self._cluster.size) if index not in self._there]:
            for key, _ in self._selector.select(_PAUSE):
                if key.fileobj is server:
                    self._welcome(server.accept()[0])
                elif self._there.get(key.data) is key.fileobj:  # not replaced a moment ago
                    self._lose(key.data)
            now = time.monotonic()
            names = listed([name_of(self._cluster, index) for index in missing])
            if late := [index for index in missing if now - self._gone.get(index, now) > _RETURN]:
                raise InputError(
                    f"{name_of(self._cluster, late[0]).capitalize()} stopped before all workers were connected, and did not come back "
                    f"within {_RETURN:.0f} s. Its own output says why. Start all workers again."
                )
            if now - begin > self._within:
                raise InputError(
                    f"{names.capitalize()} did not connect within {self._within:g} s. Start all workers, and check their addresses; "
                    "--connect-within waits longer."
                )
            if now > word:
                word = now + _NEXT_WORD
                line = f"Waiting for {names}."
                self._say(line)
                self._tell({"waiting": line})

    def _welcome(self, one: socket.socket) -> None:
        """Take in a worker that says its number and knows the same workers. Close other connections."""
        one.settimeout(2.0)
        try:
            hello = json.loads(_line(one))
            index = int(hello["worker"])
            known = hello["workers"] == list(self._cluster.workers) and 0 < index < self._cluster.size
        except (OSError, ValueError, KeyError, TypeError):
            one.close()
            return
        if not known:
            with contextlib.suppress(OSError):
                _send(one, {"failed": f"Worker 0 knows other workers: {', '.join(self._cluster.workers)}."})
            one.close()
            return
        if index in self._there:  # started again
            self._lose(index)
        self._there[index] = one
        self._gone.pop(index, None)
        self._selector.register(one, selectors.EVENT_READ, index)

    def _lose(self, index: int) -> None:
        one = self._there.pop(index)
        self._selector.unregister(one)
        one.close()
        self._gone[index] = time.monotonic()

    def _tell(self, message: dict) -> None:
        for one in self._there.values():
            with contextlib.suppress(OSError):
                _send(one, message)

    def _close(self) -> None:
        for one in self._there.values():
            one.close()
        self._selector.close()


def _wait_for_chief(cluster: Cluster, within: float, say: Callable[[str], None]) -> None:
    """The side of the other workers. The chief ends the waiting, unless it is not there."""
    host, _, port = cluster.workers[0].rpartition(":")
    begin = time.monotonic()
    word, gone = begin + _FIRST_WORD, None
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2.0) as chief:
            _send(chief, {"worker": cluster.index, "workers": list(cluster.workers)})
            if _is_called(chief, begin + within + 5.0, say):
                return
            gone = time.monotonic()
        now = time.monotonic()
        if gone is not None and now - gone > _RETURN:
            raise InputError(
                f"{name_of(cluster, 0).capitalize()} stopped before all workers were connected, and did not come back within "
                f"{_RETURN:.0f} s. Its own output says why. Start all workers again."
            )
        if now - begin > within:
            raise InputError(
                f"{name_of(cluster, 0).capitalize()} cannot be reached within {within:g} s. Start all workers, and check their addresses; "
                "--connect-within waits longer."
            )
        if now > word:
            word = now + _NEXT_WORD
            say(f"Waiting for {name_of(cluster, 0)}.")
        time.sleep(_PAUSE)


def _is_called(chief: socket.socket, end: float, say: Callable[[str], None]) -> bool:
    """Wait for the chief's word that all are there. False: the connection ended.

    Raises:
        InputError: The chief says that the job failed.
    """
    while True:
        chief.settimeout(max(end - time.monotonic(), 0.1))
        try:
            text = _line(chief)
            message = json.loads(text) if text else {}
        except (OSError, ValueError):  # e.g. TensorFlow answers there, because the job runs already
            return False
        if "failed" in message:
            raise InputError(message["failed"])
        if "waiting" in message:
            say(message["waiting"])
        else:
            return "go" in message


def _line(connection: socket.socket) -> str:
    """The next line; empty at the end of the connection."""
    found = bytearray()
    while not found.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(found) > 1 << 20:
            return ""
        found += byte
    return found.decode()


def _send(connection: socket.socket, message: dict) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def listed(names: Sequence[str]) -> str:
    """Names in one phrase. Of many, the first five are named."""
    shown = list(names[:5]) + [f"{len(names) - 5} more"] * (len(names) > 5)
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
