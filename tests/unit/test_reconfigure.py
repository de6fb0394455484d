"""A reload or `reloadconfig` is refused with the cure where circusd cannot judge the ini file."""

from __future__ import annotations

import sys

import pytest
from circus.exc import MessageError

from xboard_circus.supervisor.reconfigure import refuse_unsound


def test_where_another_version_was_installed_it_names_the_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xboard_circus.checks.judgement", None)  # its import fails

    with pytest.raises(MessageError, match=r"another xboard-circus was installed .* run `xboard-circus restart`"):
        refuse_unsound("circus.ini")
