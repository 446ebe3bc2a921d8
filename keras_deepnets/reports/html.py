"""One HTML page without anything from outside: pictures are embedded, and no script runs."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_SHARPNESS = 1.5  # pixels of a picture for one on the screen
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: #222; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
p { margin: .5rem 0; max-width: 45rem; }
.faint { color: #555; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.numbers div { background: #f3f6f9; border-radius: .4rem; padding: .6rem .8rem; }
.numbers b { display: block; font-size: 1.3rem; line-height: 1.3; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-size: .92rem; overflow-wrap: normal; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
th { color: #555; font-weight: 600; }
.right { text-align: right; font-variant-numeric: tabular-nums; }
td.text { overflow-wrap: anywhere; min-width: 5rem; }
img { max-width: 100%; height: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .8rem; }
figure { margin: 0; }
.grid img { width: 49%; image-rendering: auto; }
figcaption { font-size: .88rem; line-height: 1.35; }
.wrong { color: #b34700; }
pre { background: #f3f6f9; padding: .7rem; border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .86rem; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def escape(text: object) -> str:
    """Return a text for HTML."""
    return html.escape(str(text))


class Page:
    """A page that grows section by section.

    Args:
        title: Title of the page.
        about: A sentence below the title.
    """

    def __init__(self, title: str, about: str = ""):
        self._title = title
        self._parts = [f"<h1>{escape(title)}</h1>"]
        if about:
            self._parts.append(f'<p class="faint">{escape(about)}</p>')

    def section(self, title: str) -> None:
        """Begin a section."""
        self._parts.append(f"<h2>{escape(title)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add a command line."""
        self._parts.append(f"<pre>{escape(text)}</pre>")

    def numbers(self, values: Iterable[tuple[str, str]]) -> None:
        """Add the most important numbers, as pairs of meaning and value."""
        cells = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in values)
        self._parts.append(f'<div class="numbers">{cells}</div>')

    def table(self, rows: Sequence[Sequence[object]], heading: Sequence[str] = (), right: Iterable[int] = ()) -> None:
        """Add a table.

        Args:
            rows: The cells.
            heading: Names of the columns; without them, the first column has the names of the rows.
            right: Columns that are aligned at the right.
        """
        to_right = set(right)

        def cell(tag: str, at: int, value: object) -> str:
            kind = "right" if at in to_right else "text"
            return f'<{tag} class="{kind}">{escape(value)}</{tag}>'

        lines = []
        if heading:
            lines.append("".join(cell("th", at, name) for at, name in enumerate(heading)))
        for row in rows:
            tags = ["td" if heading or at else "th" for at in range(len(row))]
            lines.append("".join(cell(tag, at, value) for at, (tag, value) in enumerate(zip(tags, row, strict=True))))
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        self._parts.append(f'<div class="wide"><table>{body}</table></div>')

    def picture(self, file: Path, says: str) -> None:
        """Embed a picture file; `says` describes it for those who do not see it."""
        kind = {".svg": "svg+xml", ".jpg": "jpeg"}.get(file.suffix, file.suffix.removeprefix("."))
        width = None
        if kind == "png":
            from PIL import Image

            with Image.open(file) as picture:
                width = round(picture.width / _SHARPNESS)
        self._parts.append(f"<div>{_img(file.read_bytes(), kind, says, width)}</div>")

    def figures(self, cells: Iterable[tuple[Sequence[np.ndarray], str, bool]]) -> None:
        """Add small images side by side.

        Args:
            cells: For each figure, its images uint8 ``[h, w, 1 or 3]``, its caption, and whether it shows an error.
        """
        found = []
        for images, caption, wrong in cells:
            shown = " ".join(_img(_encoded(image), "png", caption) for image in images)
            mark = ' class="wrong"' if wrong else ""
            found.append(f"<figure>{shown}<figcaption{mark}>{escape(caption)}</figcaption></figure>")
        self._parts.append(f'<div class="grid">{"".join(found)}</div>')

    def __str__(self) -> str:
        """The whole document."""
        body = "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
        )


def _img(content: bytes, kind: str, says: str, width: int | None = None) -> str:
    data = base64.b64encode(content).decode("ascii")
    size = "" if width is None else f' width="{width}"'
    return f'<img alt="{escape(says)}"{size} src="data:image/{kind};base64,{data}">'


def _encoded(image: np.ndarray) -> bytes:
    """Return an image as PNG. Small images are enlarged by a whole factor, so that their pixels stay sharp."""
    import numpy as np
    from PIL import Image

    shown = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    factor = max(1, 128 // max(shown.size))
    shown = shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    shown.save(stream, "PNG", optimize=True)
    return stream.getvalue()
