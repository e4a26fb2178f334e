"""Imports point one way and never in a circle, wherever in a file they stand; functions are short and take few parameters."""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterator, Mapping, Set

import EC
from testing.test_case import TestCase

CHECKOUT = os.path.dirname(os.path.abspath(EC.__file__))

# A package imports itself and packages on lower floors, and nothing else.
FLOORS = {
    "foundations": 0,
    "platforms": 1,
    "models": 2,
    "pruning": 3,
    "datasets": 4,
    "training": 5,
    "extraction": 6,
    "lottery": 6,
    "cli": 7,
    "EC": 8,
    "testing": 9,
}


def package_of(module: str) -> str | None:
    """The package of the program that a module belongs to; None for libraries."""
    name = module.partition(".")[0]
    return name if name in FLOORS else None


def imports(source: str, package: str) -> Iterator[str]:
    """The names that a source text imports anywhere; `from a import b` counts as `a.b`, because b may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def upward(module: str, source: str) -> list[str]:
    """The imports of a module that point to a higher floor, or to another package on the same floor."""
    here = package_of(module)
    found = []
    for imported in imports(source, module.rpartition(".")[0]):
        there = package_of(imported)
        if there not in (None, here) and FLOORS[there] >= FLOORS[here]:
            found.append(f"{module} imports {imported}")
    return found


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """For each module the other modules among these that it imports; a name within a module counts as the module."""
    found = {}
    for module, source in sources.items():
        names = list(imports(source, module.rpartition(".")[0]))
        reached = {known for name in names for known in (name, name.rpartition(".")[0]) if known in sources}
        found[module] = reached - {module}
    return found


def circles(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Groups of modules that all reach each other: the strongly connected components of two and more (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in number:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == number[module]:
            start = stack.index(module)
            component = sorted(stack[start:])
            del stack[start:]
            if len(component) > 1:
                found.append(component)

    for module in graph:
        if module not in number:
            visit(module)
    return found


def python_files() -> Iterator[str]:
    """Every Python file of the packages and of the top level, tests aside, relative to the checkout."""
    yield from (name for name in os.listdir(CHECKOUT) if name.endswith(".py"))
    for package in os.listdir(CHECKOUT):
        if os.path.exists(os.path.join(CHECKOUT, package, "__init__.py")):
            for folder, folders, names in os.walk(os.path.join(CHECKOUT, package)):
                folders[:] = [name for name in folders if name != "test"]
                yield from (os.path.relpath(os.path.join(folder, name), CHECKOUT) for name in names if name.endswith(".py"))


def program() -> dict[str, str]:
    """The source text of every module of the program, by its dotted name; an `__init__.py` goes by the name of its package."""
    sources = {}
    for path in python_files():
        with open(os.path.join(CHECKOUT, path), encoding="utf-8") as file:
            sources[path.removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")] = file.read()
    return sources


class TestArchitecture(TestCase):
    def test_imports_point_one_way(self):
        self.assertEqual([line for module, source in program().items() for line in upward(module, source)], [])

    def test_no_modules_import_each_other_in_a_circle(self):
        self.assertEqual(circles(graph(program())), [])

    def test_every_file_has_a_floor(self):
        self.assertEqual([module for module in program() if package_of(module) is None], [])

    def test_the_search_sees_the_whole_program(self):
        self.assertEqual({package_of(module) for module in program()}, set(FLOORS))


def json_writers(source: str) -> list[int]:
    """The lines of a source text that use the module `json` to write."""
    nodes = list(ast.walk(ast.parse(source)))
    attributes = [
        node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "json"
    ]
    imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "json"]
    return [node.lineno for node in attributes if node.attr in ("dump", "dumps", "JSONEncoder")] + [node.lineno for node in imported]


class TestJson(TestCase):
    def test_only_one_module_writes_json(self):
        writers = {module for module, source in program().items() if json_writers(source)}
        self.assertEqual(writers, {"foundations.json_text", "testing.ancestors.writers"})  # the second writes what other programs write

    def test_every_form_of_writing_is_seen(self):
        for source in ("import json\njson.dumps(1)", "import json\nmap(json.dumps, x)", "from json import dump", "json.JSONEncoder()"):
            self.assertEqual(len(json_writers(source)), 1)
        self.assertEqual(json_writers("import json\njson.loads('1')\njson_text.dumps(1)"), [])


def functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method that a source text defines."""
    yield from (node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of parameters of a function, without self, cls and variable ones."""
    arguments = function.args
    return sum(argument.arg not in ("self", "cls") for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


class TestFunctions(TestCase):
    MAX_LINES, MAX_PARAMETERS = 60, 7
    FEW_PARAMETERS, MAX_EXCEPTIONS = 5, 10  # not more functions than this may have more parameters than that

    def test_functions_fit_on_a_screen(self):
        long = [
            f"{module}.{function.name} has {function.end_lineno - function.lineno + 1} lines"
            for module, source in program().items()
            for function in functions(source)
            if function.end_lineno - function.lineno >= self.MAX_LINES
        ]
        self.assertEqual(long, [])

    def test_functions_take_few_parameters(self):
        counts = {
            f"{module}.{function.name}": parameters(function) for module, source in program().items() for function in functions(source)
        }
        many = {name: count for name, count in counts.items() if count > self.FEW_PARAMETERS}
        self.assertEqual([name for name, count in many.items() if count > self.MAX_PARAMETERS], [])
        self.assertLessEqual(len(many), self.MAX_EXCEPTIONS, many)

    def test_self_and_variable_parameters_do_not_count(self):
        (function,) = functions("class A:\n    def f(self, a, /, b, *c, d=1, **e):\n        pass")
        self.assertEqual(parameters(function), 3)


class TestSearch(TestCase):
    def test_every_form_of_import_is_seen(self):
        forms = [
            "import training.train",
            "import training as t",
            "from training import train",
            "from training.train import train",
            "def f():\n    from training import train",
            "if TYPE_CHECKING:\n    import training",
            "from training import job",
            "from training.job import JobArgs",
        ]
        for source in forms:
            with self.subTest(source=source):
                self.assertEqual(len(upward("models.base", source)), 1)

    def test_packages_on_lower_floors_may_be_imported_and_no_others(self):
        self.assertEqual(upward("pruning.mask", "from models import base") + upward("lottery.runner", "from training import job"), [])
        for module, source in (
            ("models.base", "import pruning.mask"),
            ("training.runner", "from cli import commands"),
            ("platforms.base", "from cli.commands import Commands"),
            ("lottery.runner", "from extraction import desc"),
            ("cli.sweep.runner", "import EC"),
        ):
            with self.subTest(module=module, source=source):
                self.assertEqual(len(upward(module, source)), 1)

    def test_circles_of_two_and_more_are_found_wherever_the_imports_stand(self):
        sources = {
            "p": "",
            "p.a": "from p import b",
            "p.b": "def f():\n    from p.c import name",
            "p.c": "if TYPE_CHECKING:\n    from . import a",
            "p.d": "from p import a\nimport p.e",
            "p.e": "from .d import name",
            "p.f": "from p import a, d, f",
        }
        self.assertEqual(circles(graph(sources)), [["p.a", "p.b", "p.c"], ["p.d", "p.e"]])

    def test_imports_in_one_direction_are_no_circle(self):
        sources = {"p": "", "p.a": "from p import b, c", "p.b": "from p.c import name", "p.c": "import os"}
        self.assertEqual(circles(graph(sources)), [])
