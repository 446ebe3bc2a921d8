"""The commands `data shard` and `data check`, which write and check TFRecord shards."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.cli import show
from keras_deepnets.cli.images import loading
from keras_deepnets.cli.problems import PROGRAM
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from keras_deepnets.data.shards import Index


def shard(
    source: str, out: Path, shards: int | None, split: str | None, *, seed: int, skip_broken: bool, as_json: bool
) -> None:
    """Write a data set as shards. Print a summary of the shards."""
    from keras_deepnets.data import shard_writing as work

    work.check_arguments(source, out, shards, split)  # report errors immediately, before TensorFlow is loaded
    with bar("reading the images", "writing", hidden=as_json) as report, loading(source):
        index = work.write(source, out, shards, split=split, seed=seed, skip_broken=skip_broken, report=report)
    if as_json:
        show.print_json({"out": str(out), **_facts(index)})
        return
    _print(index, out)
    print(f"Next:\n  {PROGRAM} train resnet20 {out}")


def check(folder: Path, *, as_json: bool) -> None:
    """Compare shards with their digests. Print a summary of the shards."""
    from keras_deepnets.data import shards as work

    if not work.is_shards(folder):
        raise InputError(f"{folder} holds no TFRecord shards; write them with `{PROGRAM} data shard DATA OUT`.")
    with bar("checking", "checking", hidden=as_json) as report:
        index = work.verify(folder, report)
    if as_json:
        show.print_json({"folder": str(folder), **_facts(index)})
    else:
        _print(index, folder)


def _facts(index: Index) -> dict[str, object]:
    """The index without the list of files."""
    splits = {
        name: {
            "examples": split.examples,
            "shards": len(split.shards),
            "bytes": sum(shard.bytes for shard in split.shards),
            "per_class": dict(zip(index.labels, split.class_counts, strict=True)),
        }
        for name, split in index.splits.items()
    }
    return dataclasses.asdict(index) | {"labels": list(index.labels), "skipped": list(index.skipped), "splits": splits}


def _print(index: Index, folder: Path) -> None:
    skipped = f", {len(index.skipped):,} skipped as broken" if index.skipped else ""
    print(f"{folder}: {index.source}, {len(index.labels):,} classes{skipped}")
    rows = []
    for name, split in index.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        rows.append((name, f"{split.examples:,}", str(len(split.shards)), show.bytes_text(size)))
    show.print_table(("split", "images", "shards", "size"), rows, right=("images", "shards", "size"))


@contextlib.contextmanager
def bar(before: str, doing: str, hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that updates a progress bar at a terminal, or None elsewhere."""
    console = show.console()
    if hidden or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=4, expand=True) as progress:
        task = progress.add_task(before, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total, description=doing)
