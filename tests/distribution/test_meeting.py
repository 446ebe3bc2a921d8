"""The workers find each other. Threads stand in for the processes."""

import concurrent.futures
import json
import socket
import time

import pytest

from keras_deepnets.distribution import Cluster, meeting
from keras_deepnets.errors import InputError
from tests.distribution.common import free_ports

pytestmark = pytest.mark.integration


@pytest.fixture
def addresses():
    return tuple(f"localhost:{port}" for port in free_ports(3))


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(3) as found:
        yield found


def came(pool, addresses, index, within=5.0):
    """A worker that comes to the meeting, and the lines that it says."""
    lines = []
    return pool.submit(meeting.meet, Cluster(addresses, index), within, lines.append), lines


def connection(addresses, **hello):
    """A worker that connects and then does nothing."""
    host, port = addresses[0].split(":")
    for _ in range(100):
        try:
            found = socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            time.sleep(0.02)
        else:
            found.sendall(json.dumps({"worker": 1, "workers": list(addresses)} | hello).encode() + b"\n")
            return found
    raise AssertionError("the chief does not listen")


def test_all_go_when_the_last_one_comes(pool, addresses):
    early = [came(pool, addresses, index)[0] for index in (1, 0)]
    time.sleep(0.4)
    assert not any(each.done() for each in early)
    for each in (*early, came(pool, addresses, 2)[0]):
        assert each.result(5) is None
    with socket.create_server(("", int(addresses[0].split(":")[1]))):  # TensorFlow can use the address now
        pass


def test_missing_workers_are_named_and_end_the_waiting(pool, addresses, monkeypatch):
    monkeypatch.setattr(meeting, "_FIRST_WORD", 0.3)
    (chief, said), (other, heard) = (came(pool, addresses, index, within=1.0) for index in (0, 1))
    for each in (chief, other):
        with pytest.raises(InputError, match=rf"Worker 2 \({addresses[2]}\) did not connect within 1 s"):
            each.result(5)
    assert said == heard == [f"Waiting for worker 2 ({addresses[2]})."]


def test_a_missing_chief_is_named(pool, addresses, monkeypatch):
    monkeypatch.setattr(meeting, "_FIRST_WORD", 0.2)
    other, said = came(pool, addresses, 1, within=0.8)
    with pytest.raises(InputError, match=rf"Worker 0 \({addresses[0]}\) cannot be reached within 0.8 s"):
        other.result(5)
    assert said == [f"Waiting for worker 0 ({addresses[0]})."]


def test_a_worker_that_stops_meanwhile_ends_the_waiting_unless_it_comes_back(pool, monkeypatch):
    monkeypatch.setattr(meeting, "_RETURN", 0.5)
    addresses = tuple(f"localhost:{port}" for port in free_ports(4))  # the last one never comes
    (chief, _), (other, _) = (came(pool, addresses, index, within=60.0) for index in (0, 2))
    connection(addresses).close()
    again = connection(addresses)  # a scheduler started it again
    time.sleep(1.0)
    assert not chief.done()
    again.close()
    begin = time.monotonic()
    for each in (chief, other):
        with pytest.raises(InputError, match=r"Worker 1 \(.*\) stopped before all workers were connected"):
            each.result(5)
    assert time.monotonic() - begin < 3


def test_strangers_are_not_counted(pool, addresses):
    chief, _ = came(pool, addresses, 0, within=1.5)
    wrong = connection(addresses, workers=["localhost:1", "localhost:2", "localhost:3"])
    assert "Worker 0 knows other workers" in wrong.recv(1000).decode()
    connection(addresses, worker=7).close()
    stranger = socket.create_connection(("localhost", int(addresses[0].split(":")[1])))
    stranger.sendall(b"GET / HTTP/1.1\r\n")
    stranger.close()
    with pytest.raises(InputError, match=r"Worker 1 .* and worker 2 .* did not connect"):
        chief.result(5)


def test_an_address_in_use(addresses):
    with socket.create_server(("", int(addresses[0].split(":")[1]))), pytest.raises(InputError, match="cannot use its"):
        meeting.meet(Cluster(addresses, 0), 1.0, print)
