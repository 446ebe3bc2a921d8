"""The pages of `docs/`: their Python runs, their command lines parse, their tables and pictures follow the library."""

import contextlib
import importlib
import inspect
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import typer
from tensorflow.python.framework import config

import keras_deepnets as kd
from keras_deepnets.cli.app import app
from tests.cli.conftest import COLOURS, paint
from tests.test_layout import ORDER

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if "_build" not in page.relative_to(DOCS).parts
)
OWN = [page for page in PAGES if page not in ("training.md", "weights.md", "benchmarks.md")]
"""Pages whose Python runs here. That of the other guides needs large data; `tests/training/test_sources.py` runs some of it."""
BLOCK = re.compile(
    r"^(?P<notes>(?:<!--[^\n]*-->\n)*)```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SMALLER = (
    (r"weights=\"imagenet\"", 'weights="learnt.safetensors"'),
    (r"kd\.ResNet50\((?=weights)", "kd.ResNet20("),
    (r"\"resnet50\", \"photos\"", '"resnet20", "photos"'),
    (r"run_dir=\"runs/photos\"", 'run_dir="runs/photos", epochs=1, head_epochs=1, image_size=16, verbose=0'),
    (r"run_dir=\"runs/digits\", epochs=12", 'run_dir="runs/digits", epochs=1, limit=64'),
)
"""What makes a page's Python small enough for a test."""


def blocks(page):
    """Language, text and notes of each block of code of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [(found["language"], found["text"], found["notes"]) for found in BLOCK.finditer(text)]


def run_python(page):
    """For each block of Python: the output in the page and the one of a run. Blocks share a namespace."""
    code = blocks(page)
    namespace = {"__name__": "__main__"}
    for place, (language, text, notes) in enumerate(code):
        if language != "python" or "not run" in notes:
            continue
        follows = code[place + 1] if place + 1 < len(code) else ("", "", "")
        told = None if follows[0] != "text" or "output varies" in follows[2] else follows[1]
        for pattern, instead in SMALLER:
            text = re.sub(pattern, instead, text)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(text, f"{page}, block {place + 1}", "exec"), namespace)
        yield told, out.getvalue()


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with what readers of the pages have: photos, and weights that they downloaded."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos", COLOURS, 20)
    kd.save_weights(kd.ResNet20(), "learnt.safetensors")
    yield tmp_path
    config.disable_op_determinism()  # a page turns it on, for the whole process


def _marked(page):
    text = "".join(text for language, text, _ in blocks(page) if language == "python")
    return (
        pytest.param(page, marks=pytest.mark.slow)
        if re.search(r"kd\.(training\.train|export)\b|\.fit\(", text)
        else page
    )


@pytest.mark.parametrize(
    "page", [_marked(page) for page in OWN if any(language == "python" for language, *_ in blocks(page))]
)
def test_python_runs_and_prints_what_the_page_says(page, workplace):
    for told, printed in run_python(page):
        if told is not None:
            assert printed == told
    keras.config.set_dtype_policy("float32")


def command_lines(text):
    """The calls of `keras-deepnets` in a block of shell, as lists of words."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        for part in re.split(r"&&|\|\s", line):
            words = shlex.split(part, comments=True)
            while words and ("=" in words[0] and not words[0].startswith("-")):
                words.pop(0)
            if words and words[0] == "keras-deepnets":
                yield words[1:]


def parse(words):
    """Parses the words as the program would; it raises a usage error for a wrong name or option."""
    command = typer.main.get_command(app)
    context = command.make_context("keras-deepnets", list(words), resilient_parsing=True)
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            return
        name, *words = words
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
        context = command.make_context(
            name, list(words), parent=context, resilient_parsing=hasattr(command, "commands")
        )


@pytest.mark.parametrize(
    "page", [*PAGES, "../README.md", "../examples/serving/README.md", "../examples/browser/README.md"]
)
def test_command_lines_parse(page):
    for language, text, _ in blocks(page):
        if language in ("bash", "console", "sh"):
            for words in command_lines(text):
                parse(words)


OPTIONS = {
    name
    for command in typer.main.get_command(app).commands.values()
    for one in (command, *getattr(command, "commands", {}).values())
    for parameter in one.params
    for name in (*parameter.opts, *parameter.secondary_opts)
} | {"--help", "--version", "--install-completion", "--show-completion"}


@pytest.mark.parametrize("page", OWN)
def test_options_in_the_text_exist(page):
    text = BLOCK.sub("", (DOCS / page).read_text(encoding="utf-8"))
    for code in re.findall(r"`(keras-deepnets [^`]*|--[^`]*)`", text):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in OPTIONS, f"{code}: {option}"


@pytest.mark.parametrize("wrong", ["train resnet20 digits --epoch 3", "trian resnet20 digits", "evaluate a b c"])
def test_a_wrong_command_line_is_found(wrong):
    with pytest.raises(Exception, match=r"(?i)no such option|no command|unexpected extra argument"):
        parse(wrong.split())


def test_every_public_name_is_in_the_reference():
    written = "\n".join(
        page.read_text(encoding="utf-8") for page in (DOCS / "reference").rglob("*.md") if page.name != "cli.md"
    )
    documented = set()
    for module, names in re.findall(r"```\{api\} ([\w.]+)\n(.*?)```", written, re.DOTALL):
        for name in names.split():
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
            documented.add(f"{module}.{name}")
    for family in re.findall(r"```\{family-api\} (\w+)", written):
        module = importlib.import_module(f"keras_deepnets.families.{family}")
        documented |= {f"keras_deepnets.{name}" for name in vars(module) if hasattr(kd, name)}
    public = {
        f"{module.__name__}.{name}"
        for module in (kd, kd.data, kd.export, kd.insight, kd.layers, kd.training, kd.weights)
        for name in module.__all__
        if not inspect.ismodule(getattr(module, name))
    }
    again = {f"keras_deepnets.{name.rpartition('.')[2]}" for name in documented}
    assert {name for name in public - documented if f"keras_deepnets.{name.rpartition('.')[2]}" not in again} == set()


def test_the_diagram_shows_the_order_of_the_parts():
    drawing = (DOCS / "pictures" / "architecture.svg").read_text(encoding="utf-8")
    rows = {
        name: float(y) for y, name in re.findall(r'<text x="[\d.]+" y="([\d.]+)"[^>]*><tspan class="n">(\w+)', drawing)
    }
    parts = [part for part in ORDER if part in rows]
    assert set(rows) <= set(ORDER) and len(parts) > 15
    heights = [rows[part] for part in parts if part not in ("scaling", "labels", "files")]
    assert heights == sorted(heights, reverse=True)
    hidden = {"lazy", "versions", "processor", "records", "evaluation", "registration", ""}
    assert set(ORDER) - set(rows) == hidden


def test_pictures_exist_and_are_small():
    used = {
        (DOCS / page).parent.joinpath(target).resolve()
        for page in OWN
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (DOCS / page).read_text(encoding="utf-8"))
    }
    assert used == {path.resolve() for path in (*(DOCS / "pictures").iterdir(), *(DOCS / "studies").glob("*.png"))}
    assert all(path.stat().st_size < 80_000 for path in used)


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="pip install '.[docs]'")
    pytest.importorskip("furo")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    zoo = (tmp_path / "zoo.html").read_text(encoding="utf-8")
    for name in kd.list_models():
        info = kd.model_info(name)
        assert info.constructor in zoo and f"{info.parameters:,}" in zoo
    used = set(
        re.findall(r'href="[^"]*#(keras_deepnets\.[\w.]+)"', (tmp_path / "start" / "first-model.html").read_text())
    )
    assert {"keras_deepnets.list_models", "keras_deepnets.model_info"} <= used
