"""The frames of C in the record of a worker that hangs with the GIL held, by the real py-spy."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from .harness import BUNDLE, FAST_RESTARTS, Watcher, circusd
from .test_which_request import TOKEN, death_in

OPTIONS = {"health.period": 4, "health.timeout": 1, "health.failure_threshold": 1, **FAST_RESTARTS}
TRIES = 5  # on a crowded machine py-spy may be too late

pytestmark = pytest.mark.skipif(
    shutil.which("py-spy", path=str(Path(sys.executable).parent)) is None, reason="py-spy is not installed"
)


def test_a_hang_in_c_is_recorded_with_the_frames_of_c(tmp_path: Path) -> None:
    web = Watcher(app="deadly_app:app", numprocesses=1, arguments="--ws none", options=OPTIONS)
    with circusd(tmp_path, watchers=[web], plugins=BUNDLE, check_delay=1) as c:
        for _ in range(TRIES):
            record, text = death_in(c, f"/v1/die/gil/{TOKEN}", others=1)
            if "native" in record["data"]:
                break
        assert "its native frames before that:" in text
        assert "ffi_call" in text, text
        assert TOKEN not in text
        assert "deadly_app:app" not in record["data"]["native"]
        record, text = death_in(c, f"/v1/die/hang/{TOKEN}", others=1)
        assert "native" not in record["data"], text
