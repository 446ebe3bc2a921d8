"""The `download` command, which fetches published weights. It loads neither TensorFlow nor Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_deepnets.cli import show
from keras_deepnets.errors import InputError
from keras_deepnets.weights import cards, download
from keras_deepnets.weights.cards import Card, networks


def download_weights(names: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    """Download weights into the cache folder and print the paths. With `dry_run`, only print what would be downloaded.

    Raises:
        InputError: A name matches no weights; nothing is downloaded then. Or a download fails; the other files are still tried.
    """
    found = list({(card.constructor, card.name): card for card in map(card_of, names)}.values())
    problems: list[str] = []
    if not dry_run:
        for card in found:
            try:
                cards.fetched(card)
            except InputError as error:
                problems.append(str(error))
    rows = [_row(card) for card in found]
    if as_json and not problems:
        show.print_json(rows)
    elif not as_json and len(problems) < len(found):
        _print(rows, dry_run)
    if problems:
        more = f" {len(problems) - 1} more of {len(found)} files failed." if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")


def card_of(name: str) -> Card:
    """Return the card for a name of the form ``network``, ``source/tag`` or ``network:source/tag``.

    Raises:
        InputError: No card has this name, or several networks have weights of this name.
    """
    network, colon, weights = name.partition(":")
    if not colon and cards.is_name(name):
        if name == cards.DEFAULT:
            raise InputError(f"{name!r} means the default weights of a network; name the network, e.g. resnet50.")
        return cards.only(name, None)
    return cards.card(networks.named(network)[0], weights if colon else cards.DEFAULT)


def _row(card: Card) -> dict[str, Any]:
    size = card.path.stat().st_size if card.path.is_file() else None
    values = {"network": card.constructor, "weights": card.name, "url": card.url, "path": str(card.path)}
    return values | {"bytes": size, "there": size is not None, "checksum": card.checksum, "licence": card.licence}


def _print(rows: Sequence[dict[str, Any]], dry_run: bool) -> None:
    columns: tuple[str, ...]
    cells: list[tuple[str, ...]]
    if dry_run:
        columns = ("weights", "size", "url", "path")
        cells = [(_name(row), _size(row, "not here yet"), row["url"], row["path"]) for row in rows]
    else:
        columns = ("weights", "size", "file")
        cells = [(_name(row), _size(row, "failed"), row["path"] if row["there"] else "–") for row in rows]
    show.print_table(columns, cells, right=("size",))
    print(f"Cache folder (you can copy it to other machines): {download.cache_folder()}")


def _name(row: dict[str, Any]) -> str:
    builder = row["network"] in networks.BUILDERS
    return f"{row['network'] if builder else row['network'].lower()}:{row['weights']}"


def _size(row: dict[str, Any], otherwise: str) -> str:
    return otherwise if row["bytes"] is None else show.bytes_text(row["bytes"])
