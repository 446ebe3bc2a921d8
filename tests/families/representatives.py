"""The networks that the quick tests build."""

import keras_deepnets as kd


def representatives():
    """Names of the cheapest network of each family for each kind of data, without those that are expensive too."""
    cheapest = {}
    for info in map(kd.model_info, kd.list_models()):
        key = info.family, info.dataset
        if key not in cheapest or info.depth < cheapest[key].depth:
            cheapest[key] = info
    return [info.name for info in cheapest.values() if info.depth <= 60 and info.parameters < 3e7 and info.flops < 5e9]
