"""Circus's own plugins that may stand beside an armed watcher do what they are there for, and touch no worker."""

import socket
from pathlib import Path

from .harness import FAST_RESTARTS, circusd, eventually, kill


def test_the_plugins_that_send_to_statsd_work_beside_an_armed_watcher(tmp_path: Path) -> None:
    """Given StatsdEmitter and FullStats, figures and the event of a death arrive, and the other worker is the same."""
    plugins = {"events": "circus.plugins.statsd.StatsdEmitter", "figures": "circus.plugins.statsd.FullStats"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(1.0)
        with circusd(tmp_path, plugins=plugins, options=FAST_RESTARTS, start=False) as c:
            given = {"host": "127.0.0.1", "port": statsd.getsockname()[1], "loop_rate": 1}
            c.write_ini(plugin__events=given, plugin__figures=given)
            c.start_again()
            dies, lives = c.wait_ready()

            eventually(lambda: b"web.mem_max" in statsd.recv(4096), what="a figure arrives")
            kill(dies)
            eventually(lambda: b"web.reap" in statsd.recv(4096), what="an event arrives")

            assert lives in c.wait_ready()
