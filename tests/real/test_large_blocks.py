"""circusd and its plugin take large blocks of memory from the kernel, so that thousands of deaths leave no holes."""

import platform
from pathlib import Path

import pytest

from .harness import Watcher, circusd, eventually

# Imported by circusd for its hook, by the plugin as its class, and by the worker and its forkserver as the app.
TOLD = """
import os
from pathlib import Path

def tell(who):
    first = bytes(4 << 20)
    del first  # glibc has the next one in its heap then
    block = bytes(3 << 20)
    parts = [each.split()[0] for each in Path("/proc/self/maps").read_text().splitlines() if "[heap]" in each]
    bounds = [[int(each, 16) for each in part.split("-")] for part in parts]
    where = "heap" if any(low <= id(block) < high for low, high in bounds) else "apart"
    new = Path({folder!r}) / f"new-{{os.getpid()}}"
    new.write_text(where)
    new.rename(new.with_name(who))

def after_spawn(**_):
    tell("circusd")
    return True

def plugin(*arguments, **config):
    from xboard_circus.plugins.bundle import Bundle

    made = Bundle(*arguments, **config)
    tell("plugin")
    return made

plugin.name = "told"
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
@pytest.mark.parametrize("level", ["off", "server", "app"])
def test_circusd_and_its_plugin_keep_large_blocks_apart_and_workers_do_not(tmp_path: Path, level: str) -> None:
    """Given a freed block of 4 MiB, then circusd and its plugin take the next of 3 MiB from the kernel, and a worker
    takes it from its heap, as any program does: what its app allocates is up to the app."""
    (tmp_path / "told.py").write_text(TOLD.format(folder=str(tmp_path)))
    (tmp_path / "told_app.py").write_text("import told\nfrom backend import app\ntold.tell('app')\n")
    options = {"hooks.after_spawn": "told.after_spawn", "worker.preload": level}
    watcher = Watcher(numprocesses=1, app="told_app:app", options=options)
    plugins, env = {"xboard": "told.plugin"}, {"PYTHONPATH": str(tmp_path)}
    with circusd(tmp_path, watchers=[watcher], plugins=plugins, env=env) as c:
        c.wait_ready()
        eventually(lambda: (tmp_path / "plugin").exists(), timeout=60, what="the plugin has been made")

        told = {who: (tmp_path / who).read_text() for who in ("circusd", "plugin", "app")}
        assert told == {"circusd": "apart", "plugin": "apart", "app": "heap"}
