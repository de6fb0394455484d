"""A watcher that is removed gives its port back: who connects is refused at once, instead of waiting for ever."""

from collections.abc import Callable
from pathlib import Path

import pytest

from .free_ports import is_refused, stranger
from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually


def rm(c: Circusd) -> None:
    assert c.run_circusctl("rm", "web").returncode == 0


def take_out_of_the_ini(c: Circusd) -> None:
    """Take out the watcher, and leave its socket in the file."""
    leaving = c.watchers.pop("web")
    left = dict(leaving.sections(c.folder))["socket:web"]
    c.write_ini(socket__web=left)
    c.do("reloadconfig", waiting=True)


@pytest.mark.parametrize("remove", [rm, take_out_of_the_ini])
def test_its_port_refuses_and_is_free_for_others(tmp_path: Path, remove: Callable[[Circusd], None]) -> None:
    """Given two watchers, when one is removed, then its port refuses and can be bound; the other serves on."""
    watchers = [Watcher(options=FAST_RESTARTS), Watcher("other", numprocesses=1, options=FAST_RESTARTS)]
    with circusd(tmp_path, watchers=watchers) as c:
        old, kept = c.wait_ready(name="web"), c.wait_ready(name="other")
        port = c.watchers["web"].port

        remove(c)

        eventually(lambda: "web" not in c.call("list")["watchers"], what="it is removed")
        eventually(lambda: not {found.pid for found in c.processes()} & set(old), what="its workers have ended")
        eventually(lambda: is_refused(port), what="its port refuses")
        with stranger(port, tmp_path):
            assert c.workers("other") == kept
            assert c.serves("other")


def test_a_removed_watcher_that_comes_back_serves(tmp_path: Path) -> None:
    """Given a watcher removed by `circusctl rm`, when the unchanged file is read again, then it serves as before, and
    a second removal gives its port back as well."""
    watchers = [Watcher(options=FAST_RESTARTS), Watcher("other", numprocesses=1, options=FAST_RESTARTS)]
    with circusd(tmp_path, watchers=watchers) as c:
        c.wait_ready(name="web")
        port = c.watchers["web"].port
        rm(c)
        eventually(lambda: is_refused(port), what="its port refuses")

        c.do("reloadconfig", waiting=True)

        c.wait_ready(name="web")
        assert c.serves("web")
        rm(c)
        eventually(lambda: is_refused(port), what="its port refuses again")
