"""A picture of a network: one box per group of equal blocks, with the shortcuts that bypass them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

_BLOCK = re.compile(r"(conv\d+_block\d+|conv\d+|pool\d+)(?:_|$)")
_COLOURS = {"input": "#e8e8e8", "stem": "#cfe3f5", "block": "#dcecd2", "transition": "#f7e7c6", "head": "#f3d6d6"}


@dataclass
class Box:
    """A group of equal blocks, or a part before or after them.

    Attributes:
        title: Name of the block, or of the first and last block of the group.
        kind: ``"input"``, ``"stem"``, ``"block"``, ``"transition"`` or ``"head"``.
        lines: Convolution, pooling and dense layers, as text.
        shape: Output shape without the batch dimension.
        parameters: Trainable parameters of the whole group.
        repeats: Number of blocks in the group.
        shortcut: None, ``"identity"``, ``"projection"`` (anything that changes the shape) or ``"concatenation"``.
    """

    title: str
    kind: str
    lines: tuple[str, ...]
    shape: tuple[int | None, ...]
    parameters: int
    repeats: int = 1
    shortcut: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Return a key that is equal for two neighbours that form one group.

        They have the same layers and the same shape. With concatenation, the channels may differ, because they grow.
        """
        grows = self.shortcut == "concatenation"
        return self.kind, self.lines, self.shape[:2] if grows else self.shape, self.shortcut


def boxes(model: keras.Model) -> list[Box]:
    """Return the boxes of a network, starting at the input.

    Layers are grouped by the names that the keras_deepnets constructors give them.
    """
    from keras_deepnets.models import layer_prefix

    groups: list[tuple[str, list[Any]]] = []
    prefix = layer_prefix(model)
    for layer in sorted(model.layers, key=_order(model)):
        own = layer.name.removeprefix(prefix)
        match = _BLOCK.match(own)
        name = match.group(1) if match else own
        for known, layers in groups:
            if known == name:
                layers.append(layer)
                break
        else:
            groups.append((name, [layer]))
    merged: list[Box] = []
    for name, layers in groups:
        box = _box(name, layers)
        if box is None:
            continue
        if merged and box.kind == "block" and merged[-1].key == box.key:
            last = merged[-1]
            first = last.title.split(" … ")[0]
            merged[-1] = Box(
                f"{first} … {name}",
                box.kind,
                box.lines,
                box.shape,
                last.parameters + box.parameters,
                last.repeats + 1,
                box.shortcut,
            )
        else:
            merged.append(box)
    return merged


def _order(model: keras.Model) -> Any:
    places = {layer.name: place for place, layer in enumerate(model.layers)}
    return lambda layer: places[layer.name]


def _box(name: str, layers: list[Any]) -> Box | None:
    kinds = [type(layer).__name__ for layer in layers]
    lines = [text for layer, kind in zip(layers, kinds, strict=True) if (text := _line(layer, kind))]
    shape = tuple(layers[-1].output.shape[1:])
    parameters = sum(math.prod(weight.shape) for layer in layers for weight in layer.trainable_weights)
    if kinds == ["InputLayer"]:
        return Box("input", "input", (), shape, 0)
    if not lines and parameters:
        lines = ["BN, ReLU"]  # in front of the head of a pre-activation network
    if not lines:
        return None
    shortcut = None
    if "Concatenate" in kinds:
        shortcut = "concatenation"
    elif "Add" in kinds:
        changes = any(layer.name.endswith(("_0_conv", "_0_pad")) for layer in layers)
        shortcut = "projection" if changes else "identity"
    if "_block" in name:
        kind = "block"
    elif name.startswith("pool") and any("conv" in layer.name for layer in layers):
        kind = "transition"
    else:
        kind = "stem" if name.startswith(("conv", "pool")) else "head"
    return Box(name, kind, tuple(lines), shape, parameters, shortcut=shortcut)


def _line(layer: Any, kind: str) -> str:
    if kind == "Conv2D":
        if layer.name.endswith("_0_conv"):
            return ""
        text = f"{'×'.join(map(str, layer.kernel_size))} conv, {layer.filters}"
        text += f", groups {layer.groups}" if layer.groups > 1 else ""
        return text + (f", /{layer.strides[0]}" if layer.strides[0] > 1 else "")
    if kind == "Dense":
        return f"fully connected, {layer.units}"
    if "Pooling" in kind:
        if kind.startswith("Global"):
            return f"global {'average' if 'Average' in kind else 'max'} pool"
        sort = "average" if "Average" in kind else "max"
        if kind.startswith("Adaptive"):
            return f"{sort} pool to {layer.size}×{layer.size}"
        if kind == "SpatialPyramidPooling":
            return f"max pool to {', '.join(f'{level}×{level}' for level in layer.levels)}"
        return f"{'×'.join(map(str, layer.pool_size))} {sort} pool, /{layer.strides[0]}"
    return ""


def draw_network(model: keras.Model, path: str | Path) -> Path:
    """Draw a network as a PNG, SVG or PDF.

    Args:
        model: A keras_deepnets network. Other models are drawn with one box per layer.
        path: Path of the picture. The suffix selects the format.

    Returns:
        The path.

    Raises:
        ValueError: The suffix is wrong, or the picture cannot be written.
    """
    path = figures.check_path(path)
    return figures.write(path, lambda letters: _figure(model), [model.name])


def _figure(model: keras.Model) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    from keras_deepnets.models import trainable_parameters

    rows = boxes(model)
    heights = [0.42 + 0.2 * max(len(row.lines), 1) for row in rows]
    gap, width = 0.28, 4.2
    total = sum(heights) + gap * (len(rows) - 1)
    figure = Figure(figsize=(7.6, total + 1.0))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-2.9, 4.7)
    axes.set_ylim(-0.4, total + 0.6)
    axes.axis("off")
    title = f"{model.name}: {trainable_parameters(model):,} parameters"
    axes.text(0, total + 0.3, title, ha="center", size=12, weight="bold")
    top = total
    for place, (row, height) in enumerate(zip(rows, heights, strict=True)):
        bottom = top - height
        style = "round,pad=0,rounding_size=0.06"
        colour = _COLOURS[row.kind]
        for back in range(min(row.repeats, 3) - 1, -1, -1):  # a group is drawn as a small stack
            corner = (-width / 2 + 0.05 * back, bottom - 0.05 * back)
            axes.add_patch(FancyBboxPatch(corner, width, height, style, fc=colour, ec="#555555", lw=0.8))
        times = f"   × {row.repeats}" if row.repeats > 1 else ""
        axes.text(0, top - 0.2, row.title + times, ha="center", va="center", size=9, weight="bold")
        for number, line in enumerate(row.lines):
            axes.text(0, top - 0.42 - 0.2 * number, line, ha="center", va="center", size=8.5)
        size = "×".join("?" if side is None else str(side) for side in row.shape)
        axes.text(width / 2 + 0.75, (top + bottom) / 2 + 0.1, size, va="center", size=8.5)
        if row.parameters:
            label = f"{row.parameters:,}"
            axes.text(width / 2 + 0.75, (top + bottom) / 2 - 0.1, label, va="center", size=7.5, color="#666666")
        if row.shortcut:
            dashed = "--" if row.shortcut == "projection" else "-"
            colour = "#b5651d" if row.shortcut == "concatenation" else "#2a6fb0"
            arc = FancyArrowPatch(
                (width / 2, top - 0.06),
                (width / 2, bottom + 0.06),
                connectionstyle="arc3,rad=-0.55",
                arrowstyle="-|>",
                mutation_scale=8,
                linestyle=dashed,
                color=colour,
                lw=1.2,
            )
            axes.add_patch(arc)
        if place < len(rows) - 1:
            arrow = FancyArrowPatch((0, bottom), (0, bottom - gap), arrowstyle="-|>", mutation_scale=9, color="#555555")
            axes.add_patch(arrow)
        top = bottom - gap
    legend = (
        "shortcuts: solid = identity, dashed = changes the shape, brown = concatenation;  right: output, parameters"
    )
    axes.text(0, -0.25, legend, ha="center", size=7.5, color="#666666")
    return figure
