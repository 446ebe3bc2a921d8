"""The tables of the papers: what they print, row by row, and which network of this library each row is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NONE = "–"


@dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table.

    Attributes:
        label: The method, as in the paper.
        figures: The paper's figures, one for each of the table's columns. `NONE` where it prints none.
        network: Name of the network of this library. None: it has none.
        options: Options of the network.
    """

    label: str
    figures: tuple[str, ...]
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        name: Short name.
        title: Title with the source.
        columns: Names of the paper's columns.
        datasets: TFDS names of the data sets of the table.
        rows: The rows.
        note: What to know when comparing.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    datasets: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    note: str = ""


def _row(text: str, network: str | None = None, **options: Any) -> PaperRow:
    """Read a row: the label and the figures, with bars between them."""
    label, *figures = (part.strip() for part in text.split("|"))
    return PaperRow(label, tuple(figures), network, options)


_UNITS = {
    "original": ("original, fig. 4(a)", "6.61", "5.93"),
    "bn_after_addition": ("BN after addition, fig. 4(b)", "8.17", "6.50"),
    "relu_before_addition": ("ReLU before addition, fig. 4(c)", "7.84", "6.14"),
    "relu_only_preactivation": ("ReLU-only pre-activation, fig. 4(d)", "6.71", "5.91"),
    "full_preactivation": ("full pre-activation, fig. 4(e)", "6.37", "5.46"),
}

_DENSENET = """
Network in Network                 | –    | –     | 10.41 | 8.81 | 35.68 | –     | 2.35 | nin
All-CNN                            | –    | –     | 9.08  | 7.25 | –     | 33.71 | –    | allcnn_c
Deeply Supervised Net              | –    | –     | 9.69  | 7.97 | –     | 34.57 | 1.92 | dsn
Highway Network                    | –    | –     | –     | 7.72 | –     | 32.39 | –    | highway2
FractalNet                         | 21   | 38.6M | 10.18 | 5.22 | 35.34 | 23.30 | 2.01 | fractalnet21
… with dropout and drop-path       | 21   | 38.6M | 7.33  | 4.60 | 28.20 | 23.73 | 1.87 | –
ResNet                             | 110  | 1.7M  | –     | 6.61 | –     | –     | –    | resnet110
ResNet, reported by Huang 2016     | 110  | 1.7M  | 13.63 | 6.41 | 44.74 | 27.22 | 2.01 | –
ResNet with stochastic depth       | 110  | 1.7M  | 11.66 | 5.23 | 37.80 | 24.58 | 1.75 | stochasticdepthresnet110
ResNet with stochastic depth       | 1202 | 10.2M | –     | 4.91 | –     | –     | –    | stochasticdepthresnet1202
Wide ResNet                        | 16   | 11.0M | –     | 4.81 | –     | 22.07 | –    | wideresnet16_8
Wide ResNet                        | 28   | 36.5M | –     | 4.17 | –     | 20.50 | –    | wideresnet28_10
Wide ResNet with dropout           | 16   | 2.7M  | –     | –    | –     | –     | 1.64 | wideresnet16_4
ResNet (pre-activation)            | 164  | 1.7M  | 11.26 | 5.46 | 35.58 | 24.33 | –    | preactresnet164
ResNet (pre-activation)            | 1001 | 10.2M | 10.56 | 4.62 | 33.47 | 22.71 | –    | preactresnet1001
DenseNet (k = 12)                  | 40   | 1.0M  | 7.00  | 5.24 | 27.55 | 24.42 | 1.79 | densenet40_12
DenseNet (k = 12)                  | 100  | 7.0M  | 5.77  | 4.10 | 23.79 | 20.20 | 1.67 | densenet100_12
DenseNet (k = 24)                  | 100  | 27.2M | 5.83  | 3.74 | 23.42 | 19.25 | 1.59 | densenet100_24
DenseNet-BC (k = 12)               | 100  | 0.8M  | 5.92  | 4.51 | 24.15 | 22.27 | 1.76 | densenetbc100_12
DenseNet-BC (k = 24)               | 250  | 15.3M | 5.19  | 3.62 | 19.64 | 17.60 | 1.74 | densenetbc250_24
DenseNet-BC (k = 40)               | 190  | 25.6M | –     | 3.46 | –     | 17.18 | –    | densenetbc190_40
"""


def _with_network(line: str) -> PaperRow:
    text, _, network = line.rpartition("|")
    return _row(text, None if network.strip() == NONE else network.strip())


PAPER_TABLES: tuple[PaperTable, ...] = (
    PaperTable(
        "imagenet-resnet",
        "Residual networks on ImageNet (He et al. 2015, Tables 1 to 3)",
        ("multiply-adds", "top-1 error %, 10-crop"),
        ("imagenet2012",),
        (
            _row("plain-18 | 1.8e9 | 27.94", "plainnet18"),
            _row("ResNet-18 | 1.8e9 | 27.88", "resnet18"),
            _row("plain-34 | 3.6e9 | 28.54", "plainnet34"),
            _row("ResNet-34 | 3.6e9 | 25.03", "resnet34"),
            _row("ResNet-50 | 3.8e9 | 22.85", "resnet50"),
            _row("ResNet-101 | 7.6e9 | 21.75", "resnet101"),
            _row("ResNet-152 | 11.3e9 | 21.43", "resnet152"),
        ),
    ),
    PaperTable(
        "imagenet-ensembles",
        "Ensembles on the ImageNet test set (He et al. 2015, Table 5)",
        ("top-5 error %",),
        ("imagenet2012",),
        (
            _row("VGG (ILSVRC'14) | 7.32"),
            _row("GoogLeNet (ILSVRC'14) | 6.66"),
            _row("VGG (v5) | 6.8"),
            _row("PReLU-net | 4.94"),
            _row("BN-Inception | 4.82"),
            _row("ResNet (ILSVRC'15) | 3.57"),
        ),
        "Ensembles have no counts, and their test labels are not public.",
    ),
    PaperTable(
        "cifar-resnet",
        "Residual networks on CIFAR-10 (He et al. 2015, Table 6)",
        ("layers", "parameters", "error %"),
        ("cifar10",),
        (
            _row("Maxout | – | – | 9.38", "maxoutcnn"),
            _row("NIN | – | – | 8.81", "nin"),
            _row("DSN | – | – | 8.22", "dsn"),
            _row("FitNet | 19 | 2.5M | 8.39", "fitnet4"),
            _row("Highway | 19 | 2.3M | 7.54 (7.72±0.16)", "highway2"),
            _row("Highway | 32 | 1.25M | 8.80", "highway4"),
            _row("ResNet | 20 | 0.27M | 8.75", "resnet20"),
            _row("ResNet | 32 | 0.46M | 7.51", "resnet32"),
            _row("ResNet | 44 | 0.66M | 7.17", "resnet44"),
            _row("ResNet | 56 | 0.85M | 6.97", "resnet56"),
            _row("ResNet | 110 | 1.7M | 6.43 (6.61±0.16)", "resnet110"),
            _row("ResNet | 1202 | 19.4M | 7.93", "resnet1202"),
        ),
    ),
    PaperTable(
        "residual-units",
        "Residual units on CIFAR-10 (He et al. 2016, Table 2)",
        ("layers", "error %"),
        ("cifar10",),
        tuple(
            PaperRow(texts[0], (str(depth), texts[place]), f"preactresnet{depth}", {"unit": unit})
            for place, depth in ((1, 110), (2, 164))
            for unit, texts in _UNITS.items()
        ),
    ),
    PaperTable(
        "resnext",
        "ResNeXt on ImageNet (Xie et al. 2016, Table 4)",
        ("setting", "top-1 error %", "top-5 error %"),
        ("imagenet2012",),
        (
            _row("ResNet-101 | 1×64d | 22.0 | 6.0", "resnet101"),
            _row("ResNeXt-101 | 32×4d | 21.2 | 5.6", "resnext101_32x4d"),
            _row("ResNet-200 (pre-activation) | 1×64d | 21.7 | 5.8", "resnet200v2"),
            _row("ResNet-101, wider | 1×100d | 21.3 | 5.7", "resnet101_1x100d"),
            _row("ResNeXt-101 | 2×64d | 20.7 | 5.5", "resnext101_2x64d"),
            _row("ResNeXt-101 | 64×4d | 20.4 | 5.3", "resnext101_64x4d"),
        ),
        "One crop of 224 pixels.",
    ),
    PaperTable(
        "densenet-imagenet",
        "DenseNet on ImageNet (Huang et al. 2016, Tables 1 and 3)",
        ("growth rate", "layers of the blocks", "top-1 error %, single crop"),
        ("imagenet2012",),
        (
            _row("DenseNet-121 | 32 | 6, 12, 24, 16 | 25.02", "densenet121"),
            _row("DenseNet-169 | 32 | 6, 12, 32, 32 | 23.80", "densenet169"),
            _row("DenseNet-201 | 32 | 6, 12, 48, 32 | 22.58", "densenet201"),
            _row("DenseNet-161 | 48 | 6, 12, 36, 24 | –", "densenet161"),
            _row("DenseNet-264 | 32 | 6, 12, 64, 48 | 22.15", "densenet264"),
        ),
    ),
    PaperTable(
        "densenet",
        "Error % on CIFAR and SVHN (Huang et al. 2016, Table 2)",
        ("depth", "parameters", "C10", "C10+", "C100", "C100+", "SVHN"),
        ("cifar10", "cifar100", "svhn_cropped"),
        tuple(_with_network(line) for line in _DENSENET.strip().splitlines()),
        "“+” is with mirrored and shifted images. Computed values are for ten classes.",
    ),
    PaperTable(
        "highway",
        "Highway networks and FitNets on CIFAR-10 (Srivastava et al. 2015, Table 1)",
        ("layers", "parameters", "accuracy %"),
        ("cifar10",),
        (
            _row("FitNet teacher | 5 | ~9M | 90.18"),
            _row("FitNet 1 | 11 | ~250K | 89.01", "fitnet1"),
            _row("FitNet 2 | 11 | ~862K | 91.06", "fitnet2"),
            _row("FitNet 3 | 13 | ~1.6M | 91.10", "fitnet3"),
            _row("FitNet 4 | 19 | ~2.5M | 91.61", "fitnet4"),
            _row("Highway 1 (FitNet 1) | 11 | ~236K | 89.18", "highway1"),
            _row("Highway 2 (FitNet 4) | 19 | ~2.3M | 92.24", "highway2"),
            _row("Highway 3 (40,000 images) | 19 | ~1.4M | 90.68", "highway3"),
            _row("Highway 4 (40,000 images) | 32 | ~1.25M | 90.34", "highway4"),
        ),
    ),
    PaperTable(
        "detection",
        "Faster R-CNN (He et al. 2015, Tables 7 and 8)",
        ("VOC 2007 mAP %", "VOC 2012 mAP %", "COCO AP50 %", "COCO AP %"),
        ("voc", "coco"),
        (
            _row("VGG-16 | 73.2 | 70.4 | 41.5 | 21.2", "fasterrcnn_vgg16"),
            _row("ResNet-101 | 76.4 | 73.8 | 48.4 | 27.2", "fasterrcnn_resnet101_c4"),
        ),
        "Of a detector, the measured value is AP50.",
    ),
)
