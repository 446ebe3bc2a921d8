"""Cards of published weights: their network, URL, expected input and published accuracy. The data is in ``cards.json``.

``python -m tools.collect_cards`` generates the data from the metadata of torchvision, timm, Keras and pytorchcv.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import digest
from keras_deepnets.scaling import Scaling
from keras_deepnets.weights import download, formats, reading
from keras_deepnets.weights.cards import networks

if TYPE_CHECKING:
    import keras

DEFAULT = "imagenet"
"""Name for the first card of a network that was trained on ImageNet-1k."""


@dataclass(frozen=True)
class Card:
    """A set of published weights.

    Attributes:
        name: ``"<source>/<tag>"``, unique for each network.
        constructor: Constructor of the network, e.g. ``"ResNet50"``.
        options: Options that the constructor needs.
        url: URL of the file, or of a zip archive that contains it. An archive's URL ends in ``.zip``, and the file's name is the rest.
        checksum: Checksum of the file: ``"sha256:…"``, ``"sha1:…"`` or ``"md5:…"``, at least the first digits. None if the publisher gives
            none.
        classes: Number of outputs of the classifier.
        labels: Name of the list of class names (``"imagenet"``, ``"cifar10"``), or None.
        scaling: Input scaling of the training, with crop and interpolation at test time.
        image_size: Image side at test time in pixels, to which the scaling's crop fraction belongs. Default input size of constructors.
        metrics: Published metrics at that size in percent, e.g. ``{"top1": 80.858, "top5": 95.434}``. Empty if the publisher's package
            reports none (timm).
        licence: Published licence, or "".
        source: Where the weights come from.
    """

    name: str
    constructor: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)
    checksum: str | None = None
    classes: int = 1000
    labels: str | None = "imagenet"
    scaling: Scaling | None = None
    image_size: int = 224
    metrics: dict[str, float] = field(default_factory=dict)
    licence: str = ""
    source: str = ""

    @property
    def path(self) -> Path:
        """Path of the file in Keras' cache folder, downloaded or not."""
        return download.cache_folder() / f"{self.constructor.lower()}-{self.name.replace('/', '-')}{_suffix(self.url)}"

    @property
    def member(self) -> str | None:
        """The file's name in the archive. None if the URL points to the file itself."""
        return self.url.rpartition("/")[2].removesuffix(".zip") if self.url.endswith(".zip") else None

    def to_dict(self) -> dict[str, Any]:
        """The card as plain JSON values, without default values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        values["scaling"] = self.scaling and self.scaling.to_dict()
        return {name: value for name, value in values.items() if value not in (defaults[name], {})}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Card:
        """The inverse of `to_dict`."""
        scaling = values.get("scaling")
        fields: dict[str, Any] = values | {"scaling": Scaling.from_dict(scaling) if scaling else None}
        return cls(**fields)


def _suffix(url: str) -> str:
    return next(suffix for suffix in reading.SUFFIXES if url.removesuffix(".zip").endswith(suffix))


@functools.cache
def _all() -> tuple[Card, ...]:
    text = resources.files(__name__).joinpath("cards.json").read_text(encoding="utf-8")
    return tuple(map(Card.from_dict, json.loads(text)))


def cards_of(constructor: str) -> tuple[Card, ...]:
    """The cards of a network, the default first. `constructor` is the network's public name."""
    return tuple(card for card in _all() if card.constructor == constructor)


def is_name(source: str) -> bool:
    """Whether `source` has the form of a card's name rather than a file's."""
    if source == DEFAULT:
        return True
    publisher, slash, tag = source.partition("/")
    known = {card.name.partition("/")[0] for card in _all()}
    return (
        bool(slash) and publisher in known and not tag.lower().endswith(reading.SUFFIXES) and not Path(source).exists()
    )


def card(constructor: str, name: str) -> Card:
    """Return the card called `name` of a network. Raise InputError with the existing names if there is none."""
    found = cards_of(constructor)
    if not found:
        raise InputError(
            f"{constructor} has no published weights; pass weights=None, or the path of a file for load_weights."
        )
    if name == DEFAULT:
        name = _default(constructor, found)
    for candidate in found:
        if candidate.name == name:
            return candidate
    names = [candidate.name for candidate in found]
    near = difflib.get_close_matches(name, names, n=3) or names
    raise InputError(f"{constructor} has no weights {name!r}; it has {', '.join(near[:12])}.")


def _default(constructor: str, found: tuple[Card, ...]) -> str:
    if constructor in networks.BUILDERS:
        some = ", ".join(card.name for card in found[:: max(1, len(found) // 4)][:4])
        raise InputError(
            f"{constructor} builds many networks and has no default weights; name specific weights, e.g. {some} "
            f"(`keras-deepnets list --weights {constructor}` and keras_deepnets.weights.list_weights({constructor!r}) list all)."
        )
    return next((card.name for card in found if card.labels == DEFAULT), DEFAULT)


def list_weights(pattern: str = "*") -> list[Card]:
    """List the published weights that have cards. They are grouped by network, the default first.

    Args:
        pattern: Shell pattern for the constructor's or the card's name, e.g. ``"resnet50"``, ``"timm/*"``. Case does not matter.
    """
    return [
        card
        for card in _all()
        if any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for name in (card.constructor, card.name))
    ]


def only(name: str, constructor: str | None) -> Card:
    """Return the card called `name` of the constructor, or of the only network with weights of that name.

    Raises:
        InputError: No card has this name, or several networks have weights of this name.
    """
    if constructor is not None:
        return card(constructor, name)
    if name == DEFAULT:
        raise InputError(f"{name!r} means the default weights of a network; name the network.")
    found = [card for card in _all() if card.name == name]
    if len(found) == 1:
        return found[0]
    owners = [card.constructor.lower() for card in found]
    if not owners:
        near = difflib.get_close_matches(name, {card.name for card in _all()}, n=3)
        hint = f"did you mean {' or '.join(near)}" if near else "`keras-deepnets list --weights` lists all names"
        raise InputError(f"No network has weights {name!r}; {hint}.")
    some = f"{', '.join(owners[:6])}{', …' if len(owners) > 6 else ''}"
    raise InputError(f"{len(owners)} networks have weights {name!r} ({some}); name the network.")


def find(model: keras.Model, name: str) -> Card:
    """Return the card called `name` of the network `model`. Raise InputError if there is none."""
    from keras_deepnets.models import network_of

    architecture = getattr(network_of(model) or model, "architecture", None)
    if not architecture:
        raise InputError(f"{model.name} is not of this library, but the weights {name!r} are; give the path of a file.")
    return card(architecture["constructor"], name)


def of_file(path: Path) -> Card | None:
    """Return the card of a published file, found by its checksum. The file's name and folder do not matter."""
    digests = {kind: digest(path, kind) for kind in ("sha256", "sha1", "md5")}
    for card in _all():
        kind, _, digits = (card.checksum or "").partition(":")
        if digits and digests[kind].startswith(digits):
            return card
    return None


def fetched(card: Card) -> Path:
    """Return the file of a card in the cache folder. Download it if it is missing, with a progress bar on stderr at a terminal.

    Raises:
        DownloadError: The file cannot be downloaded. The message says where to put it by hand.
    """

    def check(part: Path) -> None:
        formats.check(part, card.path.name)

    with download.progress_bar(card.path.name) as progress:
        return download.fetch(
            card.url, card.path, checksum=card.checksum, member=card.member, check=check, progress=progress
        )


def tensors(card: Card) -> reading.Tensors:
    """Return the tensors of a card with its labels and scaling as the record. Download the file if necessary (`fetched`).

    Raises:
        InputError: The file cannot be downloaded or read. A damaged file is removed from the cache.
    """
    path = fetched(card)
    try:
        return described(reading.read(path), card)
    except reading.DamagedFileError as error:
        path.unlink(missing_ok=True)
        raise reading.DamagedFileError(f"{error} It was deleted; the next try downloads it from {card.url}.") from error


def described(found: reading.Tensors, card: Card) -> reading.Tensors:
    """Add the card's information to the tensors of its file."""
    record: dict[str, Any] = {
        "classes": card.classes,
        "labels": labels(card.labels),
        "scaling": card.scaling and card.scaling.to_dict(),
        "input_shape": [card.image_size, card.image_size, card.scaling.channels if card.scaling else 3],
    }
    return dataclasses.replace(found, record=record | dict(found.record or {}), needs=dict(found.needs) | card.options)


def labels(name: str | None) -> list[str] | None:
    """The class names of a data set, ``"imagenet"`` or ``"cifar10"``."""
    if name == DEFAULT:
        from keras_deepnets.labels import imagenet_classes

        return [label for _, label in imagenet_classes()]
    return None if name is None else list(_LABELS[name])


_LABELS = {"cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")}
