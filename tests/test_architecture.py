"""The layout of the code, held by tests: class names occur once, imports form no circle and keep to their layers."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("inference", "container", "deploy", "lambdas")
CODE = (*PRODUCT, "training", "bench")
GENERATED = ("_pb2.py", "_pb2_grpc.py")

# Each Lambda function is deployed alone and has settings of its own.
MAY_REPEAT = {"Settings"}
# To be emptied: classes that still share a name, and circles that still stand.
DUPLICATE_CLASSES = {
    "Film",
    "Held",
    "Mouth",
    "Pictures",
    "Plan",
    "Reading",
    "Server",
    "Shot",
    "Speech",
    "Tally",
    "Track",
}
CIRCLES = [
    {"container/live/proxy.py", "container/stream.py"},
]


def sources(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in found if not path.name.endswith(GENERATED)]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_a_class_name_occurs_once():
    places = defaultdict(list)
    for path in sources(*PRODUCT):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in MAY_REPEAT | DUPLICATE_CLASSES:
                places[node.name].append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imported_files(path: Path) -> Iterator[Path]:
    """Yield the project's files that a file imports, anywhere in it: in functions and for type checkers, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from package import name` takes a module or what a module defines.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if file_of(name) else node.module for name in names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in CODE and (found := file_of(name)) and not found.name.endswith(GENERATED):
                yield found


def imports() -> dict[str, set[str]]:
    return {
        relative(path): {relative(one) for one in imported_files(path)} - {relative(path)} for path in sources(*CODE)
    }


def without_faces(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """A package's `__init__.py` hands on names of its modules, which import one another directly."""
    return {
        path: {one for one in found if not one.endswith("__init__.py")}
        for path, found in graph.items()
        if not path.endswith("__init__.py")
    }


def test_no_files_import_one_another_in_a_circle():
    graph = without_faces(imports())
    for one, other in CIRCLES:
        if one in graph and other in graph:
            graph[one].discard(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        pytest.fail(f"files that import one another: {' -> '.join(err.args[1])}")
