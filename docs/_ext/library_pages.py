"""Directives for what the pages take from the library itself: tables, signatures, command line. Nothing of it is typed by hand."""

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole

Cell = str | nodes.Node


def table(
    columns: Sequence[str], rows: Iterable[Sequence[Cell]], numeric: Sequence[str] = (), classes: str = ""
) -> nodes.table:
    """A docutils table. Numeric columns are aligned to the right."""
    group = nodes.tgroup(cols=len(columns))
    group += [nodes.colspec(colwidth=1) for _ in columns]
    made = nodes.table("", group, classes=[*classes.split(), "generated"])

    def row(cells: Sequence[Cell]) -> nodes.row:
        line = nodes.row()
        for column, cell in zip(columns, cells, strict=True):
            entry = nodes.entry(classes=["number"] if column in numeric else [])
            entry += cell if isinstance(cell, nodes.Node) else nodes.paragraph(text=cell)
            line += entry
        return line

    group += nodes.thead("", row(columns))
    group += nodes.tbody("", *map(row, rows))
    return made


def literal(text: str) -> nodes.paragraph:
    """A cell of code."""
    return nodes.paragraph("", "", nodes.literal(text, text))


def link_to(name: str, text: str) -> nodes.paragraph:
    """A cell that links to a documented object."""
    reference = addnodes.pending_xref(
        "", nodes.literal(text, text), refdomain="py", reftype="obj", reftarget=name, refexplicit=True, refwarn=False
    )
    return nodes.paragraph("", "", reference)


def giga(count: float) -> str:
    """Multiply-adds in thousand millions."""
    return f"{count / 1e9:.3g}" if count < 1e11 else f"{count / 1e9:.0f}"


class Networks(SphinxDirective):
    """The model zoo: a row for each named network."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        import keras_deepnets as kd

        columns = (
            "network",
            "family",
            "data",
            "input",
            "depth",
            "parameters",
            "multiply-adds, G",
            "float32 weights, MB",
            "published error",
            "weights",
        )
        rows = []
        for info in map(kd.model_info, kd.list_models()):
            rows.append(
                (
                    link_to(f"keras_deepnets.{info.constructor}", info.constructor),
                    info.family,
                    info.dataset,
                    "×".join(map(str, info.input_shape)),
                    str(info.depth),
                    f"{info.parameters:,}",
                    giga(info.flops),
                    f"{4 * info.parameters / 1e6:.1f}",
                    info.error or "–",
                    str(len(info.weights)) if info.weights else "–",
                )
            )
        numeric = ("depth", "parameters", "multiply-adds, G", "float32 weights, MB", "weights")
        return [table(columns, rows, numeric, "filterable wide widest")]


class Weights(SphinxDirective):
    """A row for each set of published weights."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        from keras_deepnets.weights import list_weights

        columns = ("constructor", "name", "classes", "pixels", "top-1", "licence")
        rows = [
            (
                card.constructor,
                literal(card.name),
                str(card.classes),
                str(card.image_size),
                f"{card.metrics['top1']:.2f} %" if "top1" in card.metrics else "–",
                card.licence or "–",
            )
            for card in list_weights()
        ]
        return [table(columns, rows, ("classes", "pixels", "top-1"), "filterable wide widest")]


class Families(SphinxDirective):
    """A row for each family: its builder, its paper, its named networks."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        import keras_deepnets as kd
        from keras_deepnets import registry

        found: dict[str, tuple[str, list[str]]] = {}
        for info in map(kd.model_info, kd.list_models()):
            found.setdefault(info.family, (info.paper, []))[1].append(info.constructor)
        builders = {name.lower() for name in registry.builders()}
        rows = [
            (
                link_to(f"keras_deepnets.{family}", family) if family.lower() in builders else family,
                paper,
                nodes.paragraph("", "", *_spaced(link_to(f"keras_deepnets.{name}", name).children for name in names)),
            )
            for family, (paper, names) in found.items()
        ]
        return [table(("family", "paper", "named networks"), rows, classes="wide")]


def _spaced(parts: Iterable[Sequence[nodes.Node]]) -> list[nodes.Node]:
    made: list[nodes.Node] = []
    for part in parts:
        made += [*([nodes.Text(", ")] if made else []), *part]
    return made


class FastPaths(SphinxDirective):
    """A row for each fast path."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        from keras_deepnets.layers import fast

        columns = ("fast path", "replaces", "plain version", "condition", "gain")
        rows = [
            (literal(path.name), *map(_plain, (path.replaces, path.twin, path.condition, path.gain)))
            for path in fast.PATHS.values()
        ]
        return [table(columns, rows, classes="wide widest")]


def _plain(text: str) -> str:
    return text.replace("`", "")


class Recipes(SphinxDirective):
    """A row for each training recipe."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        from keras_deepnets import training

        rows = []
        for recipe in map(training.get_recipe, training.recipes()):
            name, value = next(
                (name, value)
                for name in ("epochs", "steps", "examples")
                if (value := getattr(recipe, name)) is not None
            )
            length = "by the number of images" if value == "auto" else f"{value:,g} {name}"
            rows.append((literal(recipe.name), length, _plain(recipe.use), _plain(recipe.source)))
        return [table(("recipe", "length", "when to use it", "source of its numbers"), rows, classes="wide")]


class RecipeFields(SphinxDirective):
    """A row for each field of a recipe."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        from keras_deepnets import training
        from keras_deepnets.training.recipe_fields import recipe_fields

        rows = [
            (literal(field.name), field.allowed, _plain(field.meaning))
            for field in recipe_fields(training.get_recipe("fast"))
        ]
        return [table(("field", "values", "meaning"), rows, classes="wide")]


class Api(SphinxDirective):
    """Signatures and docstrings of the names in its content, which are those of the module in its argument."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """What autodoc makes of them."""
        module = importlib.import_module(self.arguments[0])
        return self.documented([f"{module.__name__}.{name}" for line in self.content for name in line.split()])

    def documented(self, names: Iterable[str]) -> list[nodes.Node]:
        """What autodoc makes of some objects."""
        lines = [line for name in names for line in _autodoc(name)]
        holder = nodes.section()
        holder.document = self.state.document
        # The nested parser reads Markdown. Autodoc's directives are reStructuredText.
        block = "\n".join(["```{eval-rst}", *lines, "```"])
        self.state.nested_parse(StringList(block.splitlines(), self.get_source_info()[0]), self.content_offset, holder)
        return holder.children


def _autodoc(name: str) -> list[str]:
    """The directive that documents an object, by what it is."""
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    if not inspect.isclass(value):
        return [f".. autofunction:: {name}" if callable(value) else f".. py:data:: {name}", ""]
    lines = [f".. autoclass:: {name}"]
    if not _is_keras(value):
        lines += ["   :members:"]
    return [*lines, ""]


def _is_keras(kind: type) -> bool:
    """Whether a class fills in a class of Keras: its methods are those that Keras documents."""
    return any(base.__module__.partition(".")[0] in ("keras", "tensorflow") for base in kind.__mro__)


class FamilyApi(Api):
    """Signatures and docstrings of the constructors of a module of `keras_deepnets.families`, the builders first."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """What autodoc makes of them."""
        import keras_deepnets as kd
        from keras_deepnets import registry

        here = vars(importlib.import_module(f"keras_deepnets.families.{self.arguments[0]}"))
        names = [*registry.builders(), *(kd.model_info(name).constructor for name in kd.list_models())]
        return self.documented(f"keras_deepnets.{name}" for name in names if here.get(name) is getattr(kd, name))


class CommandLine(SphinxDirective):
    """Every command with its arguments and options."""

    def run(self) -> list[nodes.Node]:
        """A section for each command."""
        import typer

        from keras_deepnets.cli import app

        made: list[nodes.Node] = []
        for words, command in _commands(typer.main.get_command(app.app), ()):
            title = " ".join(("keras-deepnets", *words))
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title("", "", nodes.literal(title, title))
            section += nodes.paragraph(text=(command.help or "").strip())
            rows = [
                (literal(_spelling(parameter)), _help(parameter), _default(parameter)) for parameter in command.params
            ]
            if rows:
                section += table(("argument or option", "meaning", "default"), rows, classes="wide")
            self.state.document.note_implicit_target(section)
            made.append(section)
        return made


def _commands(group: Any, words: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _help(parameter: Any) -> str:
    return " ".join((getattr(parameter, "help", None) or "").split()).replace("`", "")


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if callable(value) or value in (None, False, [], ()):
        return "–"
    return "on" if value is True else str(value)


class NameRole(SphinxRole):
    """What docstrings put into single backticks: code, which links to the object if it is the name of one."""

    IDENTIFIER = re.compile(r"[A-Za-z_][\w.]*?(?:\(.*\))?")

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The code, or a reference that holds it."""
        code = nodes.literal(self.rawtext, self.text)
        if not self.IDENTIFIER.fullmatch(self.text):
            return [code], []
        reference = addnodes.pending_xref(
            self.rawtext,
            code,
            refdomain="py",
            reftype="obj",
            reftarget=self.text.partition("(")[0],
            refexplicit=True,
            refwarn=False,
            refdoc=self.env.docname,
            **{key: self.env.ref_context.get(key) for key in ("py:module", "py:class")},
        )
        return [reference], []


class LinkedNames(SphinxTransform):
    """Links `kd.name` and `keras_deepnets.name` in a Markdown page to the reference."""

    default_priority = 5
    NAME = re.compile(r"(?:kd|keras_deepnets)\.([A-Za-z_][\w.]*)(?:\(.*\))?")

    def apply(self, **_: Any) -> None:
        """Wraps the literals."""
        for node in list(self.document.findall(nodes.literal)):
            found = self.NAME.fullmatch(node.astext())
            if not found or isinstance(node.parent, (addnodes.pending_xref, nodes.reference, nodes.title)):
                continue
            reference = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=f"keras_deepnets.{found.group(1)}",
                refexplicit=True,
                refwarn=False,
                refdoc=self.env.docname,
            )
            node.replace_self(reference)
            reference += node


def by_last_name(app: Sphinx, env: Any, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Resolves `MisfitError` to the one documented object of that name, wherever it is."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not re.fullmatch(r"[\w.]+", target) or not re.search(r"[A-Z_.]", target):
        return None
    domain = env.get_domain("py")
    found = {
        entry.docname + "#" + entry.node_id: entry
        for name, entry in domain.objects.items()
        if name.endswith(f".{target}") and entry.objtype in ("function", "class", "exception", "method", "data")
    }
    if len(found) != 1:
        return None
    (entry,) = found.values()
    made = nodes.reference(
        "", "", internal=True, refuri=f"{app.builder.get_relative_uri(node['refdoc'], entry.docname)}#{entry.node_id}"
    )
    made += content
    return made


def setup(app: Sphinx) -> dict[str, Any]:
    """Adds the directives."""
    for name, directive in {
        "networks": Networks,
        "published-weights": Weights,
        "families": Families,
        "fast-paths": FastPaths,
        "recipes": Recipes,
        "recipe-fields": RecipeFields,
        "api": Api,
        "family-api": FamilyApi,
        "command-line": CommandLine,
    }.items():
        app.add_directive(name, directive)
    app.add_role("name", NameRole())
    app.add_transform(LinkedNames)
    app.connect("missing-reference", by_last_name)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
