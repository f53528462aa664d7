"""The package's rooms: who imports whom, never in a circle, neither between modules nor between folders."""

import ast
import sys
from pathlib import Path

import pytest

import kvtc

ROOT = Path(kvtc.__file__).parents[1]
PACKAGES = ("kvtc", "kvtc_evaluation")
# Doors: names that lead into rooms which build on theirs.
DOORS = {"kvtc.llama_cpp", "kvtc.llama_model", "kvtc.transformers"}


def modules():
    """The files of the packages by the name that they are imported by."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imported(name):
    """Names of all modules that a module imports anywhere in it, whether of the packages or not."""
    here = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                yield whole if whole in MODULES else origin


def room(name):
    return ".".join(MODULES[name].parent.relative_to(ROOT).parts)


MODULE_GRAPH = {name: set(imported(name)) & set(MODULES) - {name} for name in MODULES}
ROOM_GRAPH = {
    place: {room(other) for name in MODULES if room(name) == place and name not in DOORS for other in MODULE_GRAPH[name]} - {place}
    for place in map(room, MODULES)
}


def circle(graph):
    """Nodes that lead round, or nothing."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node) :] + [node]
        if node in done:
            return None
        path.append(node)
        found = next(filter(None, map(visit, sorted(graph[node]))), None)
        path.pop()
        done.add(node)
        return found

    return next(filter(None, map(visit, sorted(graph))), None)


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize("graph", [MODULE_GRAPH, ROOM_GRAPH], ids=["modules", "rooms"])
def test_nothing_is_imported_in_a_circle(graph):
    assert len(graph) > 5 and any(graph.values())
    assert circle(graph) is None


def test_the_client_needs_numpy_only():
    names = [name for name in MODULES if room(name) in ("kvtc", "kvtc.protocol", "kvtc.transport")]
    assert len(names) > 10
    for name in names:
        foreign = {other.split(".")[0] for other in imported(name)} - set(sys.stdlib_module_names)
        assert foreign <= {"numpy", "kvtc"}, name
