"""Fine-tune an ImageNet network on a folder of photos (FOLDER/<class>/*.jpg) and export it for TF Serving.

    python fine_tune_folder.py photos                                    # downloads weights once
    python fine_tune_folder.py photos --model resnet18 --weights my_run  # from a run folder, a card or a weight file

The recipe `fine_tune` chooses the batch size and the number of epochs from the number of images. It trains the classifier alone,
then all layers. `keras-deepnets train resnet50 photos --weights imagenet` does the same on the command line, without the export.
For a try-out, add ``--epochs 1 1``. The script prints a line for each epoch. The last two lines are
``test accuracy … % on … images`` and the folder of the exported version, ``fine_tuned/1``.
"""

import argparse

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", help="folder with one sub-folder of images per class, or a TFDS name")
parser.add_argument("--model", default="resnet50")
parser.add_argument("--weights", default="imagenet", help="card, weight file or folder of a finished run")
parser.add_argument("--image-size", type=int, help="side in pixels; by default that of the weights")
parser.add_argument("--epochs", type=int, nargs=2, metavar=("HEAD", "ALL"), help="by default from the number of images")
parser.add_argument("--run", default="fine_tuning", help="folder of the run; the same command resumes it")
parser.add_argument("--out", default="fine_tuned", help="folder of the exported versions")
args = parser.parse_args()

chosen = {"head_epochs": args.epochs[0], "epochs": args.epochs[1]} if args.epochs else {}
if args.image_size:
    chosen["image_size"] = args.image_size
run = kd.training.train(args.model, args.folder, run_dir=args.run, weights=args.weights, **chosen)
test = kd.data.load(args.folder, "test")
print(f"test accuracy {100 * kd.training.evaluate(run.model, test).top1:.2f} % on {test.size} images")
print(kd.export.saved_model(run.model, args.out))
