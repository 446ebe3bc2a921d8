"""Train a ResNet on CIFAR-10 as He et al. 2015 do (section 4.2), with plain `compile` and `fit`.

    python train_cifar10.py                                      # ResNet20
    python train_cifar10.py --data digits --epochs 3             # try-out: half a minute

Test errors in the paper: ResNet20 8.75 %, ResNet32 7.51 %, ResNet56 6.97 %, ResNet110 6.43 %.
The paper's 64,000 steps of 128 images are 164 epochs. Estimated times on two CPU cores with AMX and
`--precision mixed_bfloat16`: ResNet20 2 hours, ResNet56 6 hours, ResNet110 12 hours. The estimates scale ResNet20's
1,140 images per second (docs/benchmarks.md) by the multiply-adds.
The try-out prints Keras' line for each epoch, then ``resnet20: test error … % on 360 images; cifar10.keras``.
"""

import argparse

import keras

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="cifar10", help="TFDS name, folder of class folders, or digits")
parser.add_argument("--model", default="resnet20", help="a name of `keras-deepnets list --dataset cifar10`")
parser.add_argument("--epochs", type=int, default=164)
parser.add_argument("--limit", type=int, default=10**9, help="largest number of training and test images")
parser.add_argument("--precision", default="float32", help="or mixed_bfloat16, mixed_float16")
parser.add_argument("--out", default="cifar10", help="writes OUT.keras and OUT.csv")
args = parser.parse_args()

keras.utils.set_random_seed(0)
keras.config.set_dtype_policy(args.precision)
train, test = (kd.data.load(args.data, split).take(args.limit) for split in ("train", "test"))
batch = min(128, train.size)
steps = args.epochs * train.steps(batch, drop_remainder=True)

# The network takes uint8 images and scales them by the mean and standard deviation of the training images.
scaling = kd.Scaling(*train.statistics(), crop_fraction=1.0)
shape = (32, 32, train.image_shape[-1])
model = kd.create_model(args.model, input_shape=shape, classes=train.classes, include_preprocessing=scaling)
model.labels = train.labels

rate = kd.training.PiecewiseDrops(0.1, [steps // 2, steps * 3 // 4])
if args.model == "resnet110":  # "we use 0.01 to warm up the training […] (about 400 iterations)"
    rate = kd.training.WarmUp(rate, 400, 0.01, shape="constant")
model.compile(
    kd.training.CoupledSGD(rate, momentum=0.9, l2=1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"]
)
model.fit(
    train.batches(batch, image_size=32, training=True, augment="pad_crop_flip", drop_remainder=True),
    validation_data=test.batches(256, image_size=32),
    epochs=args.epochs,
    callbacks=[kd.training.StopOnNonFinite(), kd.training.MetricsFile(f"{args.out}.csv", [], batch)],
    shuffle=False,  # the input pipeline shuffles
    verbose=2,
)
model.save(f"{args.out}.keras")
result = kd.training.evaluate(model, test)
print(f"{args.model}: test error {100 * (1 - result.top1):.2f} % on {result.size} images; {args.out}.keras")
