"""Training recipes as data: each row holds the numbers of one paper and names the section they come from."""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError
from keras_deepnets.training import comparison_recipes
from keras_deepnets.training.recipe import AUTO, LENGTHS, Recipe

_SGD: dict[str, Any] = {
    "schedule": "piecewise",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "weight_decay_on": "all",
}
_PLATEAU: dict[str, Any] = _SGD | {"schedule": "plateau"}
_NESTEROV: dict[str, Any] = _SGD | {"nesterov": True}
_STRONGER_DECAY: dict[str, Any] = _NESTEROV | {"weight_decay": 5e-4}
_COLOURS = "random_resized_crop_flip+color_jitter(0.4)+lighting(0.1)"  # fb.resnet.torch, which these papers cite
_IMAGENETTE: dict[str, Any] = {
    "source": "fast.ai's Imagenette leaderboard, 128 pixels; Muon: Jordan et al. 2024; the numbers were chosen by experiment "
    "(docs/training.md)",
    "batch_size": 64,
    "image_size": 128,
    "optimizer": "muon",
    "schedule": "one_cycle",
    "peak_at": 0.25,
    "momentum": 0.95,
    "weight_decay": 0.05,
    "weight_decay_on": "kernels",
    "label_smoothing": 0.1,
    "precision": "auto",
}
_RESNET_D: dict[str, Any] = {"shortcut": "D", "deep_stem": [32, 32, 64], "zero_init_residual": True}
_1202_LAYERS: dict[str, Any] = {
    "epochs": 300,
    "batch_size": 64,
    "warmup": "10 epochs",
    "warmup_learning_rate": 0.01,
    "warmup_shape": "constant",
}
_HUANG2017_CIFAR: dict[str, Any] = _NESTEROV | {"epochs": 300, "batch_size": 64, "milestones": (0.5, 0.75)}
_HUANG2017_SVHN: dict[str, Any] = _HUANG2017_CIFAR | {"epochs": 40}
_WIGHTMAN2021: dict[str, Any] = {
    "batch_size": 2048,
    "crop_fraction": 0.95,
    "optimizer": "lamb",
    "loss": "binary_crossentropy",
    "schedule": "cosine",
    "warmup": "5 epochs",
    "weight_decay_on": "kernels",
    "precision": "auto",
}

_ROWS = (
    Recipe(
        name="fast",
        use="Train a network on your own images from scratch. The default without weights.",
        source="one-cycle: Smith & Topin 2017, Super-Convergence, section 3; label smoothing: Szegedy et al. 2015, section 7; "
        "averaged weights: Polyak & Juditsky 1992",
        epochs=AUTO,
        batch_size=AUTO,
        learning_rate=0.2,
        learning_rate_batch=128,
        schedule="one_cycle",
        peak_at=0.25,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        weight_decay_on="kernels",
        label_smoothing=0.1,
        augmentation="auto",
        ema=0.99,
        precision="auto",
    ),
    Recipe(
        name="fine_tune",
        use="Fine-tune pretrained weights on tens to tens of thousands of your own images. The default with weights.",
        source="classifier first, then all layers: Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features, section 3; "
        "the numbers were chosen by experiment (docs/training.md)",
        epochs=AUTO,
        batch_size=AUTO,
        head_epochs=AUTO,
        optimizer="muon",
        learning_rate=4e-3,
        relative_rate=True,
        schedule="cosine",
        warmup="10 %",
        momentum=0.95,
        weight_decay=0.05,
        weight_decay_on="kernels",
        batch_norm="auto",
        keep="auto",
        label_smoothing=0.1,
        augmentation="auto",
        precision="auto",
    ),
    Recipe(
        name="imagenette_5",
        use="Train on photographs of 128 pixels from scratch in 5 epochs, with Muon.",
        epochs=5,
        learning_rate=4e-3,
        augmentation="random_resized_crop_flip(0.35)",
        model_options=_RESNET_D,
        **_IMAGENETTE,
    ),
    Recipe(
        name="imagenette_20",
        use="Train on photographs of 128 pixels from scratch in 20 epochs, with Muon.",
        epochs=20,
        augmentation="random_resized_crop_flip(0.35)+color_jitter(0.3)+mixup(0.2)",
        learning_rate=6e-3,
        ema=0.99,
        model_options=_RESNET_D | {"antialias": "blur"},
        **_IMAGENETTE,
    ),
    Recipe(
        name="he2015_cifar",
        use="Reproduce the CIFAR-10 results of the ResNet paper: resnet20 to resnet110, plainnet20 to plainnet110.",
        source="He et al. 2015, Deep Residual Learning, section 4.2",
        steps=64_000,
        batch_size=128,
        milestones=(0.5, 0.75),  # 32k and 48k of 64k iterations
        augmentation="pad_crop_flip",
        # "we use 0.01 to warm up the training until the training error is below 80% (about 400 iterations)"
        exceptions={"resnet110": {"warmup": "400 steps", "warmup_learning_rate": 0.01, "warmup_shape": "constant"}},
        **_SGD,
    ),
    Recipe(
        name="he2015_imagenet",
        use="Reproduce the ImageNet results of the ResNet paper: resnet18 to resnet152, plainnet18 and plainnet34.",
        source="He et al. 2015, Deep Residual Learning, section 3.4; colour augmentation: Krizhevsky et al. 2012, section 4.1",
        steps=600_000,
        batch_size=256,
        augmentation="scale_crop_flip(256, 480)+lighting(0.1)",
        **_PLATEAU,
    ),
    Recipe(
        name="he2016_cifar",
        use="Reproduce the CIFAR results of the pre-activation ResNet paper: preactresnet110 to preactresnet1001.",
        source="He et al. 2016, Identity Mappings, appendix: implementation details",
        steps=64_000,
        batch_size=128,
        milestones=(0.5, 0.75),
        warmup="400 steps",
        warmup_learning_rate=0.01,
        warmup_shape="constant",
        augmentation="pad_crop_flip",
        **_SGD,
    ),
    Recipe(
        name="huang2016_stochastic_depth",
        use="Reproduce the CIFAR results of the stochastic depth paper: stochasticdepthresnet110 and stochasticdepthresnet1202.",
        source="Huang et al. 2016, Deep Networks with Stochastic Depth, section 4; Nesterov momentum: the authors' code; the numbers "
        "for 1202 layers were not checked against the published paper",
        epochs=500,
        batch_size=128,
        milestones=(0.5, 0.75),  # epochs 250 and 375; with 1202 layers, 150 and 225
        augmentation="pad_crop_flip",
        exceptions=dict.fromkeys(("stochasticdepthresnet1202", "resnet1202"), _1202_LAYERS),
        **_NESTEROV,
    ),
    Recipe(
        name="zagoruyko2016",
        use="Reproduce the CIFAR results of the Wide ResNet paper: wideresnet16_4 to wideresnet40_4.",
        source="Zagoruyko & Komodakis 2016, Wide Residual Networks, section 3",
        epochs=200,
        batch_size=128,
        milestones=(0.3, 0.6, 0.8),  # epochs 60, 120 and 160
        drop=0.2,
        augmentation="reflect_crop_flip",
        **_STRONGER_DECAY,
    ),
    Recipe(
        name="xie2016_cifar",
        use="Reproduce the CIFAR results of the ResNeXt paper: resnext29_8x64d and resnext29_16x64d.",
        source="Xie et al. 2016, Aggregated Residual Transformations, section 5.3; Nesterov momentum: the authors' code",
        epochs=300,
        batch_size=128,
        milestones=(0.5, 0.75),  # epochs 150 and 225
        augmentation="pad_crop_flip",
        **_STRONGER_DECAY,
    ),
    Recipe(
        name="xie2016_imagenet",
        use="Reproduce the ImageNet results of the ResNeXt paper: resnext50_32x4d to resnext101_64x4d.",
        source="Xie et al. 2016, Aggregated Residual Transformations, section 4 (three drops, 30 epochs apart, as in fb.resnet.torch); "
        "length and Nesterov momentum: the authors' code",
        epochs=120,
        batch_size=256,
        milestones=("30 epochs", "60 epochs", "90 epochs"),
        augmentation=_COLOURS,
        **_NESTEROV,
    ),
    Recipe(
        name="huang2017_cifar",
        use="Reproduce the CIFAR results of the DenseNet paper with augmentation: densenet40_12 to densenetbc190_40.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (C10+, C100+)",
        augmentation="pad_crop_flip",
        **_HUANG2017_CIFAR,
    ),
    Recipe(
        name="huang2017_cifar_plain",
        use="Reproduce the CIFAR results of the DenseNet paper without augmentation, with dropout.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (C10, C100: no augmentation, dropout)",
        model_options={"dropout": 0.2},
        **_HUANG2017_CIFAR,
    ),
    Recipe(
        name="huang2017_svhn",
        use="Reproduce the SVHN results of the DenseNet paper, with dropout.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (SVHN; values divided by 255: section 4.1)",
        model_options={"dropout": 0.2},
        input_scaling="unit",
        **_HUANG2017_SVHN,
    ),
    Recipe(
        name="huang2017_imagenet",
        use="Reproduce the ImageNet results of the DenseNet paper: densenet121 to densenet264.",
        source="Huang et al. 2016, Densely Connected Convolutional Networks, section 4.2 (ImageNet; DenseNet-161 is too large for 256 "
        "images on the authors' GPUs, so it uses batch size 128 and 100 epochs)",
        epochs=90,
        batch_size=256,
        milestones=("30 epochs", "60 epochs"),
        augmentation=_COLOURS,
        exceptions={
            "densenet161": {"epochs": 100, "batch_size": 128, "milestones": ("30 epochs", "60 epochs", "90 epochs")}
        },
        **_NESTEROV,
    ),
    Recipe(
        name="srivastava2015_mnist",
        use="Reproduce the MNIST results of the highway network paper: highwaymlp10 to highwaymlp100 and their plain counterparts.",
        source="Srivastava et al. 2015, Training Very Deep Networks, section 3.1: momentum and an exponentially decaying rate, "
        "found by random search; the paper prints no numbers, so these are our own",
        epochs=400,
        batch_size=128,
        learning_rate=0.01,
        schedule="exponential",
        drop=0.01,
        momentum=0.9,
    ),
    Recipe(
        name="srivastava2015_cifar",
        use="Reproduce the CIFAR-10 results of the highway network paper: highway1 to highway4.",
        source="Srivastava et al. 2015, Training Very Deep Networks, section 3.3; numbers: the authors' code (Caffe, 19 layers). "
        "Differences from that code: there, biases have twice the learning rate and the last layer has ten times the weight decay. "
        "It normalises the contrast of each image (section 3.3.2), this recipe each channel over all images",
        steps=200_000,
        batch_size=100,
        learning_rate=0.025,
        schedule="piecewise",
        milestones=(0.5, 0.75, 0.875),  # 100k, 150k and 175k iterations
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-3,
        weight_decay_on="kernels",
        augmentation="pad_crop_flip(8)",
    ),
    Recipe(
        name="wightman2021_a1",
        use="Train on ImageNet with modern methods for the best accuracy, in 600 epochs.",
        source="Wightman et al. 2021, ResNet strikes back, Table 2 (A1)",
        epochs=600,
        learning_rate=5e-3,
        weight_decay=0.01,
        label_smoothing=0.1,
        augmentation="random_resized_crop_flip+rand_augment(magnitude=7,probability=0.5,deviation=0.5)+mixup(0.2)+cutmix(1.0)",
        repeated_augmentation=3,
        model_options={"stochastic_depth": 0.05},
        **_WIGHTMAN2021,
    ),
    Recipe(
        name="wightman2021_a2",
        use="Train on ImageNet to nearly the accuracy of wightman2021_a1 in half the epochs.",
        source="Wightman et al. 2021, ResNet strikes back, Table 2 (A2)",
        epochs=300,
        learning_rate=5e-3,
        weight_decay=0.02,
        augmentation="random_resized_crop_flip+rand_augment(magnitude=7,probability=0.5,deviation=0.5)+mixup(0.1)+cutmix(1.0)",
        repeated_augmentation=3,
        model_options={"stochastic_depth": 0.05},
        **_WIGHTMAN2021,
    ),
    Recipe(
        name="wightman2021_a3",
        use="Train on ImageNet with modern methods in a short run: 100 epochs at 160 pixels.",
        source="Wightman et al. 2021, ResNet strikes back, Table 2 (A3); the paper tests at 224 pixels, a run here at the "
        "160 pixels of training",
        epochs=100,
        learning_rate=8e-3,
        weight_decay=0.02,
        image_size=160,
        augmentation="random_resized_crop_flip+rand_augment(magnitude=6,probability=0.5,deviation=0.5)+mixup(0.1)+cutmix(1.0)",
        **_WIGHTMAN2021,
    ),
)
_RECIPES = {row.name: row for row in (*_ROWS, *comparison_recipes.ROWS)}


def recipes() -> list[str]:
    """Return the names of the recipes."""
    return list(_RECIPES)


def get_recipe(name: str | os.PathLike | Recipe, /, **overrides: Any) -> Recipe:
    """Return a recipe, with some fields changed.

    Args:
        name: Name of a recipe, a `Recipe`, or the path of a YAML or JSON file with fields of `Recipe`. A file may name
            a recipe that supplies the other fields: ``base: he2015_cifar``.
        **overrides: Fields to change.

    Raises:
        InputError: The recipe, file or field does not exist, or a value is wrong.
    """
    if not isinstance(name, Recipe):
        if str(name).endswith((".yaml", ".yml", ".json")):
            return read_recipe(name).with_overrides(**overrides)
        if name not in _RECIPES:
            near = difflib.get_close_matches(str(name), _RECIPES, 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"There is no recipe {name!r}.{hint} Recipes are: {', '.join(_RECIPES)}. A .yaml file of recipe fields is accepted too."
            )
        name = _RECIPES[str(name)]
    return name.with_overrides(**overrides) if overrides else name


def read_recipe(path: str | os.PathLike) -> Recipe:
    """Read a recipe from a YAML or JSON file; see `get_recipe`."""
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read recipe {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"Recipe {path} must hold fields, one per line, e.g. 'base: fast' and 'learning_rate: 0.05'.")
    base = values.pop("base", None)
    own: dict[str, Any] = {"name": Path(path).stem, "source": str(path), "use": ""}
    own = {name: values.pop(name, usual) for name, usual in own.items()}
    try:
        if base is not None:
            return dataclasses.replace(get_recipe(base).with_overrides(**values), **own)
        if not any(values.get(length) for length in LENGTHS):
            raise InputError(f"it has no length. Set one of {', '.join(LENGTHS)}, or a base, e.g. 'base: fast'.")
        return Recipe.from_dict(own | values)
    except InputError as error:
        raise InputError(f"Recipe {path}: {error}") from None
