"""A worker notes which files of its app it has imported, whatever the app's modules are."""

from __future__ import annotations

import importlib
import os
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

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


def imported(monkeypatch: pytest.MonkeyPatch, folder: Path, *, module: str = "shop") -> AppCode:
    """Import an app from *folder* alone; return what is noted of it."""
    importlib.invalidate_caches()
    for name in ("shop", "shop.more"):
        sys.modules.pop(name, None)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    code = AppCode(f"{module}:app")
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


def test_a_link_that_is_changed_in_the_middle_of_an_import_leaves_two_versions_in_one_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(release(tmp_path / "1", "A = 1"))
    then = "import os, sys\nos.unlink(sys.path[0])\nos.symlink('2', sys.path[0])"
    (tmp_path / "1" / "shop" / "__init__.py").write_text(then)
    release(tmp_path / "2", "A = 2")

    assert mixed([noted(imported(monkeypatch, link))]) == str(link)


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
    late: dict[str, object] = {"lazy": Lazy("lazy"), "pipe": pipe, "nothing": None, "slots": object()}
    sys.modules.update(late)  # type: ignore[arg-type]

    code.look()

    assert not set(late) & {*map(os.path.basename, noted(code))}
