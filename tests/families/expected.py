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
    # He et al. 2016: timm's resnetv2; the CIFAR networks with projections where dimensions grow
    "resnet18v2": 11_687_720,
    "resnet34v2": 21_795_880,
    "resnet50v2": 25_549_352,
    "resnet101v2": 44_541_480,
    "resnet152v2": 60_185_128,
    "resnet200v2": 64_666_152,
    "preactresnet110": 1_730_522,
    "preactresnet164": 1_703_258,
    "preactresnet1001": 10_327_706,
    # Huang et al. 2016: the residual networks of 2015
    "stochasticdepthresnet110": 1_727_962,
    "stochasticdepthresnet1202": 19_421_274,
    # Zagoruyko & Komodakis 2016: the authors' code (2.7M, 11.0M, 36.5M, 8.9M in Table 4) and torchvision
    "wideresnet16_4": 2_748_890,
    "wideresnet16_8": 10_961_370,
    "wideresnet28_10": 36_479_194,
    "wideresnet40_4": 8_949_210,
    "wideresnet50_2": 68_883_240,
    "wideresnet101_2": 126_886_696,
    # Xie et al. 2016: torchvision, timm, pytorchcv; the two widened networks by the formula of section 3.1
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "resnext101_2x64d": 84_198_184,
    "resnet101_1x100d": 85_611_336,
    "resnext29_8x64d": 34_426_698,
    "resnext29_16x64d": 68_155_210,
}

FLOPS = {
    # He et al. 2015, Table 1
    "resnet18": 1.8e9,
    "resnet34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
}
