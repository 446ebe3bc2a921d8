"""GoogLeNet: Inception modules.

C. Szegedy, W. Liu, Y. Jia, P. Sermanet, S. Reed, D. Anguelov, D. Erhan, V. Vanhoucke, A. Rabinovich: "Going Deeper with Convolutions",
CVPR 2015, arXiv:1409.4842. Table 1 lists the modules.

* The paper's network has biases and local response normalisation. The latter has the numbers of Caffe's GoogLeNet, because the paper
  prints none.
* ``batch_norm=True`` is torchvision's network: batch normalisation instead of biases and local response normalisation, 3×3 convolutions
  in the place of 5×5, and a last pooling of 2×2.
* Poolings pad as in Caffe: only after the last row and column.
* ``auxiliary=True`` adds the two classifiers of section 5, on the modules 4a and 4d. Their losses have weight 0.3 in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import IMAGENET, Auxiliary, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts, check_probability
from keras_deepnets.families.constructors import variant
from keras_deepnets.families.inception import check_modules

PAPER = Paper("G14", "Going Deeper with Convolutions", "Szegedy et al.", 2014, "https://arxiv.org/abs/1409.4842")

_OWNER = "GoogLeNet"

MODULES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


@dataclass(frozen=True)
class GoogLeNetSpec:
    """A stem of three convolutions, then stages of Inception modules with max pooling between them (Table 1)."""

    batch_norm: bool = option(False, "torchvision's network, with batch normalisation.")
    modules: tuple[tuple[tuple[int, ...], ...], ...] = option(
        MODULES,
        "per stage, six numbers per module: channels of the 1×1 branch; of the reduction and the convolution of the 3×3 branch; of the "
        "reduction and the convolution of the 5×5 branch; and after the pooling.",
    )
    dropout: float | None = option(
        None, "probability to drop a feature before the classifier. Default: 0.4, or 0.2 with `batch_norm`."
    )
    auxiliary: bool = option(False, "adds the outputs of the auxiliary classifiers, for training.")

    def __post_init__(self):
        """Checks all values and fills in the derived ones."""
        modules = check_modules(_OWNER, self.modules, MODULES[0])
        for stage in modules:
            for module in stage:
                check_counts(_OWNER, modules=module)
        object.__setattr__(self, "modules", modules)
        if self.dropout is None:
            object.__setattr__(self, "dropout", 0.2 if self.batch_norm else 0.4)
        check_probability(_OWNER, "dropout", self.dropout)

    @property
    def domain(self) -> Domain:
        """ImageNet."""
        return IMAGENET

    @property
    def depth(self) -> int:
        """Layers with weights along the longest path, counted as in Table 1."""
        return 3 + 2 * sum(map(len, self.modules)) + 1

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 4 * 2 ** len(self.modules)


EPSILON = 1e-3
"""Epsilon of batch normalisation in torchvision's network."""


def _unit(x: Any, filters: int, kernel_size: int, spec: GoogLeNetSpec, name: str, strides: int = 1) -> Any:
    if spec.batch_norm:
        return layers.conv_bn_relu(x, filters, kernel_size, strides=strides, epsilon=EPSILON, name=name)
    return layers.biased_conv2d(x, filters, kernel_size, strides=strides, activation="relu", name=f"{name}_conv")


def inception(x: Any, module: tuple[int, ...], spec: GoogLeNetSpec, name: str) -> Any:
    """One module of Table 1 (Figure 2b)."""
    one, reduce_3, three, reduce_5, five, projection = module
    branches = [
        _unit(x, one, 1, spec, f"{name}_1x1"),
        _unit(_unit(x, reduce_3, 1, spec, f"{name}_3x3_reduce"), three, 3, spec, f"{name}_3x3"),
        _unit(
            _unit(x, reduce_5, 1, spec, f"{name}_5x5_reduce"), five, 3 if spec.batch_norm else 5, spec, f"{name}_5x5"
        ),
        _unit(layers.max_pool(x, 3, 1, name=f"{name}_pool"), projection, 1, spec, f"{name}_pool_proj"),
    ]
    return layers.concatenate(branches, name=f"{name}_output")


def features(x: Any, spec: GoogLeNetSpec) -> Any:
    """The network of Table 1, from images to the last feature map."""
    x = _unit(x, 64, 7, spec, "conv1_7x7_s2", 2)
    x = layers.max_pool(x, 3, 2, padding="ceil", name="pool1_3x3_s2")
    if not spec.batch_norm:
        x = layers.local_response_norm(x, name="pool1_norm1")
    x = _unit(x, 64, 1, spec, "conv2_3x3_reduce")
    x = _unit(x, 192, 3, spec, "conv2_3x3")
    if not spec.batch_norm:
        x = layers.local_response_norm(x, name="conv2_norm2")
    x = layers.max_pool(x, 3, 2, padding="ceil", name="pool2_3x3_s2")
    for number, stage in enumerate(spec.modules, start=3):
        for place, module in enumerate(stage):
            x = inception(x, module, spec, f"inception_{number}{chr(ord('a') + place)}")
        if number < 2 + len(spec.modules):
            size = 2 if spec.batch_norm and number == 1 + len(spec.modules) else 3
            x = layers.max_pool(x, size, 2, padding="ceil", name=f"pool{number}_{size}x{size}_s2")
    return x


def head(x: Any, spec: GoogLeNetSpec) -> Any:
    """Average pooling and dropout before the classifier."""
    return layers.dropout(layers.pool_features(x, "avg"), spec.dropout or 0.0, name="pool5_dropout")


def auxiliary(spec: GoogLeNetSpec) -> tuple[Auxiliary, ...]:
    """The classifiers on the first and the fourth module of the second stage (section 5), which the stage must have.

    Raises InputError if the second stage has fewer than four modules.
    """
    if len(spec.modules) < 2 or len(spec.modules[1]) < 4:
        raise InputError(
            f"{_OWNER}: auxiliary=True reads the modules 4a and 4d, but modules={spec.modules} has no second stage of four; "
            "leave auxiliary out."
        )

    def hidden(x: Any, name: str) -> Any:
        if spec.batch_norm:
            x = layers.adaptive_average_pool(x, 4, name=f"{name}_pool")
        elif None in x.shape[1:] or min(x.shape[1:3]) < 5:
            raise InputError(
                f"{_OWNER}: auxiliary=True needs a fixed input size of at least 80 pixels; pass e.g. input_shape=(224, 224, 3)."
            )
        else:
            x = layers.average_pool(x, 5, 3, name=f"{name}_pool")
        x = layers.flatten(_unit(x, 128, 1, spec, f"{name}_1x1"), name=f"{name}_flatten")
        x = layers.biased_dense(x, 1024, activation="relu", name=f"{name}_fc")
        return layers.dropout(x, 0.7, name=f"{name}_dropout")

    return tuple(
        Auxiliary(f"aux{number}", f"inception_{module}_output", hidden, 0.3)
        for number, module in enumerate(("4a", "4d"), start=1)
    )


FAMILY = Family(
    "GoogLeNet",
    GoogLeNetSpec,
    features,
    PAPER,
    ("batch_norm", "modules", "dropout", "auxiliary"),
    head,
    auxiliary=auxiliary,
    auxiliary_layers=r"aux\d_",
)

GoogLeNet = variant(
    "GoogLeNet",
    FAMILY,
    source="Table 1, without the auxiliary classifiers",
    error="10.07 % top-5, ImageNet validation, one model, one crop",
    batch_norm=False,
)
