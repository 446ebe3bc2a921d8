"""Train ResNet50 on ImageNet as Goyal et al. 2017 do (section 5.1), on one or more GPUs of a machine.

    python train_imagenet.py --precision mixed_bfloat16          # all GPUs; imagenet2012 prepared by TFDS
    python train_imagenet.py --data photos --model resnet18 --image-size 64 --epochs 2 --batch 8    # try-out

The same command resumes an interrupted run. The paper's top-1 error is 23.60 % ± 0.12 (centre crop of 224 × 224).
90 epochs are 115 million images: 32 hours at 1,000 images per second, or 67 days on two CPU cores with AMX (19.8 per second,
docs/benchmarks.md). The try-out ends with ``resnet18, N device(s): top-1 error … % on … images``.
"""

import argparse

import keras
import tensorflow as tf

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="imagenet2012", help="TFDS name, or folder")
parser.add_argument("--model", default="resnet50")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--epochs", type=int, default=90)
parser.add_argument("--batch", type=int, default=256, help="images per step over all GPUs")
parser.add_argument("--devices", nargs="*", help="e.g. GPU:0 GPU:1; by default all GPUs")
parser.add_argument("--precision", default="float32", help="or mixed_bfloat16, mixed_float16")
parser.add_argument("--out", default="imagenet", help="folder for metrics, checkpoints and the model")
args = parser.parse_args()
keras.utils.set_random_seed(0)
keras.config.set_dtype_policy(args.precision)
train, held = kd.data.load(args.data, "train"), kd.data.load(args.data, "validation")
steps = train.steps(args.batch, drop_remainder=True)
options = {"downsample": "3x3", "zero_init_residual": True} if args.model == "resnet50" else {}
peak = 0.1 * args.batch / 256  # linear scaling rule; above 0.1, warm-up from 0.1 over five epochs
rate = kd.training.PiecewiseDrops(peak, [round(part * args.epochs * steps) for part in (1 / 3, 2 / 3, 8 / 9)])
rate = kd.training.WarmUp(rate, 5 * steps, 0.1) if peak > 0.1 else rate

shape, strategy = (args.image_size, args.image_size, 3), tf.distribute.MirroredStrategy(args.devices)
with strategy.scope():
    model = kd.create_model(args.model, input_shape=shape, classes=train.classes, include_preprocessing=True, **options)
    optimizer = kd.training.CoupledSGD(rate, momentum=0.9, nesterov=True, l2=1e-4, l2_on="kernels")
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
model.labels = train.labels
store = kd.training.CheckpointStore(f"{args.out}/checkpoints")
history = state.history if (state := store.restore(model)) else []
view = {"training": True, "augment": "random_resized_crop_flip", "first_epoch": len(history), "repeat": True}
metrics = kd.training.MetricsFile(f"{args.out}/metrics.csv", history, args.batch)
model.fit(
    train.batches(args.batch, args.image_size, 3, drop_remainder=True, **view),
    steps_per_epoch=steps,
    validation_data=held.batches(args.batch, args.image_size, 3, crop_fraction=0.875),
    initial_epoch=len(history),
    epochs=args.epochs,
    callbacks=[metrics, kd.training.Checkpoint(store, history)],
    shuffle=False,
    verbose=2,
)
model.save(f"{args.out}/model.keras")
error = 100 * (1 - history[-1]["val_accuracy"])
print(f"{args.model}, {strategy.num_replicas_in_sync} device(s): top-1 error {error:.2f} % on {held.size} images")
