"""A worker notes which files of its app it has imported, whatever the app's modules are."""

from __future__ import annotations

import importlib
import os
import sys
import time
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xboard_circus.core.code_versions import CHANGED, mixed, parsed
from xboard_circus.worker import app_code
from xboard_circus.worker.app_code import AppCode

LONG_AGO = 1e9


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo each import, and take the files of a test for older than it: their change counts where a test says so."""
    monkeypatch.setattr(app_code, "COARSE_CLOCK", -LONG_AGO)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def imported(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, module: str = "shop", app_dir: Path | None = None
) -> AppCode:
    """Import an app from *folder*, or from *app_dir*, which uvicorn adds later; return what is noted of it."""
    importlib.invalidate_caches()
    for name in ("shop", "shop.more"):
        sys.modules.pop(name, None)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    code = AppCode(f"{module}:app", None if app_dir is None else str(app_dir))
    if app_dir is not None:
        sys.path.insert(0, str(app_dir))
    importlib.import_module(module)
    code.look()
    return code


def noted(code: AppCode) -> dict[str, str]:
    return parsed(code.text())


def release(folder: Path, text: str) -> Path:
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "more.py").write_text(text)
    return folder


def test_two_releases_of_one_app_are_two_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given a link that leads from one release to the next, where what was imported is the same, then the rest of it,
    which a worker imports when it is needed, is not."""
    link = tmp_path / "current"
    link.symlink_to(release(tmp_path / "1", "A = 1"))
    before = imported(monkeypatch, link)
    same = imported(monkeypatch, tmp_path / "1")
    link.unlink()
    link.symlink_to(release(tmp_path / "2", "A = 2"))
    after = imported(monkeypatch, link)

    assert mixed([noted(before), noted(same)]) == ""
    assert mixed([noted(before), noted(after)], surely=True) == "shop"


def test_workers_of_which_each_has_its_own_app_dir_are_of_one_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given `--app-dir worker-$(circus.wid)`."""
    folders = [release(tmp_path / f"worker-{wid}", "A = 1") for wid in (1, 2)]

    assert mixed([noted(imported(monkeypatch, tmp_path, app_dir=folder)) for folder in folders]) == ""


@pytest.mark.parametrize("is_app_dir", [False, True])
def test_a_link_that_is_changed_in_the_middle_of_an_import_leaves_two_versions_in_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_app_dir: bool
) -> None:
    link = tmp_path / "current"
    link.symlink_to(release(tmp_path / "1", "A = 1"))
    then = "import os, sys\nos.unlink(sys.path[0])\nos.symlink('2', sys.path[0])"
    (tmp_path / "1" / "shop" / "__init__.py").write_text(then)
    release(tmp_path / "2", "A = 2")

    code = imported(monkeypatch, tmp_path if is_app_dir else link, app_dir=link if is_app_dir else None)

    assert mixed([noted(code)]) == str(link)


def test_what_is_imported_after_the_first_look_is_added_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = imported(monkeypatch, release(tmp_path, "A = 1"))
    file = str(tmp_path / "shop" / "more.py")
    assert file not in noted(code)

    importlib.import_module("shop.more")
    code.look()

    assert {file, str(tmp_path / "shop" / "__init__.py"), "shop"} == noted(code).keys() - _others(code)


def _others(code: AppCode) -> set[str]:
    """Return what the tests themselves have imported from no library."""
    return {file for file in noted(code) if "shop" not in file}


def test_a_file_that_changes_while_it_is_imported_is_of_no_sure_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release(tmp_path, "A = 1")
    file = tmp_path / "shop" / "__init__.py"
    file.write_text("with open(__file__, 'a') as file:\n    file.write('#')\n")
    monkeypatch.setattr(app_code, "COARSE_CLOCK", LONG_AGO)

    one, other = (noted(imported(monkeypatch, tmp_path)) for _ in range(2))

    assert f"{CHANGED}{file}" in one
    assert one[str(file)] != other[str(file)]
    assert mixed([one])
    assert mixed([one, other], surely=True) == ""


def test_a_file_that_changes_between_two_imports_of_one_process_is_of_no_sure_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given what a forkserver has imported and what its workers import late, or a file that the app itself writes."""
    release(tmp_path, "A = 1")
    file = tmp_path / "shop" / "more.py"
    monkeypatch.setattr(app_code, "COARSE_CLOCK", 0.0)
    code, began = imported(monkeypatch, tmp_path), time.time()
    while file.stat().st_ctime <= began:
        file.write_text("A = 2")
    code.look()
    importlib.import_module("shop.more")
    code.look()

    assert mixed([noted(code)]) == str(file)


@pytest.mark.parametrize("whole", [False, True], ids=["file", "folder"])
def test_a_file_that_is_gone_after_its_import_is_of_no_sure_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, whole: bool
) -> None:
    """Given a deployment that removes the old files first."""
    folder = release(tmp_path / "one", "A = 1") / "shop"
    then = "shutil.rmtree(os.path.dirname(__file__))" if whole else "os.unlink(__file__)"
    (folder / "__init__.py").write_text(f"import os, shutil\n{then}\n")
    monkeypatch.setattr(app_code, "COARSE_CLOCK", LONG_AGO)

    assert f"{CHANGED}{folder / '__init__.py'}" in noted(imported(monkeypatch, tmp_path / "one"))


def test_a_file_that_never_was_counts_for_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Given a module that is made at run time with the bare name of a file, as those of PyTorch (`_ops.py`), in a
    folder in which something is written meanwhile."""
    monkeypatch.chdir(tmp_path)
    made = types.ModuleType("ops")
    made.__file__ = "_ops.py"
    (release(tmp_path, "A = 1") / "shop" / "__init__.py").write_text("import sys\nsys.modules['ops'] = sys.made_ops\n")
    monkeypatch.setattr(sys, "made_ops", made, raising=False)
    monkeypatch.setattr(app_code, "COARSE_CLOCK", LONG_AGO)

    assert not [file for file in noted(imported(monkeypatch, tmp_path)) if "_ops.py" in file]


def test_an_archive_counts_as_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "app.zip"
    found = []
    for version in (1, 2):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("shop.py", f"A = {version}")
        sys.path_importer_cache.pop(str(file), None)
        found.append(noted(imported(monkeypatch, file)))

    assert mixed(found, surely=True) == str(file)


class Lazy(types.ModuleType):
    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def test_modules_that_are_imported_when_they_are_used_stay_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = imported(monkeypatch, release(tmp_path, "A = 1"))
    pipe = types.ModuleType("pipe")
    pipe.__file__ = str(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe")
    null = types.ModuleType("null")
    null.__file__ = "null\0"
    late: dict[Any, object] = {"lazy": Lazy("lazy"), "pipe": pipe, "nothing": None, "slots": object(), "null": null}
    sys.modules.update({**late, 7: pipe})  # type: ignore[dict-item]
    sys.path.extend([tmp_path, None, object(), "null\0"])  # type: ignore[list-item]

    code.look()

    assert not set(late) & {*map(os.path.basename, noted(code))}
