"""Who may import whom, read from the sources: a room that knows too much can't be tested alone."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from xboard_circus.supervisor.patches.patch import every_kind

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
    "operator",
    "re",
    "reprlib",
    "typing",
    "xboard_circus.core",
}
# The names of the signals are data; the rest of the module isn't.
PURE_NAMES = {"shlex.quote", "signal.Signals"}
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__"}
FACES = {"xboard_circus.cli", "xboard_circus.dashboard"}


def imports(source: str, module: str = "", *, is_package: bool = False, at_run_time: bool = False) -> set[str]:
    """Return the dotted names that *source* imports; "a.b" for ``from a import b``, relative ones resolved.

    With *at_run_time*, those below ``if TYPE_CHECKING`` are left out; those within functions are not.
    """
    nodes = [*ast.walk(ast.parse(source))]
    if at_run_time:
        typing = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        left_out = {id(below) for node in typing for statement in node.body for below in ast.walk(statement)}
        nodes = [node for node in nodes if id(node) not in left_out]
    return {name for node in nodes for name in _imported(node, module, is_package)}


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


def imports_of(path: Path, *, at_run_time: bool = False) -> set[str]:
    """Return what the file at *path* imports."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    module = ".".join(parts[:-1] if is_package else parts)
    return imports(path.read_text(encoding="utf-8"), module, is_package=is_package, at_run_time=at_run_time)


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


def test_no_path_is_asked_by_what_may_raise() -> None:
    """Up to Python 3.13 `Path.exists` and its like raise for a name that is too long, or a folder that is shut: a link
    of another user's would be an internal error of ours. `os.path` answers."""
    asked = {"exists", "is_file", "is_dir", "is_symlink", "is_socket", "is_fifo"}
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in sources(PACKAGE, ROOT / "plugins")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in asked
        and not (node.args or node.keywords)
    ]
    assert found == []


BY_THE_FORKSERVER = {("import_server", "fastapi"), ("seeding", "ctypes")}


def test_a_worker_imports_nothing_later() -> None:
    """A worker with no descriptor left cannot: a probe of one that was merely full had no end, and it was killed."""
    late = {
        (function.name, name.partition(".")[0])
        for path in sources(PACKAGE / "worker")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for name in imports(ast.unparse(function), "x")
    }
    assert late == BY_THE_FORKSERVER


@pytest.mark.parametrize("path", ROOMS, ids=relative)
def test_the_parts_know_no_face(path: Path) -> None:
    assert {name for name in imports_of(path) if within(name, FACES)} == set()


def test_plugins_have_one_name() -> None:
    files = sources(PACKAGE, ROOT / "plugins", ROOT / "tests", ROOT / "scripts")

    assert [relative(path) for path in files if any(within(name, {"plugins"}) for name in imports_of(path))] == []


def room_of(path: Path, house: Path = PACKAGE) -> str:
    """Return the room of a file: the first part of its name below the house; the plugins are one room."""
    return path.relative_to(house if path.is_relative_to(house) else ROOT).parts[0].removesuffix(".py")


def doors(house: Path, *folders: Path) -> dict[tuple[str, str], list[str]]:
    """Return (room, other room of the house that it imports at run time) with the files and names that do so."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sources(house, *folders):
        for name in sorted(imports_of(path, at_run_time=True)):
            inside = name.removeprefix(".".join([*house.relative_to(ROOT).parts, ""]))
            other = inside.partition(".")[0]
            if inside != name and other != room_of(path, house):
                found.setdefault((room_of(path, house), other), []).append(f"{relative(path)} imports {name}")
    return found


def circles(edges: Iterable[tuple[str, str]]) -> set[tuple[str, ...]]:
    """Return each group of nodes of which everyone reaches everyone, sorted."""
    following: dict[str, set[str]] = {}
    for node, other in edges:
        following.setdefault(node, set()).add(other)

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ways = [start]
        while ways:
            new = following.get(ways.pop(), set()) - found
            found |= new
            ways += new
        return found

    reach = {node: reached(node) for node in following}
    return {tuple(sorted(other for other in reach[node] if node in reach.get(other, ()))) for node in reach} - {()}


@pytest.mark.parametrize("folders", [(PACKAGE, ROOT / "plugins"), (PACKAGE / "supervisor",)], ids=["all", "supervisor"])
def test_no_circle_of_rooms(folders: tuple[Path, ...]) -> None:
    """A room that is imported by what it imports can neither be read nor tested without that."""
    found = doors(*folders)

    assert not circles(found), "\n".join(
        f"{room} -> {other}: {line}"
        for (room, other), lines in sorted(found.items())
        for circle in circles(found)
        if {room, other} <= set(circle)
        for line in lines
    )


def test_no_circle_within_the_benchmark() -> None:
    files = sources(ROOT / "scripts" / "bench")
    names = {f"bench.{path.stem}": path for path in files}
    edges = [
        (name, target)
        for name, path in names.items()
        for imported in imports_of(path)
        for target in names
        if within(imported, {target})
    ]

    assert circles(edges) == set()


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        pytest.param([("a", "b"), ("b", "c"), ("a", "c")], set(), id="none"),
        pytest.param([("a", "b"), ("b", "c"), ("c", "b")], {("b", "c")}, id="one, behind a way to it"),
        pytest.param([("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")], {("a", "b"), ("c", "d")}, id="two"),
    ],
)
def test_circles(edges: list[tuple[str, str]], expected: set[tuple[str, ...]]) -> None:
    assert circles(edges) == expected


def shared(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return each name that more than one place has, with its places."""
    found: dict[str, list[str]] = {}
    for name, place in pairs:
        found.setdefault(name, []).append(place)
    return {name: places for name, places in found.items() if len(places) > 1}


def test_no_two_files_have_one_name() -> None:
    """Who looks for a file by its name finds one. A test may be named as another of another ring is."""
    files = sources(PACKAGE, ROOT / "plugins", ROOT / "tests", ROOT / "scripts")
    named = [path for path in files if not path.name.startswith(("__", "test_")) and path.name != "conftest.py"]
    found = shared((path.name, relative(path)) for path in named)

    assert found == {}


def test_no_two_public_classes_have_one_name() -> None:
    found = shared(
        (node.name, relative(path))
        for path in sources(PACKAGE, ROOT / "plugins", ROOT / "scripts")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )

    assert found == {}


def test_an_exception_without_a_text_leaves_no_reason_with_an_empty_end() -> None:
    """Such as "AssertionError: " and nothing behind it; `raised` in `core/reason.py` gives the kind alone then."""
    found = [
        relative(path)
        for path in sources(PACKAGE, ROOT / "plugins")
        if re.search(r"__name__\}: \{", path.read_text(encoding="utf-8"))
    ]

    assert found == []


# Size

MOST_LINES = 32_958
"""May only be lowered: what a change brings, it takes away elsewhere, or a feature goes for it."""


def code_lines(source: str) -> int:
    """Return how many lines of *source* have code: no blank ones, comments and docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if ast.get_docstring(node):
                docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


NO_CODE = {getattr(tokenize, name) for name in ["COMMENT", "NL", "NEWLINE", "INDENT", "DEDENT", "ENDMARKER"]}


def test_the_code_does_not_grow() -> None:
    rooms: dict[str, int] = {}
    for path in sources(PACKAGE, ROOT / "plugins", ROOT / "scripts"):
        room = "/".join(path.relative_to(ROOT).parts[:-1][:2])
        rooms[room] = rooms.get(room, 0) + code_lines(path.read_text(encoding="utf-8"))

    assert sum(rooms.values()) <= MOST_LINES, f"lines of code by room: {rooms}"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""A module."""\n\nONE = 1  # why\n# a comment\n', 1),
        ('def f():\n    """Do.\n\n    More.\n    """\n    return """a\nb"""\n', 3),
        ("f(\n    1,\n\n)\n", 3),
    ],
)
def test_lines_of_code(source: str, lines: int) -> None:
    assert code_lines(source) == lines


# The one door to Circus

DOOR = PACKAGE / "supervisor" / "patches"
# What only Circus has under these names, private or not.
OF_CIRCUS = {
    "_cfg",
    "_exclusive_running_command",
    "_found_wids",
    "_nextwid",
    "_options",
    "_restarting",
    "_start",
    "_status",
    "_stop",
    "_stopping",
    "_watchers_names",
    "_worker",
    "ctrl",
    "evpub_socket",
    "optnames",
    "stream_redirector",
    "sys_hdl",
}
# Names that we use as well: only those of a Process of Circus's are meant.
OF_PROCESSES = {"started", "stopping"}
# What a patch replaces, so that a new one needs no line here; of Circus's classes alone.
METHODS_OF_CIRCUS = {
    kind.name for kind in every_kind() if kind.of in ("Arbiter", "Command", "Controller", "Process", "Watcher")
}
BY_NAME = {"delattr", "getattr", "hasattr", "setattr"}
OF_TUPLES = {"_asdict", "_fields", "_replace"}
"""Public names of a NamedTuple: the underscore only keeps them apart from its fields."""


def touches(source: str) -> list[tuple[int, str]]:
    """Return the lines of *source* that touch an inside of Circus's, and what they touch.

    That is a name of Circus's own on anything but ``self``; any private name on anything but ``self``, unless it is
    defined in the same file or is of a module that the file imports as a whole; and a method of Circus's that is
    assigned to. A name in a string counts where it is handed to ``getattr`` and its like.
    """
    tree = ast.parse(source)
    own, modules = _defined(tree), _modules(tree)
    found = []
    for node in ast.walk(tree):
        base, name, is_assigned = _access(node)
        if base is None or name.startswith("__") or _is_self(base):
            continue
        is_private = name.startswith("_") and name not in own | OF_TUPLES and _root(base) not in modules
        of_a_process = name in OF_PROCESSES and _last(base) == "process"
        if name in OF_CIRCUS or is_private or of_a_process or (is_assigned and name in METHODS_OF_CIRCUS):
            found.append((base.lineno, f"{ast.unparse(base)}.{name}"))
    return found


def _access(node: ast.AST) -> tuple[ast.expr | None, str, bool]:
    """Return the object that *node* takes an attribute of, the attribute, and whether it is assigned to."""
    if isinstance(node, ast.Attribute):
        return node.value, node.attr, not isinstance(node.ctx, ast.Load)
    match node:
        case ast.Call(func=ast.Name(id=function), args=[base, ast.Constant(value=str(name)), *_]) if (
            function in BY_NAME
        ):
            return base, name, function in ("delattr", "setattr")
    return None, "", False


def _is_self(base: ast.expr) -> bool:
    is_super = isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "super"
    return is_super or (isinstance(base, ast.Name) and base.id in ("self", "cls"))


def _root(base: ast.expr) -> str:
    while isinstance(base, ast.Attribute):
        base = base.value
    return base.id if isinstance(base, ast.Name) else ""


def _last(base: ast.expr) -> str:
    return base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""


def _defined(tree: ast.Module) -> set[str]:
    """Return the names that classes of the file define: methods, attributes of the class, attributes of ``self``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(each.name)
                elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    found.add(each.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            found.add(node.attr)
    return found


def _modules(tree: ast.Module) -> set[str]:
    names = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {each.asname or each.name.partition(".")[0] for each in names if not within(each.name, {"circus"})}


INSIDE = [path for path in sources(PACKAGE, ROOT / "plugins") if DOOR not in path.parents]


@pytest.mark.parametrize("path", INSIDE, ids=relative)
def test_circus_is_touched_through_one_door(path: Path) -> None:
    """Circus is not maintained: what a new Python breaks has to be looked for in one folder only."""
    assert touches(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("watcher._options", ["watcher._options"], id="a private attribute"),
        pytest.param("self.watcher._stop()", ["self.watcher._stop"], id="behind self too"),
        pytest.param("arbiter.ctrl.commands", ["arbiter.ctrl"], id="a public name that is an inside"),
        pytest.param("worker.process.stopping = True", ["worker.process.stopping"], id="that Circus kills a process"),
        pytest.param("process.started", ["process.started"], id="when Circus believes that it started"),
        pytest.param("worker.started", [], id="when it really started, by our own account"),
        pytest.param("self.stopping", [], id="what is our own"),
        pytest.param("watcher.spawn_process = ours", ["watcher.spawn_process"], id="a replaced method"),
        pytest.param("arbiter.stop = ours", ["arbiter.stop"], id="whichever of those that a patch replaces"),
        pytest.param("watcher.spawn_process()", [], id="a method that is only called"),
        pytest.param("getattr(stream, '_file', None)", ["stream._file"], id="by its name in a string"),
        pytest.param("setattr(watcher, 'reap_process', f)", ["watcher.reap_process"], id="replaced by its name"),
        pytest.param("getattr(arbiter, 'config_file', None)", [], id="a public name in a string"),
        pytest.param("import os\nos._exit(1)", [], id="a private name of a module"),
        pytest.param("import circus.process\ncircus.process._x", ["circus.process._x"], id="but not of Circus's"),
        pytest.param("super()._new_conn()", [], id="what a class inherits"),
        pytest.param("class A:\n    _x: int = 0\nA()._x", [], id="what the file defines itself"),
        pytest.param("class A:\n    def _stop(self): ...\nw._stop()", ["w._stop"], id="unless Circus has it too"),
        pytest.param("x.__class__", [], id="what every object has"),
        pytest.param("x._replace(y=1)", [], id="what every NamedTuple has"),
    ],
)
def test_touches(source: str, found: list[str]) -> None:
    assert [what for _, what in touches(source)] == found


# What acts upon a watcher as a whole, or shows all of it. Anything else gets the few facts that it needs.
OF_A_WATCHER = {
    # Prepare its start, fork its workers, guard its port, and run a command as one of its workers would.
    "before_start.py": {"BeforeStart.__init__"},
    "forks.py": {"Forks.__init__"},
    "port.py": {"PortGuard.__init__"},
    "run_once.py": {"OneShot.__init__"},
    # Show it, and let what a prober found happen to its workers.
    "bus/commands.py": {"_take_report"},
    "bus/state.py": {"held_slot_entry", "watcher_entry", "worker_entry"},
    "held_slots.py": {"hold_of"},
    # Spawn into it, and put an end on its account: budget, slots, reasons, events.
    "life/count_end.py": {"_count_failure", "_end_left_behind", "count", "reap", "settle"},
    "life/spawn.py": {"_failed", "_note", "_spawn", "spawn"},
    # Replace its workers: a new one is spawned, roles change, the old one is ended.
    "replace/admission.py": {"_begin", "_for_operator", "_refuse_ahead", "replace", "retry"},
    "replace/rolling.py": {"RollingReload.__init__", "begin"},
    "replace/swap.py": {"Swap.__init__", "until_ready"},
    # Apply what `reloadconfig` finds changed.
    "reconfigure.py": {"_change"},
}


def takers(source: str, kind: str) -> set[str]:
    """Return the functions of *source* that have a parameter of the type *kind*, a method with its class."""
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    owners: list[ast.Module | ast.ClassDef] = [tree, *classes]
    return {
        f"{owner.name}.{node.name}" if isinstance(owner, ast.ClassDef) else node.name
        for owner in owners
        for node in owner.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for each in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if each.annotation is not None and ast.unparse(each.annotation).strip("'") == kind
    }


def test_few_functions_take_a_whole_watcher() -> None:
    """Who gets all of it can do anything with it, and cannot be tested without one."""
    room = PACKAGE / "supervisor"
    found = {
        str(path.relative_to(room)): takers(path.read_text(encoding="utf-8"), "ArmedWatcher") for path in sources(room)
    }

    assert {name: functions for name, functions in found.items() if functions} == OF_A_WATCHER


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("def f(armed: ArmedWatcher, pid: int): ...", {"f"}, id="a function"),
        pytest.param("async def f(*, armed: 'ArmedWatcher'): ...", {"f"}, id="by name, as a text"),
        pytest.param("class A:\n    def f(self, armed: ArmedWatcher): ...", {"A.f"}, id="a method"),
        pytest.param("def f(worker: Worker) -> ArmedWatcher: ...", set(), id="not what returns one"),
    ],
)
def test_takers(source: str, found: set[str]) -> None:
    assert takers(source, "ArmedWatcher") == found


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
    "xboard_circus.circus_client",
    "xboard_circus.config",
    "xboard_circus.core.alerting",
    "xboard_circus.launch",
    "xboard_circus.ledger",
    "xboard_circus.plugins._base",
    "xboard_circus.plugins.http_health",
    "xboard_circus.probe",
}


def test_circusd_loads_nothing_that_only_others_need() -> None:
    loaded = loaded_by("import xboard_circus.plugins.guard, xboard_circus.plugins.bundle", beyond="circus.circusd")

    assert "xboard_circus.supervisor.watcher" in loaded
    assert {name for name in loaded if within(name, NOT_IN_CIRCUSD)} == set()


@pytest.mark.parametrize(
    ("circus", "ours", "allowed"),
    [
        pytest.param(
            "circus.circusd",
            "import xboard_circus.plugins.guard, xboard_circus.plugins.bundle\n"
            "from xboard_circus import env_files\n"
            "env_files.values([], {})",  # as at each start of a watcher
            {"_sha2", "_sha256", "dataclasses", "unicodedata"},
            id="circusd",
        ),
        pytest.param(
            "circus.plugins",
            "import xboard_circus.plugins._bundled",
            {"_sha2", "_sha256", "_sqlite3", "circus.config", "concurrent", "dataclasses", "sqlite3", "unicodedata"},
            id="the plugin",
        ),
    ],
)
def test_little_is_loaded_beyond_what_circus_loads(circus: str, ours: str, allowed: set[str]) -> None:
    """What one line imports, every installation holds in memory: hashlib 0.2 MiB, circus.commands 0.35, email 0.35."""
    loaded = loaded_by(ours, beyond=circus)

    assert {name for name in loaded if not within(name, {"xboard_circus", *allowed})} == set()


def test_check_imports_no_other_command() -> None:
    """The templates of `init` and the rules of `doctor` took a quarter of its processor time: 0.26 s of 1.1."""
    loaded = loaded_by("import xboard_circus.cli.configuration", beyond="circus.config")

    assert {name for name in loaded if within(name, {"jinja2", "packaging", "xboard_circus.doctor"})} == set()


def loaded_by(code: str, *, beyond: str) -> set[str]:
    """Return the modules that *code* loads beyond those of the module *beyond*, in a process of its own."""
    code = f"import sys, {beyond}\nbefore = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_frozen_dataclass_has_slots() -> None:
    """Its __setattr__ keeps the class that it was before it got slots: 2.5 KiB each, of which there are a hundred."""
    paths = sources(PACKAGE, ROOT / "plugins")

    assert [relative(path) for path in paths if "frozen=True, slots=True" in path.read_text()] == []


def test_what_only_a_type_checker_imports_is_none_of_run_time() -> None:
    source = "if TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    import c"

    assert imports(source, at_run_time=True) == {"b", "c"}


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
