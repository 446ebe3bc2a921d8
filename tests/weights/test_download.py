"""Downloads from a server that misbehaves: nothing bad stays in the cache."""

import contextlib
import hashlib
import http.server
import multiprocessing
import threading

import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.weights.download import fetch

CONTENT = bytes(range(256)) * 4000
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `CONTENT`, with ranges; the path says what goes wrong."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.requests.append((self.path, self.headers.get("Range")))
            count = sum(path == self.path for path, _ in server.requests)
        if self.path == "/none.bin":
            self.send_error(404)
            return
        if self.path == "/overloaded.bin" and count < 3:
            self.send_error(503)
            return
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if begin > len(CONTENT):
            self.send_error(416)
            return
        ranged = begin and self.path != "/noranges.bin"
        body = CONTENT[begin:] if ranged else CONTENT
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if (self.path in ("/cut.bin", "/noranges.bin") and count == 1) or self.path == "/always_cut.bin":
            body = body[: len(body) // 3]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *args):
        """Silence."""


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.lock = [], threading.Lock()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_downloaded_once(server, tmp_path):
    seen = []
    path = tmp_path / "models" / "file.bin"
    for _ in range(2):
        fetch(f"{server.url}/file.bin", path, checksum=SHA, progress=lambda have, total: seen.append((have, total)))
    assert path.read_bytes() == CONTENT and names(path.parent) == ["file.bin"]
    assert server.requests == [("/file.bin", None)]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("name", ["cut", "noranges", "overloaded"])
def test_a_broken_download_goes_on(server, tmp_path, name):
    path = tmp_path / "file.bin"
    fetch(f"{server.url}/{name}.bin", path, checksum=SHA, wait=0.01)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["file.bin"]
    if name == "cut":
        assert server.requests[1] == ("/cut.bin", f"bytes={len(CONTENT) // 3}-")


def test_an_earlier_days_part_goes_on(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", checksum=SHA)
    assert server.requests == [("/file.bin", "bytes=1000-")]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * (len(CONTENT) + 9))
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", checksum=SHA, wait=0.01)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=r"has the checksum sha256:.* and not sha256:12345678, and was thrown away"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", checksum="sha256:12345678")
    assert names(tmp_path) == []


def test_an_end_that_never_comes_keeps_the_part(server, tmp_path):
    with pytest.raises(InputError, match=r"cannot download always_cut\.bin"):
        fetch(f"{server.url}/always_cut.bin", tmp_path / "file.bin", wait=0.01)
    assert names(tmp_path) == ["file.bin.part"]
    assert CONTENT.startswith((tmp_path / "file.bin.part").read_bytes())


def test_a_missing_file_names_url_and_place(server, tmp_path):
    with pytest.raises(InputError, match="the server says 404") as caught:
        fetch(f"{server.url}/none.bin", tmp_path / "file.bin")
    assert f"{server.url}/none.bin" in str(caught.value) and str(tmp_path / "file.bin") in str(caught.value)
    assert names(tmp_path) == [] and len(server.requests) == 1


def test_no_network(tmp_path):
    with pytest.raises(InputError, match="Put the file there by hand"):
        fetch("http://127.0.0.1:9/file.bin", tmp_path / "file.bin", wait=0.01)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "models").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*set KERAS_HOME"):
        fetch(f"{server.url}/file.bin", tmp_path / "models" / "file.bin")


def test_two_processes_at_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    path = tmp_path / "file.bin"
    workers = [
        context.Process(target=fetch, args=(f"{server.url}/file.bin", path), kwargs={"checksum": SHA}) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["file.bin"]
    assert len(server.requests) == 1
