"""Recipes of the papers that the residual, dense and highway networks are compared with."""

from __future__ import annotations

from typing import Any

from keras_deepnets.training.recipe import Recipe

_SGD: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-4, "weight_decay_on": "kernels"}
_AUXILIARY: dict[str, Any] = {"auxiliary": True}

ROWS = (
    Recipe(
        name="lin2013_cifar",
        use="Reproduce the CIFAR results of the Network in Network paper: nin.",
        source="Lin et al. 2013, Network In Network, section 4; numbers: the authors' settings for cuda-convnet. There, biases have twice "
        "the learning rate, and the images are augmented after whitening; the paper prints no length",
        epochs=200,
        batch_size=128,
        learning_rate=0.1,
        schedule="piecewise",  # "lowered by a scale of 10 … repeated once"
        milestones=(0.8, 0.9),
        momentum=0.9,
        weight_decay=1e-4,
        weight_decay_on="kernels",
        rate_factors={"predictions": 0.1},
        input_scaling="zca",
        augmentation="pad_crop_flip",
    ),
    Recipe(
        name="springenberg2014_cifar",
        use="Reproduce the CIFAR results of the All-CNN paper: allcnn_a to allcnn_c.",
        source="Springenberg et al. 2014, Striving for Simplicity, section 3 and appendix; the rate is the smallest of the four that the "
        "paper tries: with 0.05 the network dies here. There, the images are augmented after whitening",
        epochs=350,
        batch_size=128,
        learning_rate=0.01,
        schedule="piecewise",
        milestones=("200 epochs", "250 epochs", "300 epochs"),
        momentum=0.9,
        weight_decay=1e-3,
        weight_decay_on="kernels",
        input_scaling="zca",
        augmentation="pad_crop_flip(5)",
    ),
    Recipe(
        name="lee2014_cifar",
        use="Reproduce the CIFAR results of the paper on deeply-supervised nets: dsn, with its companion classifiers.",
        source="Lee et al. 2014, Deeply-Supervised Nets; numbers: the authors' definition for CIFAR-10, whose rate of 1e-4 after 170,000 "
        "iterations stays here until the end. There, biases have twice the rate, and the companions are removed after 50,000 iterations",
        steps=320_000,
        batch_size=100,
        loss="squared_hinge",
        learning_rate=0.025,
        schedule="piecewise",
        milestones=("170000 steps",),
        drop=0.004,
        input_scaling="gcn",
        augmentation="pad_crop_flip",
        auxiliary_fade=True,
        model_options=_AUXILIARY,
        **_SGD,
    ),
    Recipe(
        name="goodfellow2013_cifar",
        use="Reproduce the CIFAR-10 results of the maxout paper: maxoutcnn.",
        source="Goodfellow et al. 2013, Maxout Networks, section 4.2; numbers: the published configuration with augmentation, whose rate "
        "falls linearly to 1 % over 500 epochs and which stops after 474. There, the images are augmented after whitening",
        epochs=474,
        batch_size=128,
        learning_rate=0.17,
        schedule="linear",
        drop=0.062,  # 1 - 0.99 · 474 / 500
        momentum=0.65,
        momentum_start=0.5,
        momentum_ramp="250 epochs",
        weight_decay=0.0,
        rate_factors={"conv": 0.05},
        model_options={
            "initial_range": 0.005
        },  # as by the authors; with larger weights, this rate diverges in the first steps
        input_scaling="zca",
        augmentation="pad_crop_flip(8)",
    ),
    Recipe(
        name="larsson2016_cifar",
        use="Reproduce the CIFAR results of the FractalNet paper: fractalnet21.",
        source="Larsson et al. 2016, FractalNet, section 4.1; the rate falls by 10 whenever the remaining epochs halve",
        epochs=400,
        batch_size=100,
        learning_rate=0.02,
        schedule="piecewise",
        milestones=(0.5, 0.75, 0.875, 0.9375),
        momentum=0.9,
        weight_decay=0.0,
        augmentation="pad_crop_flip",
    ),
    Recipe(
        name="simonyan2014_imagenet",
        use="Reproduce the ImageNet results of the VGG paper: vgg11 to vgg19.",
        source="Simonyan & Zisserman 2014, Very Deep Convolutional Networks, section 3.1 (74 epochs, three drops of a plateau; training "
        "scales from 256 to 512; colours: Krizhevsky et al. 2012). The paper starts deep networks from trained shallow ones",
        epochs=74,
        batch_size=256,
        learning_rate=0.01,
        schedule="plateau",
        augmentation="scale_crop_flip(256, 512)+lighting(0.1)",
        **_SGD,
    ),
    Recipe(
        name="szegedy2014_imagenet",
        use="Reproduce the ImageNet results of the GoogLeNet paper: googlenet, with its auxiliary classifiers.",
        source="Szegedy et al. 2014, Going Deeper with Convolutions, section 6 (the rate falls by 4 % every 8 epochs; averaged weights; "
        "crops of 8 to 100 % of an image). The paper prints no rate and no length: those of Caffe's GoogLeNet",
        epochs=60,
        batch_size=32,
        learning_rate=0.01,
        schedule="piecewise",
        milestones=tuple(f"{epoch} epochs" for epoch in range(8, 60, 8)),
        drop=0.96,
        momentum=0.9,
        weight_decay=2e-4,
        weight_decay_on="kernels",
        ema=0.9999,
        augmentation="random_resized_crop_flip",
        model_options=_AUXILIARY,
    ),
    Recipe(
        name="ioffe2015_imagenet",
        use="Reproduce the ImageNet results of the batch normalisation paper: bninception.",
        source="Ioffe & Szegedy 2015, Batch Normalization, section 4.2 (BN-x5: five times the rate of 0.0015, a decay six times as fast). "
        "The paper prints no length, momentum and decay: those of szegedy2014_imagenet, with a fifth of the decay",
        epochs=60,
        batch_size=32,
        learning_rate=7.5e-3,
        schedule="piecewise",
        milestones=tuple(f"{4 * number} epochs" for number in range(1, 15)),
        drop=0.885,  # 0.96 ** 6 every 8 epochs
        momentum=0.9,
        weight_decay=4e-5,
        weight_decay_on="kernels",
        augmentation="random_resized_crop_flip",
    ),
    Recipe(
        name="he2015_prelu_imagenet",
        use="Reproduce the ImageNet results of the PReLU paper: preluneta to prelunetc.",
        source="He et al. 2015, Delving Deep into Rectifiers, section 3 (three rates, about 80 epochs, scales from 256 to 512)",
        epochs=80,
        batch_size=128,
        learning_rate=0.01,
        schedule="plateau",
        augmentation="scale_crop_flip(256, 512)+lighting(0.1)",
        **_SGD,
    ),
)
