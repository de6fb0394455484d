"""The commands of the unit at its ends: what is kept for the next circusd, and what may be killed."""

import os

import pytest

from xboard_circus.service import unit_stop

CLEAN = {"EXIT_CODE": "exited", "EXIT_STATUS": "0"}


@pytest.mark.parametrize(
    ("job", "ended", "is_kept"),
    [
        pytest.param("restart", {"EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}, True, id="a stop that was cut"),
        pytest.param("start", {"EXIT_CODE": "exited", "EXIT_STATUS": "1"}, True, id="the new one does not start"),
        pytest.param("stop", CLEAN, False, id="a stop"),
        pytest.param("", CLEAN, True, id="it left, and systemd starts it again"),
        pytest.param("", {"EXIT_CODE": "killed", "EXIT_STATUS": "KILL"}, False, id="it was killed"),
        pytest.param(None, CLEAN, False, id="systemd does not answer"),
    ],
)
def test_what_is_left_is_kept_for_a_circusd_that_follows(job: str | None, ended: dict[str, str], is_kept: bool) -> None:
    assert unit_stop.is_followed(job, ended) is is_kept


@pytest.mark.parametrize("result", [None, "success"])
def test_nothing_outside_of_the_unit_is_killed(monkeypatch: pytest.MonkeyPatch, result: str | None) -> None:
    """Run by hand, the control group is that of a login."""
    monkeypatch.setattr(os, "kill", pytest.fail)
    if result is None:
        monkeypatch.delenv("SERVICE_RESULT", raising=False)
    else:
        monkeypatch.setenv("SERVICE_RESULT", result)

    unit_stop.end_group("xboard-backend.service")
