"""The networks that the quick tests build."""

import keras_deepnets as kd


def representatives():
    """Names of the cheapest network of each family, without those that are expensive too, and of one for ImageNet."""
    cheapest = {}
    for info in map(kd.model_info, kd.list_models()):
        key = info.family
        if key not in cheapest or info.flops < cheapest[key].flops:
            cheapest[key] = info
    return ["resnet18", *(info.name for info in cheapest.values() if info.depth <= 60 and info.parameters < 1.1e7)]
