"""Build, train, save and reload a network that no paper lists, without custom objects.

    python custom_variant.py                                                   # CIFAR-10
    python custom_variant.py --data digits --limit 256 --epochs 1              # try-out: half a minute

The options of a builder (`help(kd.ResNet)`) combine freely. No paper reports such a network. Test errors of similar networks
on CIFAR-10: ResNet20 8.75 %, ResNet110 6.43 % (He et al. 2015), DenseNet40_12 5.24 % (Huang et al. 2016).
Estimated time on two CPU cores in bfloat16: 90 minutes for 30 epochs of CIFAR-10. The estimate scales ResNet20's 1,140
images per second (docs/benchmarks.md) by the multiply-adds: se-resnet20 has four times as many.
The try-out prints the parameters, Keras' line for the epoch, and
``variant.keras reloaded: outputs differ by 0; test accuracy … % on 256 images``.
"""

import argparse
from functools import partial

import keras
import numpy as np

import keras_deepnets as kd

NETWORKS = {
    # Twice as wide as ResNet20, with squeeze-and-excitation, stochastic depth and ResNet-D's shortcuts.
    "se-resnet20": partial(
        kd.ResNet, depth=20, stem="cifar", filters=(32, 64, 128), attention="se", stochastic_depth=0.1, shortcut="D"
    ),
    # DenseNet40_12 with a larger growth rate and compression in its transitions.
    "densenet40-16": partial(kd.DenseNet, depth=40, growth_rate=16, stem="cifar", bottleneck=False, compression=0.5),
    # Bottleneck blocks with ResNet-C's deep stem, for images of at least 64 pixels.
    "resnet26-c": partial(kd.ResNet, blocks=(2, 2, 2, 2), block="bottleneck", deep_stem=(32, 32, 64)),
}
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--network", choices=NETWORKS, default="se-resnet20")
parser.add_argument("--data", default="cifar10", help="TFDS name, folder of class folders, or digits")
parser.add_argument("--image-size", type=int, default=32)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--limit", type=int, default=10**9, help="largest number of training and test images")
parser.add_argument("--out", default="variant.keras")
args = parser.parse_args()

keras.utils.set_random_seed(0)
train, test = (kd.data.load(args.data, split).take(args.limit) for split in ("train", "test"))
scaling, shape = kd.Scaling(*train.statistics(), crop_fraction=1.0), (args.image_size,) * 2 + train.image_shape[-1:]
model = NETWORKS[args.network](input_shape=shape, classes=train.classes, include_preprocessing=scaling)
model.labels = train.labels
print(f"{args.network}: {model.count_params():,} parameters; ResNet20 {kd.model_info('resnet20').parameters:,}")

rate = kd.training.OneCycle(0.2, args.epochs * train.steps(64))
optimizer = kd.training.CoupledSGD(rate, nesterov=True, l2=5e-4, l2_on="kernels")
model.compile(optimizer, kd.training.SmoothedCrossentropy(0.1), metrics=["accuracy"])
seen = train.batches(64, image_size=args.image_size, training=True, augment="pad_crop_flip")
model.fit(seen, epochs=args.epochs, callbacks=[kd.training.StopOnNonFinite()], shuffle=False, verbose=2)
model.save(args.out)

again, images = keras.saving.load_model(args.out), test.batches(64, image_size=args.image_size)
difference = np.abs(model.predict(images, verbose=0) - again.predict(images, verbose=0)).max()
accuracy = 100 * kd.training.evaluate(again, test).top1
print(f"{args.out} reloaded: outputs differ by {difference:g}; test accuracy {accuracy:.2f} % on {test.size} images")
