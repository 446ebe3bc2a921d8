"""Downloads from a server that misbehaves: nothing bad stays in the cache."""

import contextlib
import dataclasses
import functools
import hashlib
import http.client
import http.server
import io
import multiprocessing
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
import threading
import zipfile
from types import SimpleNamespace

import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.weights import cards, formats, naming_tables
from keras_deepnets.weights.download import DownloadError, fetch
from tests.weights.common import fill, peer_tensors, tiny

pytestmark = pytest.mark.integration

CONTENT = bytes(range(256)) * 4000
WEIGHTS = hashlib.shake_256(b"weights").digest(300_000)
SHA1 = "sha1:" + hashlib.sha1(WEIGHTS).hexdigest()
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `CONTENT`, or what the server has for the path, with ranges; the path says what goes wrong."""

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
        content = server.archives.get(self.path, CONTENT)
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        etag = server.etags.get(self.path)
        if self.headers.get("If-Range", etag) != etag:
            begin = 0
        if begin > len(content):
            self.send_error(416)
            return
        ranged = begin and self.path != "/noranges.bin"
        body = content[begin:] if ranged else content
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", f"bytes {begin + server.shift}-{len(content) - 1}/{len(content)}")
        if etag:
            self.send_header("ETag", etag)
        if not self.path.startswith("/unsized"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if (self.path in ("/cut.bin", "/noranges.bin", "/cut.zip") and count == 1) or self.path == "/always_cut.bin":
            body = body[: len(body) // 3]
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *args):
        """Silence."""


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.lock, server.archives, server.etags, server.shift = [], threading.Lock(), {}, {}, 0
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


def test_another_file_of_the_same_name_begins_again(server, tmp_path):
    """Half of yesterday's file is not the beginning of today's."""
    server.etags["/file.bin"] = '"today"'
    (tmp_path / "file.bin.part").write_bytes(b"yesterday" * 100)
    (tmp_path / "file.bin.part.etag").write_text('"yesterday"')
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin")
    assert server.requests == [("/file.bin", "bytes=900-")]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and names(tmp_path) == ["file.bin"]


def test_the_same_file_goes_on_and_its_etag_is_kept_meanwhile(server, tmp_path):
    server.etags["/always_cut.bin"] = '"today"'
    with pytest.raises(InputError, match=r"cannot download always_cut\.bin"):
        fetch(f"{server.url}/always_cut.bin", tmp_path / "file.bin", wait=0.01)
    assert names(tmp_path) == ["file.bin.part", "file.bin.part.etag"]
    assert (tmp_path / "file.bin.part.etag").read_text() == '"today"'
    have = (tmp_path / "file.bin.part").stat().st_size
    server.etags["/file.bin"] = '"today"'
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin")
    assert server.requests[-1] == ("/file.bin", f"bytes={have}-")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and names(tmp_path) == ["file.bin"]


def test_a_weak_etag_is_not_kept(server, tmp_path):
    server.etags["/always_cut.bin"] = 'W/"today"'
    with pytest.raises(InputError):
        fetch(f"{server.url}/always_cut.bin", tmp_path / "file.bin", wait=0.01)
    assert names(tmp_path) == ["file.bin.part"]


def test_a_range_that_begins_elsewhere_is_not_appended(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    server.shift = 7
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", wait=0.01)
    assert server.requests == [("/file.bin", "bytes=1000-"), ("/file.bin", None)]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_an_error_of_tls_while_reading_is_one_of_the_connection(server, tmp_path, monkeypatch):
    def fail(*args):
        raise ssl.SSLError(1, "[SSL] record layer failure")

    monkeypatch.setattr(http.client.HTTPResponse, "read", fail)
    with pytest.raises(InputError, match=r"cannot download file\.bin .*record layer failure"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin", wait=0.01)
    assert len(server.requests) == 4


def test_no_space_is_an_error_of_the_folder(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"cannot write .*No space left for .*set KERAS_HOME"):
        fetch(f"{server.url}/file.bin", tmp_path / "file.bin")


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory):
    """The bytes of a good file of each format."""
    torch = pytest.importorskip("torch")
    folder, model = tmp_path_factory.mktemp("good"), tiny()
    paths = [kd.save_weights(model, folder / f"good{suffix}") for suffix in (".safetensors", ".weights.h5", ".keras")]
    tensors = {"fc.weight": torch.ones(4, 4)}
    torch.save(tensors, folder / "good.pth")
    torch.save(tensors, folder / "good.th", _use_new_zipfile_serialization=False)
    paths += [folder / "good.pth", folder / "good.th"]
    return {path.name.removeprefix("good"): path.read_bytes() for path in paths}


HTML = b"<!DOCTYPE html><html><body>This model is gated. Log in.</body></html>"


@pytest.mark.parametrize("suffix", [".safetensors", ".weights.h5", ".keras", ".pth", ".th"])
def test_a_page_in_the_place_of_a_file_without_checksum(server, tmp_path, weight_files, suffix):
    """A server that says 200 to everything, and gives no length."""
    check = functools.partial(formats.check, name=f"x{suffix}")
    path, url = tmp_path / f"x{suffix}", f"{server.url}/unsized{suffix}"
    bad = [HTML, HTML * 100_000, b"", weight_files[".pth" if suffix == ".safetensors" else ".safetensors"]]
    if suffix != ".th":  # pickles without archive have no length in them
        bad.append(weight_files[suffix][:-40])
    for content in bad:
        server.archives[f"/unsized{suffix}"] = content
        with pytest.raises(InputError, match=r"the downloaded file .*, and was deleted\. Put the file there by hand"):
            fetch(url, path, check=check)
        assert names(tmp_path) == []
    server.archives[f"/unsized{suffix}"] = weight_files[suffix]
    assert fetch(url, path, check=check).read_bytes() == weight_files[suffix]


def test_a_longer_safetensors_file_is_none(tmp_path, weight_files):
    path = tmp_path / "x.safetensors"
    path.write_bytes(weight_files[".safetensors"] + b"more")
    with pytest.raises(ValueError, match=r"has [\d,]+ bytes, but [\d,]+ according to its header"):
        formats.check(path, path.name)


def test_a_damaged_file_does_not_stay_in_the_cache(server, tmp_path, monkeypatch):
    """A card whose checksum nobody knows: a page that an earlier version kept, a truncated pickle; and then the right one."""
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    source = fill(kd.ResNet20())
    tensors = peer_tensors(source, naming_tables.PLAIN_CIFAR_RESNET)
    torch.save({k: torch.from_numpy(v.copy()) for k, v in tensors.items()}, tmp_path / "good.th")
    published = cards.card("ResNet20", "akamaster/cifar10")
    card = dataclasses.replace(published, url=f"{server.url}/net.th", checksum=None)
    monkeypatch.setattr(cards, "_all", lambda: (card,))
    card.path.parent.mkdir(parents=True)
    good = (tmp_path / "good.th").read_bytes()
    model = kd.ResNet20(shortcut="A")
    for content in (HTML, good[: len(good) // 2]):
        card.path.write_bytes(content)
        with pytest.raises(InputError, match=r"is it complete\? It was deleted; the next try downloads it from http"):
            kd.load_weights(model, card.name)
        assert names(card.path.parent) == []
    server.archives["/net.th"] = good
    assert kd.load_weights(model, card.name).complete
    assert names(card.path.parent) == [card.path.name]


def test_a_part_that_is_longer_than_the_file(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * (len(CONTENT) + 9))
    fetch(f"{server.url}/file.bin", tmp_path / "file.bin", checksum=SHA, wait=0.01)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(InputError, match=r"has the checksum sha256:.* and not sha256:12345678, and was deleted"):
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
    with pytest.raises(
        DownloadError, match=r"Put the file there by hand: .*, or pass it as weights=FILE \(--weights FILE\)"
    ):
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


def zipped(**entries):
    """An archive of entries; ``__`` in their names stands for a dot."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "."), content)
    return memory.getvalue()


@pytest.mark.parametrize("name", ["file", "cut"])
def test_the_one_file_of_an_archive(server, tmp_path, name):
    server.archives[f"/{name}.zip"] = zipped(notes__txt="notes", net__pth=WEIGHTS)
    path = tmp_path / "models" / "net.pth"
    for _ in range(2):
        fetch(f"{server.url}/{name}.zip", path, checksum=SHA1, member="net.pth", wait=0.01)
    assert path.read_bytes() == WEIGHTS and names(path.parent) == ["net.pth"] and names(tmp_path) == ["models"]
    assert len(server.requests) == (2 if name == "cut" else 1)


def broken(archive):
    """The archive with other bytes in the place of some of its file's."""
    return archive[:2000] + bytes(500) + archive[2500:]


def longer_than_it_says(archive):
    """The archive whose directory says that its file has ten bytes."""
    place = archive.rindex(b"PK\x01\x02") + 24
    return archive[:place] + struct.pack("<I", 10) + archive[place + 4 :]


def duplicated():
    with pytest.warns(UserWarning, match="Duplicate name"):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("net.pth", WEIGHTS)
            archive.writestr("net.pth", b"others")
    return memory.getvalue()


@pytest.mark.parametrize(
    "archive, message",
    [
        (lambda: b"no archive at all", "File is not a zip file"),
        (lambda: zipped(other__pth=WEIGHTS), "the archive holds 'other.pth' and not one file 'net.pth'"),
        (lambda: zipped(**{"/net__pth": WEIGHTS, "__.__/net__pth": WEIGHTS}), "and not one file 'net.pth'"),
        (duplicated, "the archive holds 'net.pth', 'net.pth' and not one file"),
        (lambda: zipped(net__pth=bytes(10**7)), "would grow to 10,000,000 bytes, more than 20 times its archive"),
        (lambda: broken(zipped(net__pth=WEIGHTS)), "the downloaded archive was deleted"),
        (lambda: longer_than_it_says(zipped(net__pth=WEIGHTS)), "Bad CRC-32"),
        (lambda: zipped(net__pth=b"others"), f"has the checksum sha1:.* and not {SHA1}, and was deleted"),
    ],
)
def test_an_archive_that_is_not_right_leaves_nothing(server, tmp_path, archive, message):
    server.archives["/file.zip"] = archive()
    path = tmp_path / "models" / "net.pth"
    with pytest.raises(InputError, match=message) as caught:
        fetch(f"{server.url}/file.zip", path, checksum=SHA1, member="net.pth", wait=0.01)
    assert f"Put the unpacked net.pth there by hand: {path}" in str(caught.value)
    assert names(path.parent) == [] and names(tmp_path) == ["models"]


SHOWN = """
import sys
from pathlib import Path
from keras_deepnets.weights.download import fetch, progress_bar
url, path = sys.argv[1:]
for _ in range(2):
    with progress_bar(Path(path).name) as progress:
        fetch(url, Path(path), progress=progress)
print("done")
"""


def at_a_terminal(url, path, width, term="xterm-256color"):
    """What two downloads of one file write to a terminal of so many columns."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOWN, url, str(path)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": term},
    )
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", 0) as stream:
        while block := stream.read(4096):
            output += block
    assert process.wait(60) == 0
    return output.decode()


@pytest.mark.parametrize("width", [100, 72, 40])
def test_the_progress_bar_at_a_terminal(server, tmp_path, width):
    name = "wideresnet101_2-torchvision-imagenet1k_v2.pth"
    text = at_a_terminal(f"{server.url}/file.bin", tmp_path / name, width)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    shown, end = plain.rsplit("\r", 2)[0], plain.replace("\r", "").rsplit("\n", 2)
    lines = [line for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert lines and all(len(line) <= width and "1.0/1.0 MB" in line for line in lines)
    assert all(line.startswith(name[:10]) for line in lines) and any("━" in line for line in lines) == (width >= 64)
    # It is wiped out when it ends, the cursor is there again, and the second time nothing was to be shown.
    assert end[-2:] == ["done", ""] and text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert text.index("\x1b[?25h") < text.rindex("\x1b[2K") < text.index("done")


def test_no_progress_bar_where_it_would_be_noise(server, tmp_path):
    assert at_a_terminal(f"{server.url}/file.bin", tmp_path / "a.bin", 80, "dumb") == "done\r\n"
    command = [sys.executable, "-c", SHOWN, f"{server.url}/file.bin", str(tmp_path / "b.bin")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
