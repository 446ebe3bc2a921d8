"""Fetching published weights: from a server of this machine, and from none."""

import contextlib
import dataclasses
import http.server
import socket
import threading

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.weights import cards, naming_tables
from tests.weights.common import arrays, assert_same, fill, peer_tensors

pytestmark = pytest.mark.integration


class Files(http.server.BaseHTTPRequestHandler):
    """Serves what the server holds."""

    def do_GET(self):
        self.server.requests.append(self.path)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(403, "Forbidden")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content)

    def log_message(self, *args):
        """Silence."""


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server with the weights of a ResNet-20, and the cards of three networks."""
    from safetensors.numpy import save

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model = fill(kd.ResNet20())
    tensors = peer_tensors(model, naming_tables.PLAIN_CIFAR_RESNET)
    content = save({name: np.ascontiguousarray(array) for name, array in tensors.items()})
    server.files = {"/resnet20.safetensors": content}
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    url = f"http://127.0.0.1:{server.server_port}"
    card = dataclasses.replace(
        cards.card("ResNet20", "akamaster/cifar10"), url=f"{url}/resnet20.safetensors", checksum=None
    )
    found = (
        card,
        dataclasses.replace(card, constructor="ResNet32", url=f"{url}/resnet32.safetensors"),
        dataclasses.replace(card, constructor="ResNet50", name="keras/imagenet", labels="imagenet", url=card.url),
    )
    monkeypatch.setattr(cards, "_all", lambda: found)
    server.model, server.cards, server.content = model, found, content
    yield server
    server.shutdown()
    server.server_close()


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_weights_are_fetched_once_and_then_needs_no_network(cli, published, tmp_path):
    done = cli("download", "resnet20:akamaster/cifar10", "resnet50", "ResNet20:akamaster/cifar10")
    assert (done.status, done.err) == (0, "")
    twenty, _, fifty = published.cards
    lines = done.out.splitlines()
    assert lines[0].split() == ["weights", "size", "file"]
    assert lines[1].split() == ["resnet20:akamaster/cifar10", "1.1", "MB", str(twenty.path)]
    assert lines[2].split()[0] == "resnet50:keras/imagenet" and lines[2].endswith(str(fifty.path))
    assert lines[3:] == [f"Cache folder (you can copy it to other machines): {twenty.path.parent}"]
    assert twenty.path.read_bytes() == fifty.path.read_bytes() == published.content
    assert files(tmp_path) == sorted([twenty.path.name, fifty.path.name])
    published.shutdown()
    (row,) = cli("download", "resnet20:akamaster/cifar10", "--json").json
    assert (row["path"], row["bytes"], row["there"]) == (str(twenty.path), len(published.content), True)
    assert len(published.requests) == 2
    assert_same(kd.ResNet20(weights="akamaster/cifar10"), arrays(published.model))


def test_a_copied_cache_folder_serves_an_offline_machine(cli, published, tmp_path, monkeypatch):
    cli("download", "resnet20:akamaster/cifar10")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    published.files.clear()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "elsewhere"))
    assert_same(kd.ResNet20(weights="akamaster/cifar10"), arrays(published.model))
    assert len(published.requests) == 1


@pytest.mark.parametrize("flag", ["--dry-run", "--list"])
def test_a_dry_run_fetches_nothing(cli, published, tmp_path, flag):
    card = published.cards[0]
    lines = cli("download", "resnet20:akamaster/cifar10", flag).out.splitlines()
    assert lines[0].split() == ["weights", "size", "url", "path"]
    assert lines[1].split() == ["resnet20:akamaster/cifar10", "not", "here", "yet", card.url, str(card.path)]
    (row,) = cli("download", "resnet20:akamaster/cifar10", flag, "--json").json
    assert (row["url"], row["bytes"], row["there"], row["network"]) == (card.url, None, False, "ResNet20")
    assert published.requests == [] and files(tmp_path) == []
    cli("download", "resnet20:akamaster/cifar10")
    (row,) = cli("download", "resnet20:akamaster/cifar10", flag, "--json").json
    assert (row["bytes"], row["there"]) == (len(published.content), True)


def test_names_of_no_weights_fetch_nothing(cli, published, tmp_path):
    good = "resnet20:akamaster/cifar10"
    for name, message in (
        ("resnet21", "Unknown network 'resnet21'. Did you mean "),
        ("plainnet20", "PlainNet20 has no published weights"),
        ("resnet20", "ResNet20 has no weights 'imagenet'; it has akamaster/cifar10."),
        ("resnet20:akamaster/svhn", "ResNet20 has no weights 'akamaster/svhn'; it has akamaster/cifar10."),
        ("akamaster/cifar10", "2 networks have weights 'akamaster/cifar10' (resnet20, resnet32); name the network."),
        ("imagenet", "'imagenet' means the default weights of a network; name the network, e.g. resnet50."),
    ):
        assert message in cli("download", good, name).error
    assert "Missing argument 'NAME…'" in cli("download").error
    assert published.requests == [] and files(tmp_path) == []


def test_one_blocked_file_does_not_keep_the_others(cli, published, tmp_path):
    twenty, blocked, _ = published.cards
    done = cli("download", "resnet32:akamaster/cifar10", "resnet20:akamaster/cifar10")
    assert done.status == 2 and done.err.count("\n") == 1
    assert (
        f"from {blocked.url}: the server says 403 Forbidden. Put the file there by hand: {blocked.path}, or" in done.err
    )
    assert "resnet32:akamaster/cifar10  failed" in done.out and str(twenty.path) in done.out
    assert files(tmp_path) == [twenty.path.name]
    error = cli("download", "resnet32:akamaster/cifar10").error
    assert error.startswith(f"cannot download resnet32.safetensors from {blocked.url}: ")


@pytest.fixture
def refused(published, monkeypatch):
    """A card whose server refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    card = dataclasses.replace(published.cards[0], url=f"http://127.0.0.1:{port}/resnet20.safetensors")
    monkeypatch.setattr(cards, "_all", lambda: (card,))
    return card


def test_without_network_one_line_says_what_to_do(cli, refused, patches, tmp_path):
    line = (
        f"cannot download resnet20.safetensors from {refused.url}: [Errno 111] Connection refused. Put the file there by hand: "
        f"{refused.path}, or pass it as weights=FILE (--weights FILE)."
    )
    with pytest.raises(InputError) as caught:
        kd.ResNet20(weights=refused.name)
    assert str(caught.value) == line
    assert cli("download", "resnet20:akamaster/cifar10").error == line
    words = ("--weights", refused.name, "--image-size", "8", "--run-dir", tmp_path / "run")
    done = cli("train", "resnet20", patches, *words)
    assert done.error == f"{line} Leave out --weights to train from scratch."
    assert not (tmp_path / "run").exists()


def test_the_file_put_there_by_hand_is_taken(refused, published):
    refused.path.parent.mkdir(parents=True, exist_ok=True)
    refused.path.write_bytes(published.content)
    assert_same(kd.ResNet20(weights=refused.name), arrays(published.model))
    other = refused.path.with_name("mine.safetensors")
    refused.path.rename(other)
    assert_same(kd.ResNet20(weights=other), arrays(published.model))
