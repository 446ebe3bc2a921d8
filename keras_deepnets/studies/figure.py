"""The figure of a study: error over the epochs or over what varies, and the use of earlier features.

Training error is thin and test error is bold, as in He et al. 2015. Lines are means over seeds, bands and bars the spread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from keras_deepnets.insight import figures
from keras_deepnets.insight.figures import COLOURS, EMPTY, GREY, finish, write
from keras_deepnets.studies.definition import Drawing, Study
from keras_deepnets.studies.measures import MEASURES
from keras_deepnets.studies.published import published
from keras_deepnets.studies.results import Group, mean, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

_MARKERS = "osD^vP*X"
_TRAIN: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.0, "markersize": 4}
_TEST: dict[str, Any] = {"linestyle": "-", "linewidth": 2.4, "markersize": 6}
_DOTS: dict[str, Any] = {"linestyle": "none"}
_PANEL, _LEGEND, _HEIGHT = 3.6, 2.4, 3.3  # inches
_WIDEST = 3  # panels in a row


def draw(study: Study, groups: Sequence[Group], verdict: str, paths: Sequence[Path]) -> None:
    """Draw the figure of a study to files whose suffixes select the format."""
    texts = [study.title, study.source, *(str(value) for group in groups for value in group.labels.values())]
    for path in paths:
        write(path, lambda letters: _figure(study, groups, verdict, letters), texts)


def _figure(study: Study, groups: Sequence[Group], verdict: str, letters: figures.Letters) -> Figure:
    from matplotlib.figure import Figure

    rows = [(drawing, _panels(drawing, groups)) for drawing in study.figure]
    widest = max(len(panels) for _, panels in rows)
    figure = Figure(
        figsize=(max(_PANEL * min(widest, _WIDEST) + _LEGEND, 7.5), _HEIGHT * len(rows) + 0.7), layout="constrained"
    )
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (drawing, panels) in zip(parts, rows, strict=True):
        shared = drawing.draw != "feature_reuse"
        all_axes = part.subplots(1, len(panels), squeeze=False, sharey=shared)[0]
        {"curves": _curves, "points": _points, "feature_reuse": _maps}[drawing.draw](
            drawing, panels, list(all_axes), letters
        )
    heading = f"{letters(study.title)}\n{letters(study.source)}" if study.source else letters(study.title)
    figure.suptitle(
        f"{heading}{' – ' if study.source else chr(10)}the claim is {_said(verdict)}", fontsize=11, x=0.012, ha="left"
    )
    return figure


def _said(verdict: str) -> str:
    return {"shown": "shown", "not shown": "not shown"}.get(verdict, "contradicted")


def _panels(drawing: Drawing, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return the groups of each panel by its title."""
    if drawing.draw == "feature_reuse":
        blocks = dict.fromkeys(name for group in groups for result in group.results for name in result.maps)
        return {name: list(groups) for name in blocks} or {"": []}
    if drawing.panels is None:
        return {"": list(groups)}
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(f"{drawing.panels}: {group.labels[drawing.panels]}", []).append(group)
    return found


def _values(drawing: Drawing, groups: Sequence[Group]) -> list[Any]:
    """Return the values of the label that has a colour each. Numbers are sorted."""
    if drawing.groups is None:
        return [""]
    found = list(dict.fromkeys(group.labels[drawing.groups] for group in groups))
    return sorted(found) if all(isinstance(value, (int, float)) for value in found) else found


def _curves(
    drawing: Drawing, panels: Mapping[str, Sequence[Group]], all_axes: Sequence[Axes], letters: figures.Letters
) -> None:
    everything = [group for groups in panels.values() for group in groups]
    values = _values(drawing, everything)
    colours = _styles(values)
    for (title, groups), axes in zip(panels.items(), all_axes, strict=True):
        for group in groups:
            colour, _ = colours[group.labels[drawing.groups] if drawing.groups else ""]
            for name, style in (("train_error", _TRAIN), ("test_error", _TEST)):
                _curve(axes, group, name, colour, style)
        finish(axes, letters(title), "epoch", "error (%)" if axes is all_axes[0] else "")
        cast("MaxNLocator", axes.xaxis.get_major_locator()).set_params(integer=True, min_n_ticks=1)
    _legend(all_axes[-1], drawing, values, colours, letters, ("train_error", "test_error"), lines=True)


def _curve(axes: Axes, group: Group, name: str, colour: str, style: dict[str, Any]) -> None:
    columns = [result.curves[name] for result in group.results if name in result.curves]
    if not columns:
        return
    length = min(map(len, columns))
    epochs = group.results[0].curves["epoch"][:length]
    several = np.asarray([column[:length] for column in columns])
    middle = several.mean(axis=0)
    axes.plot(epochs, middle, color=colour, marker="o" if length == 1 else "", **style)
    if len(several) > 1:
        around = several.std(axis=0, ddof=1)
        shade = 0.15 if style is _TEST else 0.07
        axes.fill_between(epochs, middle - around, middle + around, color=colour, alpha=shade, linewidth=0)


def _points(
    drawing: Drawing, panels: Mapping[str, Sequence[Group]], all_axes: Sequence[Axes], letters: figures.Letters
) -> None:
    x = drawing.x or ""
    everything = [group for groups in panels.values() for group in groups]
    known = [published(name) for name in drawing.published]
    values = list(dict.fromkeys([*_values(drawing, everything), *(point.family for point in known)]))
    colours = _styles(values)
    places = _places(x, everything)
    for (title, groups), axes in zip(panels.items(), all_axes, strict=True):
        for point in known:
            colour, marker = colours[point.family]
            at = getattr(point, x) * MEASURES[x].factor
            axes.plot(
                [at], [point.test_error], marker=marker, markerfacecolor="white", color=colour, markersize=6, **_DOTS
            )
        for order, value in enumerate(values):
            members = [group for group in groups if drawing.groups is None or group.labels[drawing.groups] == value]
            shift = 0.12 * (order - (len(values) - 1) / 2) if _named(places) else None
            for name in drawing.y:
                train = MEASURES[name].images == "train"
                # The bars of the two errors stand side by side.
                aside = 0.04 if train and shift is not None else 0.0
                _line(
                    axes, members, x, name, places, (shift or 0.0) + aside, colours[value], _TRAIN if train else _TEST
                )
        _axes_of_points(axes, drawing, places, letters)
        across = MEASURES[x].label(axis=True) if x in MEASURES else x
        finish(axes, letters(title), across, _y_label(drawing) if axes is all_axes[0] else "", "both")
    _legend(all_axes[-1], drawing, values, colours, letters, drawing.y, lines=False)


def _places(x: str, groups: Sequence[Group]) -> dict[Any, float]:
    """Return the position of each value of a label on the horizontal axis; nothing for a measure."""
    if x in MEASURES:
        return {}
    found = list(dict.fromkeys(group.labels[x] for group in groups))
    if all(isinstance(value, (int, float)) for value in found):
        return {value: float(value) for value in sorted(found)}
    return {str(value): float(place) for place, value in enumerate(found)}


def _named(places: Mapping[Any, float]) -> bool:
    """Return whether the horizontal axis has names, and not numbers."""
    return any(isinstance(value, str) for value in places)


def _line(
    axes: Axes,
    groups: Sequence[Group],
    x: str,
    y: str,
    places: Mapping[Any, float],
    shift: float,
    look: tuple[str, str],
    style: dict[str, Any],
) -> None:
    """Draw the means of groups as a line with bars, or as separate points if the horizontal axis has names."""
    measure, (colour, marker) = MEASURES[y], look
    found = []
    for group in groups:
        values = group.values(y)
        if not values:
            continue
        if places:
            label = group.labels[x]
            at = places[label if label in places else str(label)] + shift
        else:
            at = mean(group.values(x)) * MEASURES[x].factor
        found.append((at, mean(values) * measure.factor, spread(values) * measure.factor))
    if not found:
        return
    across, middle, around = zip(*sorted(found), strict=True)
    look_of_line = style | (_DOTS if _named(places) else {})
    faces: dict[str, Any] = {"markerfacecolor": "white"} if measure.images == "train" else {}
    bars = around if any(around) else None
    axes.errorbar(
        across, middle, yerr=bars, color=colour, marker=marker, capsize=3, elinewidth=1, **faces, **look_of_line
    )


def _axes_of_points(axes: Axes, drawing: Drawing, places: Mapping[Any, float], letters: figures.Letters) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis in drawing.log:
        getattr(axes, f"set_{axis}scale")("log")
        scale = getattr(axes, f"{axis}axis")
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter(plain)
        scale.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    if places:
        names = [letters(str(value)) for value in places]
        # Long names stand below each other only if they are slanted.
        slanted = sum(map(len, names)) > 34
        axes.set_xticks(
            list(places.values()), names, rotation=25 if slanted else 0, ha="right" if slanted else "center"
        )
        if _named(places):
            axes.set_xlim(-0.5, len(places) - 0.5)
    if "y" not in drawing.log and all(MEASURES[name].unit == "%" for name in drawing.y):
        low, high = axes.get_ylim()
        axes.set_ylim(max(0, low), high)


def _y_label(drawing: Drawing) -> str:
    if set(drawing.y) == {"train_error", "test_error"}:
        return "error (%)"
    return " / ".join(dict.fromkeys(MEASURES[name].label(axis=True) for name in drawing.y))


def _styles(values: Sequence[Any]) -> dict[Any, tuple[str, str]]:
    """Return a colour and a marker for each value. With more values than colours, the markers tell them apart."""
    return {
        value: (COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]) for place, value in enumerate(values)
    }


def _legend(
    axes: Axes,
    drawing: Drawing,
    values: Sequence[Any],
    colours: Mapping[Any, tuple[str, str]],
    letters: figures.Letters,
    measures: Sequence[str],
    *,
    lines: bool,
) -> None:
    """Put the legend at the right of the axes, where it covers no line."""
    from matplotlib.lines import Line2D

    entries: list[Line2D] = []
    if drawing.groups is not None:
        for value in values:
            colour, marker = colours[value]
            name = f"{drawing.groups} {value}" if isinstance(value, (int, float)) else str(value)
            entries.append(
                Line2D(
                    [],
                    [],
                    color=colour,
                    marker="" if lines else marker,
                    linewidth=2.4 if lines else 0,
                    label=letters(name),
                )
            )
    if len(measures) > 1:
        for name in measures:
            train = MEASURES[name].images == "train"
            faces: dict[str, Any] = {"markerfacecolor": "white"} if train else {}
            style = {key: value for key, value in (_TRAIN if train else _TEST).items() if key != "markersize"}
            entries.append(
                Line2D(
                    [],
                    [],
                    color=GREY,
                    marker="" if lines else "o",
                    label=MEASURES[name].name,
                    markersize=5,
                    **faces,
                    **style,
                )
            )
    if drawing.published:
        entries += [
            Line2D([], [], color=GREY, marker="o", label="measured here", markersize=6, **_DOTS),
            Line2D([], [], color=GREY, marker="o", markerfacecolor="white", label="published", markersize=6, **_DOTS),
        ]
    if entries:
        axes.legend(
            handles=entries, frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0
        )


def _maps(
    drawing: Drawing, panels: Mapping[str, Sequence[Group]], all_axes: Sequence[Axes], letters: figures.Letters
) -> None:
    """Draw heat maps of the weights between the layers of each dense block: Huang et al. 2016, figure 5."""
    from matplotlib import colormaps

    picture = None
    for (title, groups), axes in zip(panels.items(), all_axes, strict=True):
        blocks = [result.maps[title] for group in groups for result in group.results if title in result.maps]
        if not blocks:
            continue
        shares = np.mean(
            [[[math.nan if cell is None else cell for cell in row] for row in block] for block in blocks], axis=0
        )
        drawn = np.ma.masked_invalid(shares[:, ~np.isnan(shares).all(axis=0)])
        side = len(shares)
        picture = axes.imshow(
            drawn, cmap=colormaps["cividis"].with_extremes(bad="white"), vmin=0, vmax=1, origin="upper", aspect="auto"
        )
        finish(axes, letters(title), "target layer ℓ", "source layer s" if axes is all_axes[0] else "", None)
        step = max(1, side // 6)
        axes.set_xticks(range(0, drawn.shape[1], step), [str(place + 1) for place in range(0, drawn.shape[1], step)])
        axes.set_yticks(range(0, side - 1, step))
        axes.set_ylim(side - 1.5, -0.5)
    if picture is not None:
        bar = all_axes[-1].figure.colorbar(picture, ax=list(all_axes), shrink=0.8, pad=0.02)
        bar.set_label("mean |weight|, largest of the layer = 1", color=GREY, fontsize=9)
        bar.outline.set_edgecolor(EMPTY)
        bar.ax.tick_params(colors=GREY, labelsize=8)
