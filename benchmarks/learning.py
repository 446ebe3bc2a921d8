"""Train the same network on the same images with the same recipe in stock Keras, as a baseline for accuracy and speed.

    python -m benchmarks.learning resnet20 FOLDER --epochs 15 --dtype bfloat16

Layers, optimizer, loss and weight averaging come from Keras. The input pipeline comes from this library and is not a bottleneck. Prints
one line per epoch and the test accuracy. The matching run of this library is
`keras-deepnets train resnet20 FOLDER --set epochs=15 --precision mixed_bfloat16`.
"""

from __future__ import annotations

import argparse
import time


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--epochs", type=float, default=15)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    import keras

    from keras_deepnets import data as datasets
    from keras_deepnets.benchmark.twins import stock_twin
    from keras_deepnets.training import feed, get_recipe
    from keras_deepnets.training.networks import NamedNetwork
    from keras_deepnets.training.schedules import learning_rate
    from keras_deepnets.training.sizing import sized

    images = datasets.load(arguments.data, "train", seed=arguments.seed)
    test = datasets.load(arguments.data, "test", seed=arguments.seed)
    recipe = sized(get_recipe(arguments.recipe, epochs=arguments.epochs), images.size)
    keras.utils.set_random_seed(arguments.seed)
    network = NamedNetwork(arguments.model, {}, images, recipe)
    precision = "float32" if arguments.dtype == "float32" else "mixed_bfloat16"
    model = stock_twin(network.build(precision, network.scaling()))
    policy = recipe.augmentation
    if policy == "auto":
        policy = feed.suitable_augmentation(images, network.side())
    steps_per_epoch = images.size // recipe.batch_size
    steps = recipe.total_steps(steps_per_epoch)
    optimizer = keras.optimizers.SGD(
        learning_rate(recipe, steps, steps_per_epoch),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        # Keras applies weight decay outside the momentum, so it lacks the factor 1 / (1 - momentum).
        weight_decay=recipe.weight_decay / (1.0 - recipe.momentum),
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema or 0.99,
    )
    if recipe.weight_decay_on == "kernels":
        optimizer.build(model.trainable_variables)
        optimizer.exclude_from_weight_decay([each for each in model.trainable_variables if len(each.shape) < 2])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])
    classes = len(images.labels)

    def one_hot(batch, labels):
        import tensorflow as tf

        return batch, tf.one_hot(labels, classes)

    begin = time.perf_counter()
    model.fit(
        feed.training(model, images, recipe, policy, arguments.seed, 0).map(one_hot),
        epochs=round(arguments.epochs),
        steps_per_epoch=steps_per_epoch,
        callbacks=[keras.callbacks.SwapEMAWeights()] if recipe.ema is not None else [],
        verbose=2,
    )
    print(f"trained in {time.perf_counter() - begin:.0f} s")
    model.compile(loss=loss, metrics=["accuracy"])
    values = model.evaluate(feed.evaluation(model, test, 256).map(one_hot), verbose=0, return_dict=True)
    print(f"test accuracy {100 * values['accuracy']:.2f} %")


if __name__ == "__main__":
    main()
