"""Our networks with the peers' weights against their golden outputs.

``python -m tests.golden.compare ['*resnet50*' …]`` prints a table: peer, ours, largest difference at every size.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from typing import TYPE_CHECKING

import numpy as np

import keras_deepnets
from keras_deepnets.weights.names import weights_by_name
from tests.golden import store
from tests.golden.cases import CASES, CLASSES, Case
from tests.golden.deterministic import difference, digest, golden_input, summary

if TYPE_CHECKING:
    import keras

TOLERANCE = 1e-4


def build(case: Case, height: int | None = None, width: int | None = None) -> keras.Model:
    """Our network with logits, for images of a size or, without one, of any size."""
    constructor = getattr(keras_deepnets, case.ours)
    return constructor(classes=CLASSES, input_shape=(height, width, 3), classifier_activation=None, **case.options)


def fill(case: Case, model: keras.Model) -> str:
    """Gives `model` the golden weights by way of the peer's tensors; their digest."""
    naming, tensors = case.style.naming, {}
    for ours, weight in weights_by_name(model).items():
        name = naming.theirs(ours)
        tensors[name] = case.golden_weights(name, naming.their_shape(tuple(weight.shape), ours.rpartition("/")[0]))
    found = digest((name, tensor.shape) for name, tensor in tensors.items())
    report = keras_deepnets.load_weights(model, tensors)
    assert (report.naming, report.complete) == (naming.name, True)
    return found


def layers_compared(case: Case, model: keras.Model) -> list[str]:
    """Our layer for every point of comparison."""
    names = [layer.name for layer in model.layers]
    found = []
    for _, template in case.style.points.values():
        pattern = re.compile(re.escape(template).replace(r"\{last\}", r"(\d+)"))
        matches = [match for match in map(pattern.fullmatch, names) if match]
        found.append(max(matches, key=lambda match: int((match.groups() or "0")[0])).string)
    return found


def outputs(case: Case, model: keras.Model, height: int, width: int) -> np.ndarray:
    """The summaries ``[point, number]`` of the golden image of that size."""
    import keras

    from keras_deepnets.models import deep_graphs

    with deep_graphs():
        features = keras.Model(model.input, [model.get_layer(name).output for name in layers_compared(case, model)])
        values = features(golden_input(height, width), training=False)
    return np.array([summary(keras.ops.convert_to_numpy(value)) for value in values])


def differences(case: Case, model: keras.Model, size: tuple[int, int]) -> dict[str, float]:
    """Point of comparison to the largest difference there, relative to the largest number of the peer's tensor."""
    golden = store.load()[case.peer].summaries[case.style.sizes.index(size)]
    ours = outputs(case, model, *size)
    return {
        point: difference(*pair) for point, pair in zip(case.style.points, zip(ours, golden, strict=True), strict=True)
    }


def main(patterns: list[str]) -> None:
    """Prints the table for the peers that match any of `patterns`, or for all."""
    for case in CASES:
        if patterns and not any(fnmatch.fnmatchcase(case.peer, pattern) for pattern in patterns):
            continue
        model = build(case)
        complete = fill(case, model) == store.load()[case.peer].digest
        cells = []
        for size in case.style.sizes:
            found = differences(case, model, size)
            worst = max(found, key=lambda point: found[point])
            cells.append(f"{size[0]}×{size[1]} {found[worst]:.1e} ({worst})")
        bad = "" if complete else "  TENSORS DIFFER"
        print(f"| {case.peer} | {case.ours} | {' | '.join(cells)} |{bad}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
