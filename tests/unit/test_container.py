"""What the first process of a container says where it starts nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from xboard_circus.container.__main__ import told_of_check


@pytest.mark.parametrize(
    ("content", "from_environment"),
    [
        (b"[circus]\ncheck_delay = $(circus.env.B) $(circus.env.A) $(circus.env.B)\n", "A, B"),
        (b"# \xe9\n[circus]\ncheck_delay = $(circus.env.A)\n", "A"),
        (b"[circus]\n", ""),
        (None, ""),
    ],
    ids=["variables", "not UTF-8", "no variable", "no file"],
)
def test_an_ini_at_fault_is_told_whatever_is_in_it(
    tmp_path: Path, content: bytes | None, from_environment: str
) -> None:
    ini = tmp_path / "circus.ini"
    if content is not None:
        ini.write_bytes(content)

    hint = f"; of its values, these are the container's environment's: {from_environment}" if from_environment else ""
    assert told_of_check(ini, 1) == f"nothing was started: {ini} is at fault, see above{hint}"


def test_a_check_that_was_killed_says_nothing_of_the_ini(tmp_path: Path) -> None:
    assert "was ended by SIGKILL; is there too little memory?" in told_of_check(tmp_path / "circus.ini", 128 + 9)
