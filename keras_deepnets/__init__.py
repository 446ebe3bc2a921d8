"""Very deep convolutional image networks for Keras.

>>> import keras_deepnets as kd
>>> model = kd.ResNet50(weights=None)
"""

from keras_deepnets import (
    batch,
    data,
    detection,
    distribution,
    export,
    families,
    insight,
    layers,
    reports,
    studies,
    training,
    weights,
)
from keras_deepnets.errors import InputError
from keras_deepnets.export import fold_batchnorm
from keras_deepnets.facts import ModelInfo, model_info
from keras_deepnets.families.all_cnn import AllCNN_A, AllCNN_B, AllCNN_C
from keras_deepnets.families.base import resolve_weights_with as _resolve_weights_with
from keras_deepnets.families.bn_inception import BNInception
from keras_deepnets.families.densenet import (
    DenseNet,
    DenseNet40_12,
    DenseNet100_12,
    DenseNet100_24,
    DenseNet121,
    DenseNet161,
    DenseNet169,
    DenseNet201,
    DenseNet264,
    DenseNetBC100_12,
    DenseNetBC190_40,
    DenseNetBC250_24,
)
from keras_deepnets.families.dsn import DSN
from keras_deepnets.families.fitnet import (
    FitNet,
    FitNet1,
    FitNet2,
    FitNet3,
    FitNet4,
)
from keras_deepnets.families.fractalnet import FractalNet, FractalNet21
from keras_deepnets.families.googlenet import GoogLeNet
from keras_deepnets.families.highway import (
    Highway,
    Highway1,
    Highway2,
    Highway3,
    Highway4,
    HighwayMLP,
    HighwayMLP10,
    HighwayMLP20,
    HighwayMLP50,
    HighwayMLP100,
    PlainMLP,
    PlainMLP10,
    PlainMLP20,
    PlainMLP50,
    PlainMLP100,
)
from keras_deepnets.families.maxout_cnn import MaxoutCNN
from keras_deepnets.families.nin import NIN
from keras_deepnets.families.preact import (
    PreActResNet,
    PreActResNet110,
    PreActResNet164,
    PreActResNet1001,
    ResNet18V2,
    ResNet34V2,
    ResNet50V2,
    ResNet101V2,
    ResNet152V2,
    ResNet200V2,
)
from keras_deepnets.families.prelu_net import PReLUNet, PReLUNetA, PReLUNetB, PReLUNetC
from keras_deepnets.families.resnet import (
    PlainNet,
    PlainNet18,
    PlainNet20,
    PlainNet32,
    PlainNet34,
    PlainNet44,
    PlainNet56,
    PlainNet110,
    ResNet,
    ResNet18,
    ResNet20,
    ResNet32,
    ResNet34,
    ResNet44,
    ResNet50,
    ResNet56,
    ResNet101,
    ResNet110,
    ResNet152,
    ResNet1202,
)
from keras_deepnets.families.resnext import (
    ResNet101_1x100d,
    ResNeXt,
    ResNeXt29_8x64d,
    ResNeXt29_16x64d,
    ResNeXt50_32x4d,
    ResNeXt101_2x64d,
    ResNeXt101_32x4d,
    ResNeXt101_32x8d,
    ResNeXt101_64x4d,
)
from keras_deepnets.families.stochastic_depth import (
    StochasticDepthResNet110,
    StochasticDepthResNet1202,
)
from keras_deepnets.families.vgg import (
    VGG,
    VGG11,
    VGG11_BN,
    VGG13,
    VGG13_BN,
    VGG16,
    VGG16_BN,
    VGG16C,
    VGG19,
    VGG19_BN,
)
from keras_deepnets.families.wide_resnet import (
    WideResNet,
    WideResNet16_4,
    WideResNet16_8,
    WideResNet28_10,
    WideResNet40_4,
    WideResNet50_2,
    WideResNet101_2,
)
from keras_deepnets.predictions import decode_predictions, preprocess_input
from keras_deepnets.registration import register_with_keras as _register_with_keras
from keras_deepnets.registry import add_module as _add_module
from keras_deepnets.registry import create_model, list_models
from keras_deepnets.scaling import Scaling
from keras_deepnets.surgery import feature_pyramid, fractal_column, freeze, replace_classifier
from keras_deepnets.versions import __version__ as __version__
from keras_deepnets.weights import load_weights, save_weights

__all__ = [
    "DSN",
    "NIN",
    "VGG",
    "VGG11",
    "VGG11_BN",
    "VGG13",
    "VGG13_BN",
    "VGG16",
    "VGG16C",
    "VGG16_BN",
    "VGG19",
    "VGG19_BN",
    "AllCNN_A",
    "AllCNN_B",
    "AllCNN_C",
    "BNInception",
    "DenseNet",
    "DenseNet40_12",
    "DenseNet100_12",
    "DenseNet100_24",
    "DenseNet121",
    "DenseNet161",
    "DenseNet169",
    "DenseNet201",
    "DenseNet264",
    "DenseNetBC100_12",
    "DenseNetBC190_40",
    "DenseNetBC250_24",
    "FitNet",
    "FitNet1",
    "FitNet2",
    "FitNet3",
    "FitNet4",
    "FractalNet",
    "FractalNet21",
    "GoogLeNet",
    "Highway",
    "Highway1",
    "Highway2",
    "Highway3",
    "Highway4",
    "HighwayMLP",
    "HighwayMLP10",
    "HighwayMLP20",
    "HighwayMLP50",
    "HighwayMLP100",
    "InputError",
    "MaxoutCNN",
    "ModelInfo",
    "PReLUNet",
    "PReLUNetA",
    "PReLUNetB",
    "PReLUNetC",
    "PlainMLP",
    "PlainMLP10",
    "PlainMLP20",
    "PlainMLP50",
    "PlainMLP100",
    "PlainNet",
    "PlainNet18",
    "PlainNet20",
    "PlainNet32",
    "PlainNet34",
    "PlainNet44",
    "PlainNet56",
    "PlainNet110",
    "PreActResNet",
    "PreActResNet110",
    "PreActResNet164",
    "PreActResNet1001",
    "ResNeXt",
    "ResNeXt29_8x64d",
    "ResNeXt29_16x64d",
    "ResNeXt50_32x4d",
    "ResNeXt101_2x64d",
    "ResNeXt101_32x4d",
    "ResNeXt101_32x8d",
    "ResNeXt101_64x4d",
    "ResNet",
    "ResNet18",
    "ResNet18V2",
    "ResNet20",
    "ResNet32",
    "ResNet34",
    "ResNet34V2",
    "ResNet44",
    "ResNet50",
    "ResNet50V2",
    "ResNet56",
    "ResNet101",
    "ResNet101V2",
    "ResNet101_1x100d",
    "ResNet110",
    "ResNet152",
    "ResNet152V2",
    "ResNet200V2",
    "ResNet1202",
    "Scaling",
    "StochasticDepthResNet110",
    "StochasticDepthResNet1202",
    "WideResNet",
    "WideResNet16_4",
    "WideResNet16_8",
    "WideResNet28_10",
    "WideResNet40_4",
    "WideResNet50_2",
    "WideResNet101_2",
    "batch",
    "create_model",
    "data",
    "decode_predictions",
    "detection",
    "distribution",
    "export",
    "families",
    "feature_pyramid",
    "fold_batchnorm",
    "fractal_column",
    "freeze",
    "insight",
    "layers",
    "list_models",
    "load_weights",
    "model_info",
    "preprocess_input",
    "replace_classifier",
    "reports",
    "save_weights",
    "studies",
    "training",
    "weights",
]


def _resolve_weights(*given):
    """Finds the weights for a constructor. The import is deferred until weights are needed."""
    from keras_deepnets.weights import source

    return source.resolve(*given)


_resolve_weights_with(_resolve_weights)
_add_module("keras_deepnets.detection.faster_rcnn")
_register_with_keras()
