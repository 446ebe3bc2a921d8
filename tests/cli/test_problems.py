"""Whatever goes wrong is one line on stderr and an exit status."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from keras_deepnets.cli import catalog, problems
from keras_deepnets.cli.quiet import native_output_held_back
from keras_deepnets.errors import InputError

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lst", "No such command 'lst'. Did you mean 'list'? See `keras-deepnets --help`."),
        ("list --famly ResNet", "See `keras-deepnets list --help`."),
        ("info", "Missing argument 'NAME'. See `keras-deepnets info --help`."),
        ("train resnet20 digits --seed many", "Invalid value for '--seed': "),
        ("train resnet20 digits --epochs -1", "Invalid value for '--epochs': "),
        ("train resnet20 digits extra", "Got unexpected extra argument"),
        ("predict model.keras image.png --top 0", "Invalid value for '--top': "),
        ("--nonsense", "No such option: --nonsense"),
    ],
)
def test_usage_errors_are_one_line(cli, words, message):
    assert message in cli(*words.split()).error


def raising(error):
    def command(*args):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("No such thing."), 2, "error: No such thing."),
        (InputError("Two\n  lines."), 2, "error: Two lines."),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/x"),
            2,
            "error: No space left on the device for run/x; make room",
        ),
        (
            OSError("Can't write data (file write failed, errno = 28, No space left on device)"),
            2,
            "error: No space left",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "error: /root/x: Permission denied."),
        (MemoryError(), 2, "error: Out of memory; "),
        (KeyboardInterrupt(), 130, "interrupted"),
        (problems.Interrupted("interrupted; go on"), 130, "interrupted; go on"),
        (problems.CheckFailed("too low"), 1, "failed: too low"),
        (
            ZeroDivisionError("oops"),
            1,
            "internal error: ZeroDivisionError: oops (set KERAS_DEEPNETS_DEBUG=1 for the traceback",
        ),
    ],
)
def test_exceptions_become_a_line_and_a_status(cli, monkeypatch, error, status, line):
    monkeypatch.setattr(catalog, "list_networks", raising(error))
    done = cli("list")
    assert done.status == status
    assert done.err.startswith(f"keras-deepnets: {line}")
    assert done.err.count("\n") == 1
    assert done.out == ""


def test_the_traceback_is_there_for_who_asks(cli, monkeypatch):
    monkeypatch.setenv("KERAS_DEEPNETS_DEBUG", "1")
    monkeypatch.setattr(catalog, "list_networks", raising(ZeroDivisionError("oops")))
    done = cli("list")
    assert done.status == 1
    assert done.err.startswith("Traceback (most recent call last):")
    assert done.err.endswith("keras-deepnets: internal error: ZeroDivisionError: oops\n")


def test_a_full_device(tmp_path):
    program = "import sys; from keras_deepnets.cli import main; sys.exit(main(['list']))"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert (
        done.stderr == "keras-deepnets: error: No space left on the device; make room and run the same command again.\n"
    )


def test_a_reader_that_has_had_enough():
    program = "import sys; from keras_deepnets.cli import main; sys.exit(main(['list', '--json']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_ctrl_c_says_one_word():
    program = (
        # A shell ignores the signal in what it starts in the background, so also in this process.
        "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from keras_deepnets.cli import catalog, main;"
        "catalog.list_networks = lambda *a: (print('here', flush=True), time.sleep(60)); sys.exit(main(['list']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "here\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "keras-deepnets: interrupted\n")


def test_native_output_is_held_back(capfd):
    with native_output_held_back():
        os.write(2, b"I0000 chatter\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_native_output_is_shown_where_the_block_fails(capfd):
    with pytest.raises(RuntimeError), native_output_held_back():
        os.write(2, b"the reason\n")
        raise RuntimeError
    assert capfd.readouterr().err == "the reason\n"


def test_tensorflow_is_loaded_without_a_word():
    program = (
        "from keras_deepnets.cli.quiet import load_tensorflow; load_tensorflow();"
        "import tensorflow as tf, keras; print(float(tf.reduce_sum(keras.layers.Dense(2)(tf.ones([1, 3])) * 0)))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0.0\n", "")
