"""The package's parts are in an order, and imports point down it; inside functions and for type checkers too."""

import ast
from pathlib import Path

import pytest

import keras_deepnets

PACKAGE = Path(keras_deepnets.__file__).parent

ORDER = (
    "errors",
    "lazy",
    "versions",
    "processor",
    "scaling",
    "records",
    "files",
    "labels",
    "evaluation",
    "layers",
    "models",
    "graphs",
    "families",
    "registry",
    "surgery",
    "weights",
    "facts",
    "predictions",
    "distribution",
    "data",
    "insight",
    "training",
    "export",
    "detection",
    "benchmark",
    "batch",
    "reports",
    "studies",
    "cli",
    "registration",
    "",  # keras_deepnets/__init__.py
)
"""Modules and packages of `keras_deepnets`, the lowest first. Each imports only what stands before it."""


def modules(package):
    """Dotted name to file, without the package's own name: "" for its `__init__.py`."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(package):
    """Each module to the modules of the package that it imports anywhere."""
    known, name = modules(package), package.name
    found = {}
    for module, path in known.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute"
                targets |= {f"{node.module}.{alias.name}" for alias in node.names}
        within = {target[len(name) :].lstrip(".") for target in targets if f"{target}.".startswith(f"{name}.")}
        # The last part may be a name in a module: `from keras_deepnets.errors import InputError`.
        found[module] = {each if each in known else each.rpartition(".")[0] for each in within} - {module}
    return found


def upward(arrows, order):
    """The imports that do not point down."""
    rank = {part: place for place, part in enumerate(order)}
    part = {
        module: module.partition(".")[0] for module in {*arrows, *(each for some in arrows.values() for each in some)}
    }
    return sorted(
        f"{module or '__init__'} imports {target or '__init__'}"
        for module, targets in arrows.items()
        for target in targets
        if part[module] != part[target] and rank[part[module]] <= rank[part[target]]
    )


def circle(arrows):
    """A circle of imports as a list of modules, or None."""
    done, path = set(), []

    def visit(module):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return None
        path.append(module)
        for target in sorted(arrows.get(module, ())):
            if found := visit(target):
                return found
        path.pop()
        done.add(module)
        return None

    return next((found for module in sorted(arrows) if (found := visit(module))), None)


def test_every_part_has_a_place():
    assert {module.partition(".")[0] for module in modules(PACKAGE)} == set(ORDER)


def test_imports_point_down():
    assert upward(imports(PACKAGE), ORDER) == []


def test_no_circles():
    assert circle(imports(PACKAGE)) is None


@pytest.mark.parametrize(
    "text",
    [
        "import pkg.high",
        "from pkg import high",
        "from pkg.high import name",
        "def f():\n    from pkg.high import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pkg.high",
    ],
)
def test_an_upward_import_is_found(tmp_path, text):
    package = tmp_path / "pkg"
    package.mkdir()
    for name, content in {"__init__": "", "high": "import pkg.low", "low": text}.items():
        (package / f"{name}.py").write_text(content)
    arrows = imports(package)
    assert upward(arrows, ("low", "high", "")) == ["low imports high"]
    assert circle(arrows) == ["high", "low"]
