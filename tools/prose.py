"""Check the prose of the repository: Markdown, docstrings and comments.

    python -m tools.prose [FILE ...]

A sentence may have at most 25 words. A line of Markdown may have at most 100 characters, except in tables, code and bare links. Phrases
in ``tools/house_style.txt`` are not allowed. Without arguments, all files are checked. The exit status is 1 if there are findings.
"""

import ast
import functools
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_WORDS = 25
MOST_CHARACTERS = 100
PYTHON = ("keras_deepnets", "benchmarks", "tools", "examples")
"""Folders whose docstrings and comments are checked."""
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Shapes|Yields|Example|Note)s?:$")
_ENTRY = re.compile(r"^[`\w*][\w .,*`'\"()\[\]|/-]{0,60}: ")


@functools.cache
def house_style() -> list[tuple[re.Pattern[str], str]]:
    """Phrases to avoid, each with its replacement."""
    rows = []
    for line in (ROOT / "tools/house_style.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            phrase, _, instead = line.partition(" -> ")
            rows.append((re.compile(phrase, re.IGNORECASE), instead))
    return rows


def _plain(text: str) -> str:
    """Remove markup from text. Code and links become one word each."""
    text = re.sub(r"``[^`]+``|`[^`]+`", "code", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"https?://\S+", "link", text)


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph."""
    text = re.sub(r"\b(e\.g|i\.e|etc|cf|vs|al|eq|Fig|Table|no|approx)\.", r"\1", _plain(text))
    return [part for part in re.split(r"(?<=[.!?])[)\"'*_]*\s+", text) if part.strip()]


def words(sentence: str) -> int:
    """Number of words. Standalone numbers and symbols do not count."""
    return sum(bool(re.search(r"[^\W\d_]", word)) for word in sentence.split())


def markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each paragraph and list entry."""
    fenced, start, lines = False, 0, []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        bare = line.strip()
        if bare.startswith(("```", "~~~", ":::")):
            fenced = not fenced if not bare.startswith(":::") else fenced
            bare = ""
        ends = not bare or fenced or bare.startswith(("|", "#", "<", "{", "%"))
        if (ends or re.match(r"([-*+]|\d+\.) ", bare)) and lines:
            yield start, " ".join(lines)
            lines = []
        if not ends:
            start = start if lines else number
            lines.append(re.sub(r"^([-*+]|\d+\.) +|^> ", "", bare))


def docstring(text: str, first: int) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each paragraph and entry of a docstring."""
    start, lines = first, []
    for number, line in enumerate([*text.splitlines(), ""], start=first):
        bare = line.strip()
        code = bare.startswith((">>>", "...", "$ ", "python -m", "|", "KERAS_BACKEND"))
        ends = not bare or code or bool(_SECTION.match(bare))
        if (ends or _ENTRY.match(bare) or re.match(r"[-*] ", bare)) and lines:
            yield start, " ".join(lines)
            lines = []
        if not ends:
            start = start if lines else number
            lines.append(re.sub(r"^[-*] +", "", bare))


def python(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each docstring paragraph and each comment."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(getattr(node, "body", None), list):
            continue
        for child in node.body:
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield from docstring(child.value.value, child.lineno)
    lines: list[str] = []
    start = previous = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or re.match(r"#!|# (noqa|type:|fmt:|ruff:)", token.string):
            continue
        own = not token.line[: token.start[1]].strip()
        if lines and not (own and token.start[0] == previous + 1):
            yield start, " ".join(lines)
            lines = []
        start, previous = (start if lines else token.start[0]), token.start[0]
        lines.append(re.sub(r"\s+(noqa|type:).*", "", token.string.lstrip("# ")))
        if not own:
            yield start, " ".join(lines)
            lines = []
    if lines:
        yield start, " ".join(lines)


def findings(path: Path) -> Iterator[str]:
    """Yield the findings in a file, one line each."""
    text = path.read_text(encoding="utf-8")
    name = path.resolve().relative_to(ROOT) if path.resolve().is_relative_to(ROOT) else path
    paragraphs = markdown(text) if path.suffix == ".md" else python(text)
    for number, paragraph in paragraphs:
        for sentence in sentences(paragraph):
            if (count := words(sentence)) > MOST_WORDS:
                yield f"{name}:{number}: a sentence of {count} words: {' '.join(sentence.split())[:70]}…"
            for phrase, instead in house_style():
                if found := phrase.search(sentence):
                    yield f"{name}:{number}: {found.group(0)!r}: {instead}"
    if path.suffix == ".md":
        fenced = False
        for number, line in enumerate(text.splitlines(), start=1):
            fenced ^= line.strip().startswith("```")
            if len(line) > MOST_CHARACTERS and not fenced and not line.lstrip().startswith(("|", "```", "[")):
                yield f"{name}:{number}: a line of {len(line)} characters"


def files() -> list[Path]:
    """The files to check by default."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [
        ROOT / name
        for name in listed
        if name.endswith(".md") or (name.endswith(".py") and name.split("/")[0] in PYTHON)
    ]


def main(names: list[str]) -> int:
    """Print the findings and return the exit status."""
    found = [line for path in ([Path(name) for name in names] or files()) if path.exists() for line in findings(path)]
    print("\n".join([*found, f"{len(found)} findings"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
