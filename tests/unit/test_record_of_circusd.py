"""The record by which the command line finds a circusd."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xboard_circus.errors import XboardError
from xboard_circus.host import procs, runtime
from xboard_circus.supervisor.supervisor import Supervisor


def test_a_record_that_cannot_be_written_is_logged_once_and_so_is_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    written = iter([XboardError("full"), XboardError("full"), XboardError("gone"), None])

    def write(*_: object, **fields: object) -> None:
        if (error := next(written)) is not None:
            raise error

    for level in ("error", "info"):
        monkeypatch.setattr(f"circus.logger.{level}", lambda text, *words: lines.append(text % words))
    monkeypatch.setattr(runtime, "write_record", write)
    for name, found in (("remove_stale", None), ("read_record", {"pid": 1})):
        monkeypatch.setattr(runtime, name, lambda _, found=found: found)
    ours = {"instance": "abc", "identity": procs.Identity(1, 1), "config_file": Path("circus.ini")}
    supervisor = SimpleNamespace(
        **ours, arbiter=SimpleNamespace(endpoint="tcp://127.0.0.1:1"), _is_recorded=False, _unrecorded=""
    )

    for _ in range(5):
        Supervisor._record(cast(Any, supervisor))

    lost = "xboard: the command line will not find this circusd: "
    again = "xboard: the command line finds this circusd again"
    assert lines == [f"{lost}full", f"{lost}gone", again]
