"""Write ``keras_deepnets/families/counts.json``: parameters and multiply-adds of every network.

python -m tools.count_networks
"""

import json

import keras

from keras_deepnets import facts, registry
from keras_deepnets.families.counts import PATH


def main() -> None:
    """Count every network."""
    counts = {}
    for name in (name for task in registry.TASKS for name in registry.list_models(task=task)):
        counts[name] = facts.count(name)
        keras.backend.clear_session()
        print(name, counts[name], flush=True)
    PATH.write_text(json.dumps(counts, indent=0) + "\n")


if __name__ == "__main__":
    main()
