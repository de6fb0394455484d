"""Who may import whom, read from the sources: a room that knows too much can't be tested alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "xboard_circus"

PURE = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "re",
    "typing",
    "xboard_circus.core",
}
# The names of the signals are data; the rest of the module isn't.
PURE_NAMES = {"signal.Signals"}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__"}
FACES = {"xboard_circus.cli", "xboard_circus.dashboard"}


def imports(source: str, module: str = "", *, is_package: bool = False) -> set[str]:
    """Return the dotted names that *source* imports; "a.b" for ``from a import b``, relative ones resolved."""
    return {name for node in ast.walk(ast.parse(source)) for name in _imported(node, module, is_package)}


def _imported(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = module.split(".") if node.level else []
        above = parts[: len(parts) - node.level + is_package]
        base = ".".join([*above, node.module] if node.module else above)
        yield from (f"{base}.{alias.name}" for alias in node.names)


def called(source: str) -> set[str]:
    """Return the plain names that *source* calls."""
    return {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }


def within(name: str, rooms: set[str]) -> bool:
    """Return whether the dotted *name* is one of *rooms* or lies in one."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def imports_of(path: Path) -> set[str]:
    """Return what the file at *path* imports."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    return imports(path.read_text(encoding="utf-8"), module, is_package=is_package)


def sources(*folders: Path) -> list[Path]:
    """Return the Python files below *folders*; those of ``plugins`` once, not by the link as well."""
    return sorted(
        path for folder in folders for path in folder.rglob("*.py") if PACKAGE / "plugins" not in path.parents
    )


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ``python -m xboard_circus`` is the command line.
ROOMS = [
    path
    for path in sources(PACKAGE)
    if path.relative_to(PACKAGE).parts[0] not in {"__main__.py", "core", "cli", "dashboard"}
]


@pytest.mark.parametrize("path", sources(PACKAGE / "core"), ids=relative)
def test_the_core_imports_nothing_that_has_effects(path: Path) -> None:
    assert {name for name in imports_of(path) if not within(name, PURE) and name not in PURE_NAMES} == set()


@pytest.mark.parametrize("path", sources(PACKAGE / "core"), ids=relative)
def test_the_core_neither_reads_nor_writes(path: Path) -> None:
    assert called(path.read_text(encoding="utf-8")) & IMPURE_CALLS == set()


@pytest.mark.parametrize("path", ROOMS, ids=relative)
def test_the_parts_know_no_face(path: Path) -> None:
    assert {name for name in imports_of(path) if within(name, FACES)} == set()


def test_plugins_have_one_name() -> None:
    files = sources(PACKAGE, ROOT / "plugins", ROOT / "tests", ROOT / "scripts")

    assert [relative(path) for path in files if any(within(name, {"plugins"}) for name in imports_of(path))] == []


# What only the plugin's own process, the workers or the command line work with.
NOT_IN_CIRCUSD = {
    "click",
    "difflib",
    "email",
    "requests",
    "rich",
    "smtplib",
    "sqlite3",
    "uvicorn",
    "xboard_circus.alerts",
    "xboard_circus.config",
    "xboard_circus.core.alerting",
    "xboard_circus.ledger",
    "xboard_circus.plugins.http_health",
    "xboard_circus.probe",
}


def test_circusd_loads_nothing_that_only_others_need() -> None:
    code = (
        "import sys, circus.circusd\n"
        "before = set(sys.modules)\n"
        "import xboard_circus.plugins.guard, xboard_circus.plugins.bundle\n"
        "print(*(set(sys.modules) - before))"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "xboard_circus.supervisor.armed" in loaded
    assert {name for name in loaded if within(name, NOT_IN_CIRCUSD)} == set()


@pytest.mark.parametrize(
    ("source", "module", "is_package", "expected"),
    [
        pytest.param("import os.path, re", "a.b", False, {"os.path", "re"}, id="plain"),
        pytest.param("import plugins as p", "a.b", False, {"plugins"}, id="renamed"),
        pytest.param("from os import path", "a.b", False, {"os.path"}, id="from"),
        pytest.param("from . import cli", "a.b", False, {"a.cli"}, id="relative, from a module"),
        pytest.param("from . import cli", "a", True, {"a.cli"}, id="relative, from a package"),
        pytest.param("from ..cli.main import run", "a.b.c", False, {"a.cli.main.run"}, id="relative, further up"),
        pytest.param("def f():\n    import time", "a", False, {"time"}, id="inside a function"),
    ],
)
def test_imports(source: str, module: str, is_package: bool, expected: set[str]) -> None:
    assert imports(source, module, is_package=is_package) == expected
