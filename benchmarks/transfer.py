"""Compare fine-tuning with training from scratch and with the recipe of keras.io's transfer-learning guide.

    python -m benchmarks.transfer resnet18 FOLDER --weights RUN --counts 20,100,all

All three train the same network on the same images, with a fixed number of images per class. A tenth of them is held out for validation.
The accuracy is measured on the test split.

The guide's recipe starts from the same weights and uses the same numbers of epochs in its two phases. It flips and rotates the images,
drops 20 % of the features, and trains with Adam. First it trains the classifier at a learning rate of 1e-3 with the other layers frozen.
Then it trains all layers at 1e-5 with batch normalisation in inference mode.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from keras_deepnets.data import ImageData
    from keras_deepnets.training.recipe import Recipe


def some_of_each(data: ImageData, count: int, seed: int) -> ImageData:
    """At most `count` images of each class, chosen by `seed`."""
    import numpy as np

    from keras_deepnets.data import ImageData, splits

    labels = np.asarray(data.store.labels)
    names = data.store.names or [str(at) for at in range(len(labels))]
    order = np.asarray(splits.shuffled(names, seed))
    chosen = np.zeros(len(labels), bool)
    for label in range(data.classes):
        chosen[order[labels[order] == label][:count]] = True
    return ImageData(data.name, data.split, data.labels, data.store.take(chosen))


def by_the_guide(model: keras.Model, recipe: Recipe, train: ImageData, seed: int) -> keras.Model:
    """Train `model`, which has the initial weights, as in keras.io's guide. Return the trained classifier."""
    import keras

    from keras_deepnets.training import feed

    keras.utils.set_random_seed(seed)
    trunk = keras.Model(model.inputs, model.layers[-1].input)
    inputs = keras.Input(model.input_shape[1:])
    x = keras.layers.RandomRotation(0.1)(keras.layers.RandomFlip("horizontal")(inputs))
    x = keras.layers.Dropout(0.2)(trunk(x, training=False))
    whole = keras.Model(inputs, keras.layers.Dense(train.classes, dtype="float32")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    batches = feed.training(model, train, recipe, None, seed, 0)
    parts = (
        (False, keras.optimizers.Adam(1e-3), recipe.head_epochs),
        (True, keras.optimizers.Adam(1e-5), recipe.epochs),
    )
    for trainable, optimizer, epochs in parts:
        trunk.trainable = trainable
        whole.compile(optimizer, loss, metrics=["accuracy"])
        whole.fit(batches, epochs=round(epochs), steps_per_epoch=train.size // recipe.batch_size, verbose=0)
    return whole


def accuracy(model: keras.Model, like: keras.Model, test: ImageData) -> float:
    """The share of `test` that `model` classifies correctly. `model` has the same input as `like`."""
    import numpy as np

    from keras_deepnets.training import feed

    right = 0
    for images, labels in feed.evaluation(like, test, 128).as_numpy_iterator():
        right += int((np.asarray(model.predict_on_batch(images)).argmax(-1) == labels).sum())
    return right / test.size


def compare(arguments: argparse.Namespace, data: ImageData, test: ImageData, count: int | None) -> None:
    """Print one row per way of training on `count` images per class. None means all images."""
    from keras_deepnets import training
    from keras_deepnets.training.precision import automatic
    from keras_deepnets.training.pretrained import PretrainedNetwork
    from keras_deepnets.training.sizing import sized

    some = data if count is None else some_of_each(data, count, arguments.seed)
    train, held = some.divide(0.1, arguments.seed)
    sets = training.Sets(train, held)
    size = {} if arguments.image_size is None else {"image_size": arguments.image_size}

    recipe = sized(training.get_recipe("fine_tune", **size), train.size)
    network = PretrainedNetwork(arguments.model, arguments.weights, {}, train, recipe)
    precision = arguments.precision
    if precision == "auto":
        precision = automatic(lambda: network.build("float32", network.scaling())).policy
    common = {"seed": arguments.seed, "precision": precision, "verbose": 0}

    def ours(**options: Any) -> Callable[[], float]:
        def run() -> float:
            with tempfile.TemporaryDirectory() as folder:
                done = training.train(arguments.model, sets, run_dir=Path(folder) / "run", **common, **size, **options)
                return training.evaluate(done.model, test).top1

        return run

    def guide() -> float:
        model = network.build(precision, network.scaling())
        return accuracy(by_the_guide(model, recipe, train, arguments.seed), model, test)

    ways = {
        "fine_tune": ours(weights=arguments.weights),
        "fine_tune --head-only": ours(weights=arguments.weights, head_only=True),
        "keras.io's guide": guide,
        "fast, from scratch": ours(model_options=network.options),  # the architecture of the weights
    }
    for name, way in ways.items():
        if arguments.only and arguments.only not in name:
            continue
        begin = time.perf_counter()
        top1 = way()
        minutes = (time.perf_counter() - begin) / 60
        print(
            f"| {count or 'all'} per class ({train.size}) | {name} | {100 * top1:.1f} % | {minutes:.1f} min |",
            flush=True,
        )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a network")
    parser.add_argument("data", help="a folder with a train and a test split")
    parser.add_argument("--weights", required=True, help="a card, a file, or a run folder")
    parser.add_argument("--counts", default="20,100,all", help="numbers of images per class, comma-separated")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--precision", default="auto", help="auto chooses by the machine, once for all recipes")
    parser.add_argument("--only", help="measure only the recipe whose name contains this text")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    from keras_deepnets import data as datasets

    data, test = (datasets.load(arguments.data, split, seed=arguments.seed) for split in ("train", "test"))
    print("| images | recipe | test accuracy | time |\n|---|---|---|---|", flush=True)
    for count in arguments.counts.split(","):
        compare(arguments, data, test, None if count == "all" else int(count))


if __name__ == "__main__":
    main()
