"""The house of docs/architecture.md: rooms lie on floors, imports go down, an underscore means private to a room."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

# A room imports from rooms on floors above its own line here, and never from its own line.
FLOORS = (
    "errors signature json_schema foreign_text progress version",
    "files registry sarif text_files toml_tables",
    "cache flags",
    "recipe",
    "data",
    "geometry",
    "heads",
    "tasks runtimes",
    "graphs",
    "models own_preprocessing sides",
    "inputs suggestion evaluation lint calibrators",
    "methods judging",
    "quantization",
    "int8_file calibration inspection",
    "audit",
    "api comparison gates",
    "diagnosis sweeps",
    "tuning",
    "reports",
    "commands",
    "cli",
    "__main__ pytest_plugin onnxptq",
)
SAVES_ITSELF = {"onnxptq.calibrators.statistics", "onnxptq.calibrators.statistics_file"}
"""Statistics have `save` and `load`, and their file is a module of its own: the one circle that pays."""

FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor.split()}


@cache
def modules() -> dict[str, Path]:
    """Every module by the name under which it is imported."""
    found = {"onnxptq.cli": CHECKOUT / "cli.py"}
    for folder, package in (
        ("onnxptq", "onnxptq"),
        ("calibrators", "onnxptq.calibrators"),
        ("models", "onnxptq.models"),
    ):
        for path in (CHECKOUT / folder).rglob("*.py"):
            inner = path.relative_to(CHECKOUT / folder).with_suffix("").parts
            found[".".join((package, *(part for part in inner if part != "__init__")))] = path
    return found


def room(module: str) -> str:
    return "onnxptq" if module == "onnxptq" else module.split(".")[1]


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of ours that a module imports when it runs: not what only type checkers read."""
    tree = ast.parse(modules()[module].read_text())
    found = {target for node in _running(tree) for target in _targets(node)}
    return frozenset(found & modules().keys())


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        within = [f"{node.module}.{name.name}" for name in node.names]
        yield from (name if name in modules() else node.module for name in within)


def test_the_architecture_page_says_where_things_are() -> None:
    page = (CHECKOUT / "docs/architecture.md").read_text()
    table = page.partition("## Where is ...\n\n")[2].partition("\n\n")[0]
    assert table.count("\n") > 10
    for place, name in re.findall(r"`([\w/.]+)`(?:, `(\w+)`)?", table):
        path = CHECKOUT / place
        assert path.exists(), place
        assert not name or re.search(rf"^(def|class) {name}\b", path.read_text(), re.MULTILINE), f"{name} in {place}"


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in modules()} == FLOOR.keys()


def test_imports_go_down() -> None:
    climbs = {
        f"{module} -> {target}"
        for module in modules()
        for target in imported(module)
        if room(target) != room(module) and FLOOR[room(target)] >= FLOOR[room(module)]
    }
    assert not climbs


def test_private_modules_and_names_stay_in_their_room() -> None:
    assert not {f"{module}: {name}" for module in modules() for name in _private_imports(module)}


def _private_imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("onnxptq"):
            continue
        for name in (f"{node.module}.{alias.name}" for alias in node.names):
            if room(node.module or "") != room(module) and any(map(_is_private, name.split(".")[1:])):
                yield name


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_module_comes_back_to_itself() -> None:
    """Within a room neither: then nothing has to be imported late to break a circle."""
    back = {module for module in modules() if module in _reached(module)}
    assert back == SAVES_ITSELF


def _reached(start: str) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = imported(ahead.pop()) - seen
        seen |= new
        ahead.extend(new)
    return seen
