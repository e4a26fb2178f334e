"""Imports point one way, wherever in a file they stand."""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterator

import EC
from testing.test_case import TestCase

CHECKOUT = os.path.dirname(os.path.abspath(EC.__file__))

# A part of the program may know the parts on lower floors, and itself. The first name that a module begins with is its part.
FLOORS = {
    "foundations": 0,
    "platforms": 2,
    "models": 3,
    "pruning": 3,
    "datasets": 4,
    "training": 6,
    "extraction": 7,
    "lottery": 7,
    "cli": 8,
    "EC": 9,
    "testing": 10,
}
ACQUAINTED = [{"models", "pruning"}]


def part_of(module: str) -> str | None:
    """The part of the program that a module belongs to; None for the libraries."""
    names = module.split(".")
    return next((name for name in (".".join(names[:2]), names[0]) if name in FLOORS), None)


def imports(source: str, package: str) -> Iterator[str]:
    """The modules that a source text imports anywhere; `from a import b` counts as `a.b`, for b may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def trespasses(module: str, source: str) -> list[str]:
    """The imports of a module that point up, or across to a part that it should not know."""
    found = []
    for imported in imports(source, module.rpartition(".")[0]):
        here, there = part_of(module), part_of(imported)
        if there not in (None, here) and FLOORS[there] >= FLOORS[here] and {here, there} not in ACQUAINTED:
            found.append(f"{module} imports {imported}")
    return found


def python_files() -> Iterator[str]:
    """Every Python file of the packages and of the top level, tests aside, relative to the checkout."""
    yield from (name for name in os.listdir(CHECKOUT) if name.endswith(".py"))
    for package in os.listdir(CHECKOUT):
        if os.path.exists(os.path.join(CHECKOUT, package, "__init__.py")):
            for folder, folders, names in os.walk(os.path.join(CHECKOUT, package)):
                folders[:] = [name for name in folders if name != "test"]
                yield from (os.path.relpath(os.path.join(folder, name), CHECKOUT) for name in names if name.endswith(".py"))


class TestArchitecture(TestCase):
    def test_imports_point_one_way(self):
        found = []
        for path in python_files():
            with open(os.path.join(CHECKOUT, path), encoding="utf-8") as file:
                found += trespasses(path.removesuffix(".py").removesuffix("/__init__").replace(os.sep, "."), file.read())
        self.assertEqual(found, [])

    def test_every_file_has_a_floor(self):
        self.assertEqual([path for path in python_files() if part_of(path.removesuffix(".py").replace(os.sep, ".")) is None], [])

    def test_the_search_sees_the_whole_program(self):
        seen = {path.split(os.sep)[0] for path in python_files()}
        expected = {"EC.py", "cli", "foundations", "platforms", "models", "pruning", "datasets", "training", "extraction", "lottery"}
        self.assertEqual((expected | {"testing"}) - seen, set())

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
                self.assertEqual(len(trespasses("models.base", source)), 1)
        self.assertEqual(len(trespasses("training.runner", "from cli import runner_registry")), 1)

    def test_models_and_pruning_may_know_each_other_and_workflows_may_not(self):
        self.assertEqual(trespasses("models.base", "import pruning.mask") + trespasses("pruning.mask", "from models import base"), [])
        self.assertEqual(len(trespasses("lottery.runner", "from extraction import desc")), 1)

    def test_the_ground_floor_of_cli_serves_all_and_the_rest_of_it_serves_none(self):
        self.assertEqual(len(trespasses("training.runner", "from cli import runner_registry")), 1)
