"""The recipes of detectors: the papers', torchvision's, and one for small sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_deepnets.detection.sampling import PAPER
from keras_deepnets.detection.training.recipe import DetectionRecipe
from keras_deepnets.errors import InputError
from keras_deepnets.training.recipe import Recipe

_SGD: dict[str, Any] = {"momentum": 0.9, "weight_decay_on": "kernels", "schedule": "piecewise"}
_SGD_ON_ALL: dict[str, Any] = _SGD | {"weight_decay_on": "all"}

ROWS = (
    DetectionRecipe(
        base=Recipe(
            name="fast",
            use="Train a detector on your own images, from a pretrained backbone or from a detector's weights. The default.",
            source="Numbers: choices of this library (docs/howto/detect.md)",
            epochs=30,
            batch_size=4,
            optimizer="adamw",
            learning_rate=2e-4,
            schedule="one_cycle",
            peak_at=0.1,
            weight_decay=0.05,
            weight_decay_on="kernels",
            precision="auto",
        ),
        augmentation="flip+scale_jitter(0.8, 1.25)+colour_jitter(0.2)",
        aspect_groups=3,
        clip_norm=10.0,
        freeze="P2",
        validate_every=5,
    ),
    DetectionRecipe(
        base=Recipe(
            name="ren2015",
            use="Reproduce the VOC results of the Faster R-CNN paper: fasterrcnn_vgg16, fasterrcnn_resnet101_c4.",
            source="Ren et al. 2015, section 3.1.3 and Table 3 (approximate joint training on VOC 2007 and 2012); the length is that of "
            "the authors' later code",
            steps=110_000,
            batch_size=1,
            learning_rate=1e-3,
            milestones=("80000 steps",),
            weight_decay=5e-4,
            **_SGD,
        ),
        sampling=PAPER,
        freeze="P2",
        validate_every=5,
    ),
    DetectionRecipe(
        base=Recipe(
            name="he2015_coco",
            use="Reproduce the COCO results of the ResNet paper: fasterrcnn_resnet101_c4 with a fourth anchor size of 64.",
            source="He et al. 2015, appendix A: batches of 8 images, 240,000 steps at 1e-3 and 80,000 at 1e-4",
            steps=320_000,
            batch_size=8,
            learning_rate=1e-3,
            milestones=("240000 steps",),
            weight_decay=1e-4,
            **_SGD,
        ),
        sampling=PAPER,
    ),
    DetectionRecipe(
        base=Recipe(
            name="torchvision_coco",
            use="Reproduce torchvision's weights of fasterrcnn_resnet50_fpn on COCO.",
            source="torchvision's references for detection: 26 epochs of 8 × 2 images, rate 0.02, drops after 16 and 22 epochs, warm-up of "
            "1,000 steps",
            epochs=26,
            batch_size=16,
            learning_rate=0.02,
            learning_rate_batch=16,
            milestones=("16 epochs", "22 epochs"),
            warmup="1000 steps",
            warmup_learning_rate=2e-5,
            weight_decay=1e-4,
            **_SGD_ON_ALL,
        ),
        aspect_groups=3,
        freeze="P2",
    ),
    DetectionRecipe(
        base=Recipe(
            name="torchvision_coco_v2",
            use="Reproduce torchvision's weights of fasterrcnn_resnet50_fpn_v2 on COCO.",
            source="torchvision's pull request 5763: 400 epochs of 32 × 2 images, large-scale jitter, rate 0.1, drops after 352 and 384 "
            "epochs",
            epochs=400,
            batch_size=64,
            learning_rate=0.1,
            learning_rate_batch=64,
            milestones=("352 epochs", "384 epochs"),
            warmup="1000 steps",
            warmup_learning_rate=1e-4,
            weight_decay=4e-5,
            **_SGD_ON_ALL,
        ),
        augmentation="large_scale_jitter(0.1, 2.0)+flip",
        aspect_groups=3,
        validate_every=10,
    ),
)


def recipes() -> list[str]:
    """Return the names of the recipes of detectors."""
    return [row.name for row in ROWS]


def get_recipe(recipe: str | os.PathLike | DetectionRecipe, **overrides: Any) -> DetectionRecipe:
    """Return a recipe by name, or read it from a YAML file, with some settings changed.

    Raises:
        InputError: The name is unknown, the file cannot be read, or a setting is wrong.
    """
    if isinstance(recipe, DetectionRecipe):
        return recipe.with_overrides(**overrides)
    found = next((row for row in ROWS if row.name == recipe), None)
    if found is None and str(recipe).endswith((".yaml", ".yml")):
        return _read(recipe).with_overrides(**overrides)
    if found is None:
        raise InputError(f"Unknown recipe {str(recipe)!r}. The recipes of detectors: {', '.join(recipes())}.")
    return found.with_overrides(**overrides)


def _read(path: str | os.PathLike) -> DetectionRecipe:
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must map fields to values, e.g. epochs: 20.")
    return get_recipe(values.pop("base", "fast"), **values)
