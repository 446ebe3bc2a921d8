"""Train a detector on your own boxes, evaluate it, draw what it finds, and export it for TF Serving.

    python detect_objects.py cells                                # Pascal VOC, COCO or YOLO folder
    python detect_objects.py cells --backbone resnet50 --weights imagenet --image-size 800

Estimated time on two CPU cores: 60 minutes for 30 epochs of 200 images at 320 pixels with a ResNet18.
For a try-out, add ``--epochs 1 --image-size 160``. The script prints the average precision of each class
and writes ``examples.png`` with the boxes of six images. It then prints the folder of the exported version, ``detector/1``.
`keras-deepnets train FasterRCNN cells --option backbone=resnet18` trains the same on the command line.
"""

import argparse

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", help="folder of images and boxes, or a TFDS name")
parser.add_argument("--split", default="val", help="the split to measure on")
parser.add_argument("--backbone", default="resnet18", help="any network with a feature pyramid")
parser.add_argument("--weights", help="weights of the backbone: card, file or run folder; by default random")
parser.add_argument("--image-size", type=int, default=320, help="shorter side in pixels")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--run", default="detection_run", help="folder of the run; the same command resumes it")
parser.add_argument("--out", default="detector", help="folder of the exported versions")
args = parser.parse_args()

train, held = (kd.detection.load(args.folder, split) for split in ("train", args.split))
run = kd.detection.train(
    "FasterRCNN",
    train,
    validation=held,
    run_dir=args.run,
    weights_backbone=args.weights,
    model_options={"backbone": args.backbone, "min_size": args.image_size, "max_size": 2 * args.image_size},
    min_sizes=[args.image_size],
    max_size=2 * args.image_size,
    epochs=args.epochs,
)

for of_class in run.evaluation.per_class:
    print(f"{of_class.name}: AP50 {100 * (of_class.ap50 or 0):.1f} % of {of_class.objects} objects")

images = [held.image(index) for index in range(min(6, held.size))]
found = kd.detection.detect(run.model, images)
truths = [vars(annotation) for annotation in held.annotations[: len(images)]]
print(kd.detection.save_detections("examples.png", images, found, truths, held.classes))
print(kd.detection.export.saved_model(run.model, args.out))
