"""Pictures of runs and networks by the name of their kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets import insight
from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures
from keras_deepnets.reports import subjects
from keras_deepnets.reports.predicting import Predictions, predictions_on
from keras_deepnets.reports.subjects import Subject, Target

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What a kind of picture may need beside the model.

    Attributes:
        path: Path of the picture.
        data: Source of images, or None for the run's own.
        split: Split of the source, or None.
        count: Number of images, or None for the kind's default.
        seed: Seed of random choices.
        say: Called with the current step.
    """

    path: Path
    data: str | os.PathLike | None = None
    split: str | None = None
    count: int | None = None
    seed: int = 0
    say: Progress = lambda step: None

    def images(self, subject: Subject, default: int) -> tuple[Any, Any, Any]:
        """Return images as the network sees them, their labels, and the data."""
        self.say("reading the images")
        data = subject.measured(self.data, self.split).images
        return (*subjects.view_of(subject.model, data, self.count or default, self.seed), data)


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        name: Name of the kind.
        shows: What it shows, in a few words.
        draw: Draws it for several subjects. Its second argument is a `Request`. None: it is drawn from the run folders alone.
        several: Whether it can show several runs or models.
        trained: Whether it needs trained weights.
        detectors: Whether it works for detectors.
    """

    name: str
    shows: str
    draw: Callable[[list[Subject], Request], Path] | None
    several: bool = False
    trained: bool = True
    detectors: bool = False


def _classified(subject: Subject, request: Request) -> tuple[Predictions, Any]:
    """Classify the images. Return the predictions and the class names."""
    request.say("reading the images")
    data = subject.measured(request.data, request.split).images
    data = data.take(request.count, request.seed) if request.count else data
    request.say(f"classifying {data.size:,} images")
    return predictions_on(subject.model, data), data.labels


def _confusion(found: list[Subject], request: Request) -> Path:
    result, labels = _classified(found[0], request)
    return insight.draw_confusion(result.evaluation.confusion, labels, request.path, found[0].name)


def _calibration(found: list[Subject], request: Request) -> Path:
    result, _ = _classified(found[0], request)
    measured = insight.calibration(result.probabilities, result.truths)
    return insight.draw_calibration(measured, request.path, found[0].name)


def _grad_cam(found: list[Subject], request: Request) -> Path:
    subject = found[0]
    images, truths, data = request.images(subject, 12)
    return insight.draw_grad_cam(subject.model, images, request.path, data.labels, truths.tolist(), title=subject.name)


def _gates(found: list[Subject], request: Request) -> Path:
    images, _, _ = request.images(found[0], 256)
    return insight.draw_gates(found[0].model, images, request.path, found[0].name)


def _responses(found: list[Subject], request: Request) -> Path:
    responses = {}
    for subject in found:
        images, _, _ = request.images(subject, 256)
        responses[subject.name] = insight.layer_responses(subject.model, images)
    return insight.draw_responses(responses, request.path, "Layer responses" if len(found) > 1 else found[0].name)


def _surface(found: list[Subject], request: Request) -> Path:
    subject = found[0]
    images, truths, _ = request.images(subject, 256)
    surface = insight.loss_surface(
        subject.model,
        images,
        truths,
        seed=request.seed,
        progress=lambda done, all_: request.say(f"loss at point {done} of {all_}"),
    )
    return insight.draw_loss_surface(surface, request.path, subject.name)


def _of_model(draw: Callable[..., Path]) -> Callable[[list[Subject], Request], Path]:
    """Return the drawer of a kind that needs only the model."""
    return lambda found, request: draw(found[0].model, request.path, found[0].name)


CURVES = "curves"
_ALL = (
    Kind(CURVES, "error, loss and learning rate of one or more runs", None, True, detectors=True),
    Kind("confusion", "which classes are mistaken for which", _confusion),
    Kind("calibration", "accuracy against the probability of the prediction", _calibration),
    Kind("grad-cam", "which parts of images speak for the predicted class", _grad_cam),
    Kind("filters", "the filters of the first layer", _of_model(insight.draw_filters)),
    Kind("reuse", "which earlier features the layers of a DenseNet read", _of_model(insight.draw_feature_reuse)),
    Kind("gates", "biases and activity of the transform gates of a highway network", _gates),
    Kind("responses", "standard deviation of the responses of each layer, of one or more models", _responses, True),
    Kind("surface", "the loss along two random directions of the weights", _surface),
    Kind("stages", "receptive field and activation memory", _of_model(insight.draw_stages), trained=False),
    Kind(
        "network",
        "the blocks of the network",
        lambda found, request: insight.draw_network(found[0].model, request.path),
        trained=False,
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
"""The kinds of pictures by name."""


def plot(
    targets: Target | Sequence[Target],
    kind: str,
    path: str | os.PathLike | None = None,
    *,
    data: str | os.PathLike | None = None,
    split: str | None = None,
    images: int | None = None,
    seed: int = 0,
    say: Progress = lambda step: None,
) -> Path:
    """Draw a picture of a run or a model.

    Args:
        targets: A run folder, a ``.keras`` file or a model, or several of them for ``"curves"`` and ``"responses"``. For
            ``"stages"`` and ``"network"``, also the name of a network.
        kind: One of `KINDS`.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`). Default: ``NAME-KIND.png`` in the
            current folder.
        data: Source of images as for `keras_deepnets.data.load`. Default: the images that the run held out.
        split: Split of the source.
        images: Number of images. Default: 12 for ``"grad-cam"``, 256 for ``"gates"``, ``"responses"`` and ``"surface"``, and
            all images for ``"confusion"`` and ``"calibration"``.
        seed: Seed of the choice of images, and of the directions of ``"surface"``.
        say: Called with the current step.

    Returns:
        The path.

    Raises:
        InputError: An argument is wrong, the kind does not fit the network, or the picture cannot be written.
    """
    if kind not in KINDS:
        raise InputError(f"Unknown picture {kind!r}. The kinds: {', '.join(KINDS)}.")
    chosen = KINDS[kind]
    several = list(targets) if isinstance(targets, (list, tuple)) else [targets]
    if not several or (len(several) > 1 and not chosen.several):
        many = ", ".join(name for name, each in KINDS.items() if each.several)
        raise InputError(f"{kind} shows one run or model, and {len(several)} are given. These show several: {many}.")
    if images is not None and images < 1:
        raise InputError(f"images={images} must be at least 1.")
    name = "-".join(_name(target) for target in several[:3])
    target = figures.check_path(path if path is not None else f"{name}-{kind}.png")
    if chosen.draw is None:
        return insight.draw_curves(_named_runs(several), target)
    found = [subjects.open_subject(each, trained=chosen.trained) for each in several]
    for subject in found:
        if subjects.is_detector(subject.model) and not chosen.detectors:
            raise InputError(
                f"{kind} is for classifiers, and {subject.name} is a detector. For it: curves, or `keras-deepnets report`."
            )
    return chosen.draw(found, Request(target, data, split, images, seed, say))


def _name(target: Target) -> str:
    if not isinstance(target, (str, os.PathLike)):
        return str(target.name)
    path = Path(target)
    return path.resolve().name if path.is_dir() else path.stem


def _named_runs(targets: Sequence[Target]) -> dict[str, Path]:
    """Return the run folders by distinct names.

    Raises:
        InputError: A target is not in a run folder, or the runs have different tasks.
    """
    runs = []
    for target in targets:
        run = subjects.run_of(target)
        if run is None:
            raise InputError(f"curves need the folder of a run; {_name(target)} is none.")
        runs.append(run)
    return named(runs)


def named(runs: Sequence[Any]) -> dict[str, Path]:
    """Return the folders of runs by distinct names: that of the folder, or the path if two folders have the same name.

    Raises:
        InputError: Some runs are of classifiers and some of detectors, or a run has no epoch yet.
    """
    if len({run.task for run in runs}) > 1:
        raise InputError("Runs of classifiers and of detectors have different measures; compare them separately.")
    for run in runs:
        if not run.metrics:
            raise InputError(f"{run.path} has no epoch yet; wait until its first epoch ends.")
    names = [run.name for run in runs]
    texts = [run.name if names.count(run.name) == 1 else str(run.path) for run in runs]
    return dict(zip(texts, (run.path for run in runs), strict=True))
