"""Our networks with the peers' weights against their golden outputs.

``python -m tests.golden.compare ['*resnet50*' …]`` prints a table: peer, ours, largest difference at every size.
"""

from __future__ import annotations

import fnmatch
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.families import densenet, preact, resnet, resnext, wide_resnet
from keras_deepnets.weights.naming import our_array
from tests.golden import store
from tests.golden.cases import CASES, CLASSES, Case
from tests.golden.deterministic import difference, digest, golden_input, summary

if TYPE_CHECKING:
    import keras

FAMILIES = (resnet, preact, wide_resnet, resnext, densenet)
TOLERANCE = 1e-4


def build(case: Case, height: int | None = None, width: int | None = None) -> keras.Model:
    """Our network with logits, for images of a size or, without one, of any size."""
    constructor = next(getattr(module, case.ours) for module in FAMILIES if hasattr(module, case.ours))
    return constructor(classes=CLASSES, input_shape=(height, width, 3), classifier_activation=None, **case.options)


def weight_name(weight: Any) -> str:
    """``"conv1_conv/kernel"``: layer and what it is to it."""
    return "/".join(weight.path.split("/")[-2:])


def their_tensors(case: Case, model: keras.Model) -> dict[str, str]:
    """Weight of ours to the peer's tensor. Raises ValueError for one that has no name there or shares it."""
    names = {weight_name(weight): case.style.naming.theirs(weight_name(weight)) for weight in model.weights}
    lost = [ours for ours, theirs in names.items() if theirs is None or case.style.naming.ours(theirs) != ours]
    if lost or len(set(names.values())) < len(model.weights):
        raise ValueError(f"{case.peer}: no tensor of theirs is {lost}, or one is several of ours.")
    return {ours: str(theirs) for ours, theirs in names.items()}


def fill(case: Case, model: keras.Model) -> str:
    """Gives `model` the golden weights; the digest of the tensors that they were in the peer."""
    theirs = their_tensors(case, model)
    tensors = []
    for weight in model.weights:
        name, shape = theirs[weight_name(weight)], case.style.naming.their_shape(tuple(weight.shape))
        weight.assign(our_array(case.golden_weights(name, shape), len(weight.shape)))
        tensors.append((name, shape))
    return digest(tensors)


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
