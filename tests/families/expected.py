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
    # Huang et al. 2016: torchvision and the authors' code; Table 2's digits for the networks without compression
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "densenet40_12": 1_019_722,
    "densenet100_12": 6_979_642,
    "densenet100_24": 27_249_082,
    "densenetbc100_12": 769_162,
    "densenetbc250_24": 15_324_406,
    "densenetbc190_40": 25_624_430,
    # Romero et al. 2014, Table 5 (250K, 862K, 1.6M, 2.5M) within 5 %
    "fitnet1": 251_194,
    "fitnet2": 864_122,
    "fitnet3": 1_572_474,
    "fitnet4": 2_548_602,
    # Srivastava et al. 2015, Table 1 (236K, 2.3M, 1.4M, 1.25M) within 5 %; the fully connected ones by formula
    "highway1": 236_328,
    "highway2": 2_277_688,
    "highway3": 1_375_208,
    "highway4": 1_280_552,
    "highwaymlp10": 85_660,
    "highwaymlp20": 136_660,
    "highwaymlp50": 289_660,
    "highwaymlp100": 544_660,
    "plainmlp10": 102_463,
    "plainmlp20": 153_583,
    "plainmlp50": 306_943,
    "plainmlp100": 562_543,
    # Simonyan & Zisserman 2014, Table 2 (133M, 133M, 134M, 138M, 144M); torchvision counts the same
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg16c": 133_638_952,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    # Szegedy et al. 2014 by formula; torchvision's network has batch normalisation and 6,624,904
    "googlenet": 6_998_552,
    # Ioffe & Szegedy 2015: Cadene's and pytorchcv's code
    "bninception": 11_295_240,
    # The authors' definitions and tables, by formula; NIN: pytorchcv's documentation too
    "nin": 966_986,
    "dsn": 966_986,
    "allcnn_a": 1_254_250,
    "allcnn_b": 1_300_618,
    "allcnn_c": 1_369_738,
    # Larsson et al. 2016: pytorchcv's code
    "fractalnet21": 33_724_618,
    # Goodfellow et al. 2013: the authors' cifar10.yaml by formula
    "maxoutcnn": 16_247_830,
    # He et al. 2015, Table 3, by formula: kernels and biases, and a slope per channel and hidden unit
    "preluneta": 178_017_384 + 14_688,
    "prelunetb": 183_327_080 + 15_968,
    "prelunetc": 330_603_368 + 20_576,
}

FLOPS = {
    # He et al. 2015, Table 1
    "resnet18": 1.8e9,
    "resnet34": 3.6e9,
    "resnet50": 3.8e9,
    "resnet101": 7.6e9,
    "resnet152": 11.3e9,
    # Romero et al. 2014, Table 5
    "fitnet1": 30e6,
    "fitnet2": 108e6,
    "fitnet3": 392e6,
    "fitnet4": 382e6,
    # torchvision's documentation; He et al. 2015, section 3.3: "VGG-19 (19.6 billion FLOPs)"
    "vgg11": 7.61e9,
    "vgg13": 11.31e9,
    "vgg16": 15.47e9,
    "vgg19": 19.63e9,
    "vgg16_bn": 15.47e9,
    # pytorchcv's documentation (2,048.06M), which counts batch normalisation and pooling too
    "bninception": 2.048e9,
    # He et al. 2015, Table 3
    "preluneta": 1.90e10,
    "prelunetb": 2.32e10,
    "prelunetc": 5.30e10,
}
