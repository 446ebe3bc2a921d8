"""A network that knows ImageNet learns your classes: FOLDER/<class>/*.jpg in, a SavedModel for TF Serving out.

    python fine_tune_folder.py photos                                          # downloads weights once
    python fine_tune_folder.py photos --weights none --model resnet18 --image-size 64 --epochs 1 1    # to try it out

First the new classifier alone, on features that stand still; then all layers, at a rate that changes them little.
Cost (estimate from docs/benchmarks.md): 1,000 images on two CPU cores take 3 minutes for the classifier (5 epochs at 30
images a second) and 18 minutes for all layers (10 epochs at 9.2). It aims at no row of a table: Kornblith et al. 2019
have the accuracies of twelve data sets to hold it against, after 20,000 steps of 256 images each.
"""

import argparse

import keras

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", help="with a sub-folder of images for each class (or a TFDS name)")
parser.add_argument("--model", default="resnet50")
parser.add_argument("--weights", default="torchvision/imagenet1k_v2", help="card, file, or none")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--epochs", type=int, nargs=2, default=(5, 10), metavar=("HEAD", "ALL"))
parser.add_argument("--rates", type=float, nargs=2, default=(0.05, 0.005), metavar=("HEAD", "ALL"))
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--out", default="fine_tuned", help="folder of the exported versions")
args = parser.parse_args()

keras.utils.set_random_seed(0)
train, held, test = (kd.data.load(args.folder, split) for split in ("train", "validation", "test"))
batch = min(args.batch, train.size)
model = kd.create_model(
    args.model,
    input_shape=(args.image_size, args.image_size, 3),
    weights=None if args.weights == "none" else args.weights,
    include_preprocessing=True,  # scales its input as these weights want it
)
model = kd.replace_classifier(model, train.classes)
model.labels = train.labels

view = {"image_size": args.image_size, "channels": 3, "interpolation": model.scaling.interpolation}
seen = train.batches(batch, training=True, augment="random_resized_crop_flip", drop_remainder=True, **view)
fixed = held.batches(batch, crop_fraction=model.scaling.crop_fraction, **view)


def fit(part: str, epochs: int, rate: float) -> None:
    """Trains what is not frozen, with half a cosine from `rate` to zero."""
    schedule = kd.training.HalfCosine(rate, max(1, epochs * train.steps(batch, drop_remainder=True)))
    loss = kd.training.SmoothedCrossentropy(0.1)
    model.compile(kd.training.CoupledSGD(schedule, nesterov=True, l2=1e-4), loss, metrics=["accuracy"])
    model.fit(seen, validation_data=fixed, epochs=epochs, shuffle=False, verbose=2)
    print(f"{part}: test accuracy {100 * kd.training.evaluate(model, test).top1:.2f} % on {test.size} images")


kd.freeze(model)
fit("classifier alone", args.epochs[0], args.rates[0])
model.trainable = True
fit("all layers", args.epochs[1], args.rates[1])
print(kd.export.saved_model(model, args.out))
