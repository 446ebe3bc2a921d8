"""Parameters and multiply-adds of every variant, so that they can be listed without building a network.

`facts.json` is computed from the models, never typed: ``python -m keras_deepnets.families.facts`` writes it, a test compares it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

PATH = Path(__file__).with_name("facts.json")


@functools.cache
def recorded() -> dict[str, dict[str, int]]:
    """Constructor name to ``{"parameters": …, "flops": …}``."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def compute(name: str) -> dict[str, int]:
    """Trainable parameters and multiply-adds of one image, from the model itself."""
    import keras

    from keras_deepnets import models, registry

    model = registry.create_model(name)
    counts = {"parameters": models.trainable_parameters(model), "flops": models.multiply_adds(model)}
    keras.backend.clear_session()
    return counts


def main() -> None:
    """Writes the facts of every variant."""
    from keras_deepnets import registry

    facts = {}
    for name in registry.list_models():
        facts[name] = compute(name)
        print(name, facts[name], flush=True)
    PATH.write_text(json.dumps(facts, indent=0) + "\n")


if __name__ == "__main__":
    main()
