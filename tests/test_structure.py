"""The shape of the code: who may import whom, and how long things may be. Read from the source, nothing is imported."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {"keys": ROOT / "keys", "pipelines": ROOT / "pipelines", "jobs": ROOT / "jobs", "": ROOT / "diffpriv"}


@cache
def modules() -> dict[str, Path]:
    """Every module of ours under its import name."""
    found = {}
    for layer, folder in LAYERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if layer == "" and parts[0] in LAYERS:
                continue  # the links to the other layers
            name = ".".join(part for part in ("diffpriv", layer, *parts) if part and part != "__init__")
            found[name] = path
    return found


@cache
def imports() -> dict[str, frozenset[str]]:
    """module -> modules of ours that it imports, wherever in the file that stands: a late import hides a circle, no more."""
    return {name: frozenset(_imported(name, path)) - {name} for name, path in modules().items()}


def _imported(name: str, path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "diffpriv":
            assert not node.level, f"{name} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules() else node.module


def circles(graph: dict[str, frozenset[str]]) -> list[list[str]]:
    """Strongly connected parts of more than one node (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def package(name: str) -> str:
    """The package that a module counts to; a module that lies beside packages (`pipelines.config`) stands for itself."""
    path = modules()[name]
    if path.name == "__init__.py":
        return name
    beside = any(child.is_dir() and (child / "__init__.py").exists() for child in path.parent.iterdir())
    return name if beside else name.rpartition(".")[0]


def test_no_module_imports_itself_through_others():
    assert circles(imports()) == []


def test_no_package_imports_itself_through_others():
    graph: dict[str, set[str]] = {}
    for name, others in imports().items():
        graph.setdefault(package(name), set()).update(package(other) for other in others)
    assert circles({name: frozenset(others - {name}) for name, others in graph.items()}) == []


MOST_LINES, MOST_FUNCTION_LINES = 400, 60


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_longer_than_a_reader_can_hold():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_function_is_longer_than_a_screen():
    long = {f"{name}.{function}": lines for name, path in modules().items() for function, lines in _functions(path)}
    long = {name: lines for name, lines in long.items() if lines > MOST_FUNCTION_LINES and ".training." not in name}
    assert long == {}


def test_every_public_class_and_function_says_what_it_is():
    silent = []
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                silent += [f"{name}.{node.name}"] * (not ast.get_docstring(node))
    assert [name for name in silent if ".training." not in name] == []
