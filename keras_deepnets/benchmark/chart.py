"""Bar chart of a benchmark."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.benchmark.load import is_noise
from keras_deepnets.benchmark.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe palette (Wong, Nature Methods 8, 441, 2011). This library has the strongest colour.
_OURS = "#0072b2"
_PEERS = ("#e69f00", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#999999")
_GREY = "#555555"
_COLUMNS = 2

Pair = list[Result]


def draw_bars(results: Sequence[Result], path: Path, subtitle: str = "") -> Path:
    """Draw images per second: one panel per network and mode, one group of bars per precision, batch size and peer.

    The number above a pair is the relative speed of this library. Hatched bars mark measurements on a busy machine.
    """
    figure(results, subtitle).savefig(path, dpi=150, facecolor="white")
    return path


def figure(results: Sequence[Result], subtitle: str = "") -> Figure:
    """The figure of `draw_bars`."""
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str, int], list[Pair]] = {}
    for pair in _pairs(results):
        panels.setdefault((pair[0].model, pair[0].mode, pair[0].image_size), []).append(pair)
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    groups = max(len(pairs) for pairs in panels.values())
    drawing = Figure(figsize=(columns * max(4.2, 1.1 + 1.15 * groups), 3.9 * rows + 0.7), layout="constrained")
    axes = drawing.subplots(rows, columns, squeeze=False)
    colours = _colours(results)
    for panel, (key, pairs) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(panel, key, pairs, colours)
    for panel in list(axes.flat)[len(panels) :]:
        panel.set_visible(False)
    handles = {
        label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    drawing.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=min(len(handles), 4), frameon=False
    )
    if any(is_noise(result.others_busy, result.threads) for result in results):
        subtitle = f"Hatched: measured while other processes kept the machine busy. {subtitle}"
    if subtitle:
        characters = int(drawing.get_figwidth() * 15)  # characters per line at this font size
        drawing.supxlabel("\n".join(textwrap.wrap(subtitle, characters)), fontsize=8, color=_GREY)
    return drawing


def _pairs(results: Sequence[Result]) -> list[Pair]:
    """Group the results by pair. A group has one result if this library's network ran alone."""
    pairs: list[Pair] = []
    for result in results:
        if pairs and len(pairs[-1]) == 1 and result.side == result.against == pairs[-1][0].against:
            pairs[-1].append(result)
        else:
            pairs.append([result])
    return pairs


def _colours(results: Sequence[Result]) -> dict[str, str]:
    peers = dict.fromkeys(result.side for result in results if result.side == result.against)
    return {peer: _PEERS[number % len(_PEERS)] for number, peer in enumerate(peers)}


def _draw_panel(panel: Axes, key: tuple[str, str, int], pairs: list[Pair], colours: dict[str, str]) -> None:
    width = 0.4
    top = max(result.images_per_second for pair in pairs for result in pair)
    for place, pair in enumerate(pairs):
        for number, result in enumerate(pair):
            x = place + width * (number - (len(pair) - 1) / 2)
            own = number == 0
            panel.bar(
                x,
                result.images_per_second,
                width * 0.94,
                color=_OURS if own else colours[result.side],
                hatch="///" if is_noise(result.others_busy, result.threads) else None,
                edgecolor=(1.0, 1.0, 1.0, 0.45),
                linewidth=0,
                label=result.side if own else _legend(result),
                zorder=2,
            )
            # The bar's number goes inside the bar if there is room.
            inside = result.images_per_second > 0.12 * top
            panel.annotate(
                _number(result.images_per_second),
                (x, result.images_per_second),
                (0, -4 if inside else 3),
                textcoords="offset points",
                ha="center",
                va="top" if inside else "bottom",
                fontsize=8,
                color="white" if inside else _GREY,
                fontweight="bold" if inside else "normal",
                zorder=3,
            )
        first = pair[0]
        if first.ratio is not None:
            highest = max(result.images_per_second for result in pair)
            panel.annotate(
                f"{first.ratio:.2f}×",
                (place, highest),
                (0, 5 if first.images_per_second > 0.12 * top else 14),
                textcoords="offset points",
                ha="center",
                fontsize=10,
                fontweight="bold",
                color="black",
            )
    panel.set_xticks(range(len(pairs)), [f"{pair[0].dtype}\nbatch {pair[0].batch}" for pair in pairs], fontsize=8)
    panel.set_xlim(-0.6, len(pairs) - 0.4)
    panel.set_ylim(0, 1.16 * top)
    panel.set_ylabel("images per second")
    model, mode, size = key
    panel.set_title(f"{model}, {_MODES[mode]}, {size} × {size} pixels", fontsize=10, loc="left")
    panel.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    panel.spines[["top", "right"]].set_visible(False)


_MODES = {"train": "training", "inference": "inference", "export": "exported"}


def _legend(result: Result) -> str:
    return {"keras-twin": "stock Keras twin", "ours (default)": "ours, default"}.get(result.side, result.side)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
