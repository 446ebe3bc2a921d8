"""The commands `train`, `evaluate`, `predict` and `export` for detectors."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets import registry
from keras_deepnets.cli import artifacts, catalog, show
from keras_deepnets.cli.export import Export, check_export, names_in
from keras_deepnets.cli.images import image_files
from keras_deepnets.cli.problems import PROGRAM, CheckFailed, Interrupted
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.cli.train import with_precision
from keras_deepnets.errors import InputError
from keras_deepnets.weights.download import DownloadError

if TYPE_CHECKING:
    from keras_deepnets.detection import DetectionEvaluation, Detector

RUN_FILES = {
    "model.keras": "the trained detector",
    "curves.png": "loss and learning rate over the epochs",
    "metrics.csv": "the losses and the average precision, one row per epoch",
    "evaluation.json": "average precision on the validation images",
    "precision_recall.png": "precision-recall curves of the classes",
    "examples.png": "the best and the worst validation images",
    "detections.png": "validation images with predicted and true boxes",
    "inputs.png": "training images as the network sees them",
    "config.json": "configuration of the run",
    "tensorboard": "curves and pictures for `tensorboard --logdir`",
    "checkpoints": "the latest checkpoints, used to resume",
}


def names_detector(name: str) -> bool:
    """Whether a name is that of a detector or of the builder of detectors."""
    try:
        return registry.constructor_of(name).facts.family.task == "detection"
    except InputError:
        return False


def holds_detector(path: Path | None) -> bool:
    """Whether a path is the run folder or the ``.keras`` file of a detector."""
    if path is None:
        return False
    file = path / "model.keras" if path.is_dir() else path
    try:
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read("config.json")).get("class_name") == "Detector"
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def train(
    name: str,
    source: str,
    run_dir: Path | None,
    recipe: str | None,
    settings: dict[str, Any],
    options: dict[str, Any],
    *,
    weights: str | None,
    weights_backbone: str | None,
    validation: str | float | bool | None,
    limit: int | None,
    precision: str | None,
    seed: int,
    unused: Mapping[str, Any],
    distribute: str = "none",
    connect_within: float = 600.0,
    checkpoint_every: str | None = None,
    as_json: bool,
) -> None:
    """Train a detector, or resume a run. Print the files of the run.

    `unused` maps the options that only classifiers have to their values.
    """
    given = [flag for flag, value in unused.items() if value]
    if given:
        raise InputError(f"{given[0]} is for classifiers; leave it out to train {name}.")
    if precision is not None:
        settings = with_precision(settings, precision)
    size = settings.pop("image_size", None)
    if size is not None:
        options = {"min_size": size, "max_size": max(size, round(size * 5 / 3))} | options
    recipe = recipe or "fast"
    from keras_deepnets.detection.training.recipes import get_recipe

    get_recipe(recipe, **settings)
    catalog.check_options(name, options)
    load_tensorflow()
    from keras_deepnets import detection, distribution

    mode, group = distribution.join(distribute, connect_within)
    as_json = as_json and group.is_chief
    try:
        run = detection.train(
            name,
            source,
            recipe,
            run_dir,
            weights=weights,
            weights_backbone=weights_backbone,
            validation=validation,
            limit=limit,
            seed=seed,
            verbose=0 if as_json else "auto",
            model_options=options,
            distribute=mode,
            **({} if checkpoint_every is None else {"checkpoint_every": checkpoint_every}),
            **settings,
        )
    except DownloadError as error:
        raise InputError(f"{error} Leave out the weights to train from scratch.") from error
    except KeyboardInterrupt:
        raise Interrupted("" if not as_json else "interrupted; rerun the same command to resume") from None
    if not group.is_chief:
        show.print_worker_done(group)
        return
    files = {file: str(run.path / file) for file in RUN_FILES if (run.path / file).exists()}
    if as_json:
        values = {"run": str(run.path), "metrics": run.metrics, "files": files}
        show.print_json(values | {"evaluation": run.evaluation and run.evaluation.to_dict()})
        return
    count, seconds = run.metrics["epochs"], run.metrics["seconds"]
    print(f"Trained {count:g} epoch{'s' if count != 1 else ''} in {seconds:.0f} s.")
    if run.evaluation is not None:
        _print_table(run.evaluation)
    print()
    rows = [(path, show.bytes_text(show.size_of(Path(path))), RUN_FILES[file]) for file, path in files.items()]
    show.print_table(("file", "size", "what it is"), rows, right=("size",))
    print("Next:")
    for line in (f"predict {run.path} IMAGE --out pictures", f"evaluate {run.path} {source} --split val"):
        print(f"  {PROGRAM} {line}")


def evaluate(
    model: Path,
    source: str | None,
    split: str | None,
    *,
    batch_size: int | None,
    curves: Path | None,
    errors: Path | None,
    worst: int,
    unused: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Print the average precision of a trained detector on labelled images. Draw pictures if requested."""
    given = [flag for flag, value in unused.items() if value]
    if given:
        raise InputError(f"{given[0]} is for classifiers; leave it out to evaluate {model}.")
    if source is None:
        raise InputError("evaluate: name the DATA to measure on, e.g. a Pascal VOC folder.")
    from keras_deepnets.detection import data as sets
    from keras_deepnets.detection.training.feeding import held_out

    artifact = artifacts.find(model)
    load_tensorflow()
    from keras_deepnets.detection import evaluating, pictures
    from keras_deepnets.detection.training.validating import has_coco

    images = sets.load(source, split) if split is not None else held_out(source)
    detector = _opened(artifact)
    found: list[Any] = []
    true: list[Any] = []

    def keep(place: int, truth: Any, detections: Any) -> None:
        true.append(truth)
        found.append(detections)

    result = evaluating.evaluate(detector, images, batch_size=batch_size or 1, coco=has_coco(), each=keep)
    if curves is not None:
        pictures.precision_recall(result, curves)
    drawn = None
    if errors is not None:
        count = max(1, min(worst, 12))
        drawn = pictures.best_and_worst(errors, evaluating.ImagesOf(images), true, found, images.classes, count)
    values = {"model": str(artifact.path), "data": source, "split": images.split, **result.to_dict()}
    if as_json:
        show.print_json(values)
        return
    print(f"{artifact.path} on {len(images):,} images of {source} (split {images.split}): {_summary(result)}")
    _print_table(result)
    if images.dropped.total:
        print(images.report())
    if not has_coco():
        print('COCO metrics need a package: pip install "keras-deepnets[detection]"')
    if curves is not None:
        print(f"Precision-recall curves: {curves}")
    if drawn is not None:
        print(f"Best and worst images: {drawn}")


def _summary(result: DetectionEvaluation) -> str:
    """The main numbers of an evaluation in one line."""
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "voc07": "VOC 2007 mAP"}
    numbers = {text: getattr(result, name) for name, text in names.items()}
    return ", ".join(f"{text} {show.percent(value)}" for text, value in numbers.items() if value is not None)


def _print_table(result: Any) -> None:
    heading, *rows = result.table()
    show.print_table(heading, rows, right=heading[1:])


def predict(
    model: Path,
    paths: list[Path],
    *,
    out: Path | None,
    score: float,
    strict: bool,
    unused: Mapping[str, Any],
    as_json: bool,
) -> None:
    """Print the objects in image files, one line per image, and write pictures with boxes and `detections.json`.

    Raises:
        CheckFailed: Some images were broken. Raised after all images are done.
    """
    given = [flag for flag, value in unused.items() if value]
    if given:
        raise InputError(f"{given[0]} is for classifiers; leave it out to predict with {model}.")
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder.")
    artifact = artifacts.find(model)
    files = image_files(paths)
    load_tensorflow()
    detector = _opened(artifact)
    from keras_deepnets.detection.detecting import as_pixels, detect

    results: list[dict[str, Any]] = []
    for file in files:
        try:
            pixels = as_pixels(file)
        except InputError as error:
            if strict:
                raise
            results.append({"image": str(file), "objects": [], "error": str(error)})
            continue
        found = detect(detector, pixels)[0]
        results.append({"image": str(file), "objects": _objects(found, detector, score), "error": None})
        if out is not None:
            _draw(out, file, pixels, found, detector, score)
        if not as_json:
            print(_line(results[-1]), flush=True)
    if out is not None:
        from keras_deepnets.files import write_json

        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "detections.json", {"images": results})
    if as_json:
        show.print_json(results)
    broken = [result for result in results if result["error"]]
    for result in broken if not as_json else ():
        print(f"{result['image']}  error: {result['error']}")
    if broken:
        raise CheckFailed(f"{len(broken):,} of {len(files):,} images cannot be read.")


_UNUSED = ("top_k", "features", "batch_size")
"""Options of `export` that only classifiers have."""


def export(model: Path, request: Export, *, as_json: bool) -> None:
    """Export a detector. Print the path, the size, and the difference from the Keras model on a few images of noise."""
    from keras_deepnets.export.litert import CALIBRATED

    given = [name for name in _UNUSED if name in request.options]
    if request.calibration or request.any_batch or not request.integer_io or request.data or given:
        flag = (
            given[0].replace("_", "-")
            if given
            else "data"
            if request.data
            else "calibration, --any-batch and --float-io"
        )
        raise InputError(f"--{flag}: for classifiers only; leave it out to export {model}.")
    options = dict(request.options)
    size = options.pop("image_size", None)
    if request.form == "openvino":
        raise InputError("--format openvino is for classifiers; export onnx, which OpenVINO reads too.")
    if request.quantize in CALIBRATED:
        raise InputError(
            f"--quantize {request.quantize}: boxes need more than 8 bits; a detector takes float16 or dynamic."
        )
    if request.form in ("tflite", "onnx") and size is None:
        raise InputError(f"--format {request.form} needs --image-size HEIGHTxWIDTH, multiples of 32, e.g. 320x416.")
    check_export(dataclasses.replace(request, options=options))
    labels = None if request.labels is None else names_in(request.labels)
    artifact = artifacts.find(model)
    load_tensorflow()
    from keras_deepnets.detection import export as exports

    with show.steps(quiet=as_json) as say:
        say("loading the model")
        detector = _opened(artifact)
        say(f"converting to {request.form}")
        with native_output_held_back():
            if request.form == "savedmodel":
                path = exports.saved_model(
                    detector,
                    request.out,
                    labels,
                    request.version,
                    request.fold,
                    data=artifact.trained_on(),
                    **options,
                )
            elif request.form == "tflite":
                path = exports.tflite(detector, request.out, size, request.quantize, labels=labels)
            elif request.form == "onnx":
                path = exports.onnx(detector, request.out, size, labels=labels)
            else:
                raise InputError(f"--format keras: {artifact.path} is a .keras file already; copy it.")
        say("comparing")
        with native_output_held_back():
            compared = _difference(detector, path)
    values: dict[str, Any] = {"path": str(path), "format": request.form, "bytes": show.size_of(path), **compared}
    if as_json:
        show.print_json(values)
        return
    print(f"{path}  {show.bytes_text(values['bytes'])}")
    found = f"{values['objects']} objects in {values['images']} images of noise"
    print(f"{found}; {values['same']} are the same as those of the Keras model, to 1 pixel and 0.001 in the score.")


def _difference(detector: Detector, path: Path) -> dict[str, int]:
    """How many objects the export finds in images of noise, and how many of them the Keras model finds too."""
    import numpy as np

    from keras_deepnets.detection import detect
    from keras_deepnets.detection import export as exports

    side = min(detector.min_size, 320)
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    objects = same = 0
    for here, there in zip(detect(detector, noise), exports.predict(path, list(noise)), strict=True):
        assert there is not None, "an array is never broken"
        objects += len(there["boxes"])
        for box, score, label in zip(there["boxes"], there["scores"], there["labels"], strict=True):
            near = np.abs(here["boxes"] - box).max(axis=1, initial=0) < 1
            same += bool((near & (np.abs(here["scores"] - score) < 1e-3) & (here["labels"] == label)).any())
    return {"images": len(noise), "objects": objects, "same": same}


def _opened(artifact: artifacts.Artifact) -> Detector:
    return artifact.model()  # type: ignore[return-value]


def _objects(found: Mapping[str, Any], detector: Detector, score: float) -> list[dict[str, Any]]:
    names = detector.labels
    return [
        {
            "label": names[label] if names else str(label),
            "score": round(float(value), 4),
            "box": [round(float(side), 1) for side in box],
        }
        for box, value, label in zip(found["boxes"], found["scores"], found["labels"].tolist(), strict=True)
        if value >= score
    ]


def _line(result: Mapping[str, Any]) -> str:
    counts: dict[str, int] = {}
    for item in result["objects"]:
        counts[item["label"]] = counts.get(item["label"], 0) + 1
    texts = [f"{count} × {label}" for label, count in counts.items()]
    return f"{result['image']}  {', '.join(texts) if texts else 'no objects'}"


def _draw(out: Path, file: Path, pixels: Any, found: Mapping[str, Any], detector: Detector, score: float) -> None:
    """Write the picture of an image with its boxes as a PNG file."""
    from PIL import Image

    from keras_deepnets.detection import pictures
    from keras_deepnets.files import written_aside

    kept = found["scores"] >= score
    drawn = pictures.draw_boxes(
        pixels, found["boxes"][kept], found["labels"][kept], found["scores"][kept], detector.labels
    )
    out.mkdir(parents=True, exist_ok=True)
    with written_aside(out / f"{file.stem}.png") as aside:
        Image.fromarray(drawn).save(aside, format="PNG")
