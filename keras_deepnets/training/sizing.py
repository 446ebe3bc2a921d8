"""How long a run is and how large its batches are, where a recipe leaves that to the number of training images.

A run of few steps learns nothing, however good its recipe. The rules hold for 10 images as for a million:

* From scratch, a batch has a sixteenth of the images, as a power of two from 8 to 128. A run has at least 20 epochs. It has
  more where that makes fewer than 1,500 steps, up to 200.
* From given weights, a batch has a sixteenth of the images, as a power of two from 8 to 32. The epochs of all layers make 1,000
  steps, at least 5 and at most 20 epochs. Those of the classifier alone make 2,000, at least 3 and at most 30 epochs.

`docs/training.md` has the accuracies that these numbers were chosen by. What the caller sets always wins.
"""

from __future__ import annotations

from keras_deepnets.training.recipe import AUTO, Recipe

SIZED = ("epochs", "head_epochs", "batch_size", "learning_rate")
"""What `sized` may change."""
_SHARE = 16
_SMALLEST = 8
_LARGEST = {"scratch": 128, "given": 32}
# Fewest and most epochs, and the steps that they shall make.
_SCRATCH = (20, 200, 1500)
_ALL_LAYERS = (5, 20, 1000)
_HEAD = (3, 30, 2000)


def sized(recipe: Recipe, images: int) -> Recipe:
    """The recipe with a number for every ``"auto"`` that depends on how many training images there are.

    Args:
        recipe: any; one without ``"auto"`` is returned with its learning rate scaled alone.
        images: training images.

    Returns:
        A recipe whose `epochs`, `head_epochs` and `batch_size` are numbers and whose `learning_rate` is that of its batch size.
    """
    given = bool(recipe.head_epochs)
    batch = recipe.batch_size
    if batch == AUTO:
        batch = _power_of_two(images / _SHARE, _LARGEST["given" if given else "scratch"])
    batch = min(batch, images)
    steps_per_epoch = max(1, images // batch)
    changed: dict[str, float | int] = {"batch_size": batch}
    if recipe.epochs == AUTO:
        changed["epochs"] = _epochs(steps_per_epoch, *(_ALL_LAYERS if given else _SCRATCH))
    if recipe.head_epochs == AUTO:
        changed["head_epochs"] = _epochs(steps_per_epoch, *_HEAD)
    if recipe.learning_rate_batch is not None:
        changed["learning_rate"] = recipe.learning_rate * batch / recipe.learning_rate_batch
    return recipe.with_overrides(**changed, learning_rate_batch=None)


def _power_of_two(share: float, largest: int) -> int:
    """The largest power of two that is at most `share`, from 8 to `largest`."""
    size = _SMALLEST
    while size * 2 <= min(share, largest):
        size *= 2
    return size


def _epochs(steps_per_epoch: int, fewest: int, most: int, steps: int) -> int:
    return min(max(-(-steps // steps_per_epoch), fewest), most)
