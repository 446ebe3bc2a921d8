"""The commands `plot`, `report`, `compare` and `tables`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from keras_deepnets.cli import show
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError


def plot(
    targets: Sequence[str],
    kind: str,
    out: Path | None,
    *,
    data: str | None,
    split: str | None,
    images: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Draw a picture and print its path."""
    from keras_deepnets import reports

    if kind not in reports.KINDS:
        raise InputError(f"Unknown picture {kind!r}. The kinds: {', '.join(reports.KINDS)}.")
    if kind != "curves":
        load_tensorflow()
    with show.steps(quiet=as_json) as say, native_output_held_back():
        path = reports.plot(list(targets), kind, out, data=data, split=split, images=images, seed=seed, say=say)
    if as_json:
        show.print_json({"kind": kind, "picture": str(path)})
        return
    print(f"{path}: {reports.KINDS[kind].shows}")


def report(
    run: Path,
    out: Path | None,
    *,
    data: str | None,
    split: str | None,
    limit: int | None,
    exports: Sequence[Path],
    as_json: bool,
) -> None:
    """Write a report and print its path."""
    from keras_deepnets import reports

    if not reports.is_study(run):
        reports.read_run(run)  # a wrong folder is reported before TensorFlow is loaded
        load_tensorflow()
    with show.steps(quiet=as_json) as say, native_output_held_back():
        path = reports.report(run, out, data=data, split=split, limit=limit, exports=exports, say=say)
    if as_json:
        show.print_json({"run": str(run), "report": str(path), "bytes": path.stat().st_size})
        return
    print(f"{path}  {show.bytes_text(path.stat().st_size)}")


def compare(runs: Sequence[Path], out: Path, *, as_json: bool) -> None:
    """Print a table of runs and draw their curves."""
    from keras_deepnets import reports

    for run in runs:
        reports.read_run(run)
    load_tensorflow()
    found = reports.compare(runs, out)
    if as_json:
        show.print_json({"runs": list(found.rows), "picture": str(found.picture)})
        return
    heading, rows = found.table()
    show.print_table(heading, rows, right=heading[4:])
    print(f"Curves: {found.picture}")


def tables(names: Sequence[str], runs: Path | None, out: Path | None, *, as_json: bool) -> None:
    """Print the papers' tables as Markdown or JSON, or write them to a file."""
    from keras_deepnets import reports
    from keras_deepnets.files import write_errors, written_aside

    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"--out {out}: {'is a folder' if out.is_dir() else 'its folder does not exist'}; name a file.")
    load_tensorflow()
    found = reports.tables(names, runs)
    text = "\n".join(table.markdown() for table in found)
    if out is not None:
        with write_errors(out), written_aside(out) as aside:
            aside.write_text(text, encoding="utf-8")
    if as_json:
        show.print_json([dataclasses.asdict(table) for table in found])
    elif out is not None:
        print(f"{out}: {len(found)} table{'s' if len(found) != 1 else ''}")
    else:
        print(text, end="")
