"""A hook of users that lets a test hold circusd's looks at its workers.

circusd looks each two seconds. A test that claims something of a worker never looked at would have to be quicker.
"""

import os
from pathlib import Path
from typing import Any

from xboard_circus.supervisor.life import evidence

FOLDER = "XBOARD_TEST_LOOKS"  # has the file `hold` while no look may be taken; gets the files `seen` and `held`
_look = evidence.look


def install(*_: object, **__: object) -> bool:
    """Stand in for ``hooks.before_spawn``: hold the looks from here on, whenever the file says so."""
    evidence.look = _look_unless_held
    return True


def _look_unless_held(supervisor: Any) -> bool:
    folder = Path(os.environ[FOLDER])
    if (folder / "hold").exists():
        (folder / "held").touch()
        return False
    if not _look(supervisor):
        return False
    with (folder / "seen").open("a") as seen:
        seen.write("look\n")
    return True
