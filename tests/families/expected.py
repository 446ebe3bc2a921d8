"""The papers' and the reference implementations' numbers, typed once, from outside the library."""

PARAMETERS = {
    # He et al. 2015, as torchvision (1×1 downsampling changes nothing) and the CIFAR code count them
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
    # plain twins: ImageNet loses the projections of three stages, CIFAR (shortcut A) nothing
    "plainnet18": 11_689_512 - (64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)),
    "plainnet34": 21_797_672 - (64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)),
    "plainnet20": 269_722,
    "plainnet32": 464_154,
    "plainnet44": 658_586,
    "plainnet56": 853_018,
    "plainnet110": 1_727_962,
}

FLOPS = {
    # He et al. 2015, Table 1
    "resnet18": 1.8e9,
    "resnet34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
}
