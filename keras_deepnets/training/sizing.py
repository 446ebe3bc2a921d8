"""Length of a run and batch size, chosen from the number of training images if a recipe leaves them to the data.

A run of few steps learns nothing, however good its recipe. The same rules apply to 10 images and to a million:

* From scratch, a batch has a sixteenth of the images, as a power of two from 8 to 128. A run has at least 20 epochs. If
  these make fewer than 1,500 steps, it has more epochs, up to 200.
* From given weights, a batch has a sixteenth of the images, as a power of two from 8 to 32. The epochs that train all
  layers make 1,000 steps, in 5 to 20 epochs. The epochs that train only the classifier make 2,000 steps, in 3 to 30
  epochs.

`docs/training.md` has the accuracies behind these numbers. Values that the caller sets always take precedence.
"""

from __future__ import annotations

from keras_deepnets.training.recipe import AUTO, Recipe

SIZED = ("epochs", "head_epochs", "batch_size", "learning_rate")
"""Fields that `sized` may change."""
_SHARE = 16
_SMALLEST = 8
_LARGEST = {"scratch": 128, "given": 32}
# Minimum and maximum epochs, and the target number of steps.
_SCRATCH = (20, 200, 1500)
_ALL_LAYERS = (5, 20, 1000)
_HEAD = (3, 30, 2000)


def sized(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with a number for every ``"auto"`` that depends on the number of training images.

    Args:
        recipe: Any recipe. Without ``"auto"``, only its batch size is limited and its learning rate scaled.
        images: Number of training images.

    Returns:
        A recipe in which `epochs`, `head_epochs` and `batch_size` are numbers and `learning_rate` fits the batch size.
    """
    given = bool(recipe.head_epochs)
    if recipe.batch_size == AUTO:
        batch = _power_of_two(images / _SHARE, _LARGEST["given" if given else "scratch"])
    else:
        batch = recipe.images_per_step
    batch = min(batch, images)
    steps_per_epoch = max(1, images // batch)
    changed: dict[str, float] = {"batch_size": batch}
    if recipe.epochs == AUTO:
        changed["epochs"] = _epochs(steps_per_epoch, *(_ALL_LAYERS if given else _SCRATCH))
    if recipe.head_epochs == AUTO:
        changed["head_epochs"] = _epochs(steps_per_epoch, *_HEAD)
    if recipe.learning_rate_batch is not None:
        changed["learning_rate"] = recipe.learning_rate * batch / recipe.learning_rate_batch
    return recipe.with_overrides(**changed, learning_rate_batch=None)


def _power_of_two(share: float, largest: int) -> int:
    """Return the largest power of two that is at most `share`, from 8 to `largest`."""
    size = _SMALLEST
    while size * 2 <= min(share, largest):
        size *= 2
    return size


def _epochs(steps_per_epoch: int, fewest: int, most: int, steps: int) -> int:
    return min(max(-(-steps // steps_per_epoch), fewest), most)
