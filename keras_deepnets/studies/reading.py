"""Read the definition of a study from YAML."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.studies.definition import (
    DRAWINGS,
    OF_RUNS,
    Comparison,
    Drawing,
    Label,
    Row,
    Search,
    Study,
    selects,
)
from keras_deepnets.studies.measures import MEASURES
from keras_deepnets.studies.plan import plan
from keras_deepnets.studies.published import published
from keras_deepnets.training import get_recipe

BUILT_IN = Path(__file__).parent / "builtin"
SUFFIXES = (".yaml", ".yml")


def names() -> list[str]:
    """Return the names of the built-in studies."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def load(study: str | os.PathLike, *, paper: bool = False, **overrides: Any) -> Study:
    """Read a study.

    Args:
        study: Name from `names()`, or the path of a YAML file.
        paper: Whether to use the sizes and the recipe of the paper: the file's key `paper` replaces the keys that it
            names.
        **overrides: Keys of the file to replace, e.g. ``data="digits"`` or ``seeds=5``. `set` is merged with that of
            the file. None: no change.

    Raises:
        InputError: The study is unknown, or its file has an error. The message names the file, the key and the rule.
    """
    path = Path(study)
    if path.suffix.lower() not in SUFFIXES:
        if str(study) not in names():
            near = difflib.get_close_matches(str(study), names(), 1, 0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"There is no study {str(study)!r}.{hint} Studies are: {', '.join(names())}. A .yaml file is accepted too."
            )
        path = BUILT_IN / f"{study}.yaml"
    table = _Table(path, _read(path))
    return table.study(paper, {key: value for key, value in overrides.items() if value is not None})


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read study {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"Study {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"Study {path} must be keys with values, e.g. 'title: My study'. See docs/studies/index.md.")
    return values


KEYS = {
    "title": "a line of text",
    "source": "a line of text",
    "claim": "a line of text",
    "note": "text",
    "data": "a data set, e.g. digits",
    "limit": "a whole number of training images",
    "test": "a whole number of test images",
    "recipe": "the name of a recipe, e.g. fast",
    "set": "recipe fields with values, e.g. {epochs: 5}",
    "options": "network options with values, e.g. {stem: cifar}",
    "seeds": "a number of seeds, or a list of seeds",
    "runs": "a list of rows, e.g. '- {network: resnet20, net: residual}'",
    "search": "trials, by, set and options",
    "measures": "a list of measures",
    "figure": "a list of drawings, e.g. '- {draw: curves, groups: net}'",
    "verdict": "a list of comparisons",
    "paper": "keys that --paper replaces",
}
_NEEDED = ("title", "claim", "data", "runs", "verdict")
_OF_ROWS = ("network", "options", "recipe", "set")


class _Table:
    """The values of a file. Each method checks one of them; errors name the file and the key."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self._path, self._values = path, values

    def study(self, paper: bool, overrides: Mapping[str, Any]) -> Study:
        values = self._keys("", self._values, KEYS)
        if paper:
            if "paper" not in values:
                self._fail("paper", "the file has no such key; run the study without --paper")
            values |= self._keys("paper", values["paper"], {key: text for key, text in KEYS.items() if key != "paper"})
        values |= {key: value for key, value in overrides.items() if key != "set"}
        values["set"] = self._mapping("set", values.get("set", {})) | overrides.get("set", {})
        for key in _NEEDED:
            if key not in values:
                self._fail(key, f"the key is missing; give {KEYS[key]}")
        rows = self._rows(values)
        labels = {*rows[0].labels, *OF_RUNS}
        study = Study(
            name=self._path.stem,
            title=self._text("title", values["title"]),
            source=self._text("source", values.get("source", "")),
            claim=self._text("claim", values["claim"]),
            note=self._text("note", values.get("note", "")),
            data=self._text("data", values["data"]),
            limit=self._count("limit", values.get("limit")),
            test=self._count("test", values.get("test")),
            seeds=self._seeds(values.get("seeds", 1)),
            rows=rows,
            measures=self._measures("measures", values.get("measures", ["train_error", "test_error", "parameters"])),
            figure=self._figure(values.get("figure", [{"draw": "curves"}]), labels),
            verdict=self._verdict(values["verdict"], labels, rows),
            search=self._search(values["search"]) if values.get("search") else None,
        )
        self._check_networks(study)
        return study

    def _fail(self, key: str, rule: str) -> Any:
        raise InputError(f"Study {self._path}, key {key}: {rule}.")

    def _keys(self, where: str, values: Any, known: Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
        values = self._mapping(where, values)
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f", did you mean {near[0]!r}?" if near else ";"
                self._fail(
                    f"{where}.{key}" if where else key, f"there is no such key{hint} keys are {', '.join(known)}"
                )
        return values

    def _mapping(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self._fail(key or "(all)", f"{value!r} must be keys with values; give {KEYS.get(key, '{name: value}')}")
        return dict(value)

    def _list(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not value:
            self._fail(key, f"{value!r} must be a list with at least one entry; give {KEYS.get(key, '[a, b]')}")
        return value

    def _text(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            self._fail(key, f"{value!r} must be {KEYS.get(key, 'text')}; put it in quotes")
        return " ".join(value.split())

    def _count(self, key: str, value: Any, lowest: int = 1) -> int | None:
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < lowest):
            self._fail(key, f"{value!r} must be a whole number of at least {lowest}; leave it out for all images")
        return value

    def _seeds(self, value: Any) -> tuple[int, ...]:
        if type(value) is int and value > 0:
            return tuple(range(value))
        seeds = value if isinstance(value, (list, tuple)) else ()
        whole = all(type(seed) is int and seed >= 0 for seed in seeds)
        if not seeds or not whole or len(set(seeds)) < len(seeds):
            self._fail("seeds", f"{value!r} must be a number of seeds of at least 1, or a list of different seeds")
        return tuple(seeds)

    def _measures(self, key: str, value: Any) -> tuple[str, ...]:
        for name in self._list(key, value):
            if not isinstance(name, str) or name not in MEASURES:
                self._fail(key, f"there is no measure {name!r}; measures are {', '.join(MEASURES)}")
        return tuple(value)

    def _rows(self, values: Mapping[str, Any]) -> tuple[Row, ...]:
        options, recipe = self._mapping("options", values.get("options", {})), values.get("recipe", "fast")
        found: list[Row] = []
        for place, entry in enumerate(self._list("runs", values["runs"])):
            where = f"runs[{place}]"
            entry = self._mapping(where, entry)
            if "network" not in entry:
                self._fail(where, "the key network is missing; give the name of a network, e.g. resnet20")
            given = {key: value for key, value in entry.items() if key not in _OF_ROWS}
            choices = {
                key: self._list(f"{where}.{key}", value) if isinstance(value, list) else [value]
                for key, value in given.items()
            }
            for key, each in choices.items():
                if key in OF_RUNS or key in MEASURES:
                    self._fail(f"{where}.{key}", "the name is taken; choose another name for the label")
                if not all(isinstance(one, (str, int, float)) and not isinstance(one, bool) for one in each):
                    self._fail(f"{where}.{key}", f"{given[key]!r} must be a text, a number or a list of these")
            for labels in (dict(zip(choices, each, strict=True)) for each in itertools.product(*choices.values())):
                filled = self._filled(where, {key: entry[key] for key in _OF_ROWS if key in entry}, labels)
                row = Row(
                    network=self._text(f"{where}.network", filled["network"]).lower(),
                    options=options | self._mapping(f"{where}.options", filled.get("options", {})),
                    recipe=self._text(f"{where}.recipe", filled.get("recipe", recipe)),
                    settings=values["set"] | self._mapping(f"{where}.set", filled.get("set", {})),
                    labels=labels,
                )
                if found and set(labels) != set(found[0].labels):
                    expected = ", ".join(found[0].labels) or "none"
                    own = ", ".join(labels) or "none"
                    self._fail(where, f"its labels are {own}, those of runs[0] are {expected}; give all rows the same")
                if any(other.labels == labels and (labels or other.network == row.network) for other in found):
                    shown = ", ".join(f"{key}={value}" for key, value in labels.items()) or row.network
                    self._fail(
                        where, f"an earlier row has the same labels ({shown}); add a label that tells them apart"
                    )
                found.append(row)
        return tuple(found)

    def _filled(self, where: str, value: Any, labels: Mapping[str, Label]) -> Any:
        """Replace ``{label}`` in texts. A text that is only a label gets its value."""
        if isinstance(value, Mapping):
            return {key: self._filled(where, each, labels) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(where, each, labels) for each in value]
        if not isinstance(value, str) or "{" not in value:
            return value
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(value) if name is not None]
            if len(fields) == 1 and value == f"{{{fields[0]}}}":
                return labels[fields[0]]
            return value.format_map(labels)
        except (KeyError, ValueError, IndexError, AttributeError):
            return self._fail(
                where, f"{value!r} names a label that the row does not have; labels are {', '.join(labels) or 'none'}"
            )

    def _figure(self, value: Any, labels: set[str]) -> tuple[Drawing, ...]:
        return tuple(
            self._drawing(f"figure[{place}]", entry, labels) for place, entry in enumerate(self._list("figure", value))
        )

    def _drawing(self, where: str, entry: Any, labels: set[str]) -> Drawing:
        entry = self._keys(where, entry, [field.name for field in dataclasses.fields(Drawing)])
        if entry.get("draw") not in DRAWINGS:
            self._fail(f"{where}.draw", f"{entry.get('draw')!r} must be one of {', '.join(DRAWINGS)}")
        for key in ("panels", "groups"):
            self._known(f"{where}.{key}", entry.get(key), labels)
        if entry["draw"] == "points":
            if "x" not in entry:
                self._fail(
                    f"{where}.x",
                    f"the key is missing; give a label or a measure: {', '.join([*sorted(labels), *MEASURES])}",
                )
            self._known(f"{where}.x", entry["x"], {*labels, *MEASURES})
        for key in ("y", "log", "published"):
            if key in entry:
                several = entry[key] if isinstance(entry[key], list) else [entry[key]]
                entry[key] = tuple(self._list(f"{where}.{key}", several))
        for name in entry.get("y", ()):
            self._known(f"{where}.y", name, set(MEASURES))
        for axis in entry.get("log", ()):
            self._known(f"{where}.log", axis, {"x", "y"})
        if entry.get("published"):
            self._check_published(where, entry)
        return Drawing(**entry)

    def _check_published(self, where: str, entry: Mapping[str, Any]) -> None:
        if entry.get("x") not in ("parameters", "multiply_adds") or entry.get("y") != ("test_error",):
            self._fail(f"{where}.published", "needs x: parameters or multiply_adds, and y: test_error")
        for name in entry["published"]:
            try:
                published(name)
            except ValueError as error:
                self._fail(f"{where}.published", str(error).rstrip("."))

    def _known(self, key: str, name: Any, known: set[str]) -> None:
        if name is not None and (not isinstance(name, str) or name not in known):
            self._fail(key, f"{name!r} must be one of {', '.join(sorted(known))}")

    def _verdict(self, value: Any, labels: set[str], rows: Sequence[Row]) -> tuple[Comparison, ...]:
        found = []
        for place, entry in enumerate(self._list("verdict", value)):
            where = f"verdict[{place}]"
            entry = self._keys(where, entry, [field.name for field in dataclasses.fields(Comparison)])
            for key in ("says", "measure", "lower", "higher"):
                if key not in entry:
                    self._fail(f"{where}.{key}", "the key is missing; a comparison has says, measure, lower and higher")
            self._text(f"{where}.says", entry["says"])
            self._known(f"{where}.measure", entry["measure"], set(MEASURES))
            margin = entry.get("margin", 0)
            if type(margin) not in (int, float) or not 0 <= margin < math.inf:
                self._fail(f"{where}.margin", f"{margin!r} must be a number of at least 0")
            sides = (entry["lower"], entry["higher"])
            for key, side in zip(("lower", "higher"), sides, strict=True):
                self._check_side(f"{where}.{key}", side, labels, rows)
            if not any(isinstance(side, Mapping) for side in sides):
                self._fail(where, "lower and higher are both numbers; give the labels of runs for one of them")
            found.append(Comparison(**entry))
        return tuple(found)

    def _check_side(self, where: str, side: Any, labels: set[str], rows: Sequence[Row]) -> None:
        if type(side) in (int, float) and math.isfinite(side):
            return
        wanted = self._mapping(where, side)
        for label in wanted:
            self._known(f"{where}.{label}", label, labels - {"seed", "trial"})
        chosen = [row for row in rows if selects(wanted, {**row.labels, "network": row.network})]
        if len(chosen) != 1:
            self._fail(where, f"{side!r} selects {len(chosen)} rows of runs; give labels that select exactly one")

    def _search(self, value: Any) -> Search:
        entry = self._keys("search", value, ["trials", "seed", "by", "set", "options"])
        trials = self._count("search.trials", entry.get("trials"))
        if trials is None:
            self._fail("search.trials", "the key is missing; give the number of trials for each row")
        by = entry.get("by", "train_loss")
        self._known("search.by", by, set(MEASURES))
        drawn = {key: self._mapping(f"search.{key}", entry.get(key, {})) for key in ("set", "options")}
        for key, values in drawn.items():
            for name, how in values.items():
                self._check_range(f"search.{key}.{name}", how)
        if not any(drawn.values()):
            self._fail(
                "search",
                "nothing is drawn; give ranges in set or options, e.g. {learning_rate: {from: 0.001, to: 0.1}}",
            )
        return Search(
            trials or 1, self._count("search.seed", entry.get("seed", 0), 0) or 0, by, drawn["set"], drawn["options"]
        )

    def _check_range(self, where: str, how: Any) -> None:
        if isinstance(how, Mapping) and set(how) == {"among"}:
            self._list(f"{where}.among", how["among"])
            return
        numbers = isinstance(how, Mapping) and set(how) == {"from", "to"}
        if (
            not numbers
            or not all(type(each) in (int, float) for each in how.values())
            or not 0 < how["from"] < how["to"]
        ):
            self._fail(where, f"{how!r} must be {{from: a, to: b}} with 0 < a < b, or {{among: [a, b]}}")

    def _check_networks(self, study: Study) -> None:
        """Check networks, options and recipes of all runs, before anything is trained."""
        runs = plan(study)
        for name in study.search.options if study.search else ():
            if not any(name in run.options for run in runs):
                self._fail(f"search.options.{name}", "none of the networks has this option; leave it out")
        seen: set[str] = set()
        for run in runs:
            where = f"runs, row {run.name}"
            if run.name in seen:
                self._fail(where, "two rows have the same folder; give them labels that differ in letters or digits")
            seen.add(run.name)
            try:
                facts = registry.constructor_of(run.network).facts
                if unknown := [name for name in run.options if name not in facts.options]:
                    raise InputError(
                        f"{run.network} has no option {unknown[0]!r}; options are {', '.join(facts.options) or 'none'}"
                    )
                facts.spec_with(dict(run.options))
                if "model_options" in run.settings:
                    raise InputError("set has model_options; give them as options")
                get_recipe(run.recipe).for_model(run.network).with_overrides(**run.settings)
            except (ValueError, TypeError) as error:
                self._fail(where, str(error).rstrip("."))
