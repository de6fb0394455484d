"""Circus's own plugins beside armed watchers: what each does there, what is refused, and what the docs say of it."""

import json
import re
import socket
from pathlib import Path

import circus.plugins

from .free_ports import free_port
from .harness import FAST_RESTARTS, Circusd, Watcher, circusd, eventually, kill
from .operations import OPERATIONS, OPERATIONS_ZH

# Of the library only what Circus calls: redis 4 and later take one argument, and all else by name.
REDIS = "def from_url(url, **options): ...\n"
# Circus closes what its plugins print into.
PRINTS = """
import sys

if sys.orig_argv[-1].startswith("circus.plugins."):
    sys.stdout = sys.stderr = open("{folder}/logs/" + sys.orig_argv[-1].rpartition(".")[2] + ".log", "a", buffering=1)
"""


def plugins_of_circus() -> dict[str, str]:
    """Return the class of each plugin that Circus has, and what one writes as `use`."""
    found = {}
    for path in Path(circus.plugins.__path__[0]).glob("*.py"):
        for name in re.findall(r"^class (\w+)\((?:CircusPlugin|StatsdEmitter|BaseObserver)\)", path.read_text(), re.M):
            found[name] = f"circus.plugins.{path.stem}.{name}"
    del found["BaseObserver"]
    return found


def table(page: Path) -> dict[str, list[str]]:
    """Return the rows of the page's table of Circus's plugins."""
    cells = [line.strip("| ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines()]
    return {row[0].strip("`"): row[1:] for row in cells if len(row) == 3 and row[0].strip("`") in plugins_of_circus()}


def test_circuss_own_plugins_do_what_the_page_says_and_those_that_harm_are_refused(tmp_path: Path) -> None:
    """Given each plugin of Circus's own, then `check` and `start` say what the docs' table says. Under a bare circusd
    those of statsd send, and touch no worker; the others fail, end healthy workers, or order what is refused."""
    (tmp_path / "redis.py").write_text(REDIS)
    (tmp_path / "sitecustomize.py").write_text(PRINTS.format(folder=tmp_path))
    uses = {name.lower(): use for name, use in plugins_of_circus().items()}
    watchers = [Watcher(name, numprocesses=n, options=FAST_RESTARTS) for name, n in (("web", 3), ("watched", 1))]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd,
        circusd(tmp_path, watchers=watchers, env={"PYTHONPATH": str(tmp_path)}, start=False) as c,
    ):
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(1.0)
        given: dict[str, dict[str, object]] = {name: {"loop_rate": 1} for name in uses}
        for name in ("statsdemitter", "fullstats"):
            given[name] |= {"host": "127.0.0.1", "port": statsd.getsockname()[1]}
        given["resourcewatcher"] |= {"watcher": "web", "max_mem": "1M", "max_count": 0}
        given["watchdog"] |= {"watchers_regex": "watched", "max_count": 0, "port": free_port()}
        given["flapping"] |= {"retry_in": 600, "window": 60}  # how soon another is up is no claim of ours

        def write(*names: str) -> None:
            c.plugins = {name: uses[name] for name in names}
            c.write_ini(**{f"plugin__{name}": given[name] for name in names})

        write(*uses)
        findings = json.loads(c.run_cli("check", "--json").stdout)["findings"]
        found = {each["section"]: each for each in findings if each["section"].startswith("plugin:")}
        refused = c.run_cli("start")
        assert refused.returncode == 1
        for page in (OPERATIONS, OPERATIONS_ZH):
            rows = table(page)
            assert rows.keys() == plugins_of_circus().keys()
            for name, (does, instead) in rows.items():
                finding = found.get(f"plugin:{name.lower()}", {"what": "", "hint": "-", "level": "warning"})
                assert all(term in finding["hint"] for term in re.findall("`([^`]+)`", instead)), name
                assert (instead == "-") == (finding["hint"] == "-"), name
                if page == OPERATIONS:
                    assert finding["what"].replace(" of web", "") in does.replace("`", "")
                assert (finding["level"] == "warning") or finding["what"] in refused.stdout

        write(*uses.keys() - {"flapping"})
        c.start_again()
        healthy = c.wait_ready()
        arrives(statsd, b"web.mem_max")
        eventually(lambda: c.log("CommandReloader").count("FileNotFoundError: ") > 1, what="it fails in each round")
        for name, error in (("HttpObserver", "'io_loop'"), ("RedisObserver", "takes 1 positional argument")):
            eventually(lambda name=name, error=error: c.log(name).count(error) > 1, what=f"{name} dies again")  # type: ignore[misc]
            c.do("stop", name=f"plugin:{name.lower()}")  # it takes a core
        eventually(lambda: len(c.told("restart", "watched")) > 1, what="healthy workers are killed again and again")
        assert {each.message["cause"] for each in c.told("restart", "watched")} == {"commanded"}
        eventually(lambda: len(orders(c)) > 1, what="a restart of all is ordered again and again")
        assert all("circus.ini is refused, nothing was changed" in order for order in orders(c))
        assert c.wait_ready() == healthy
        kill(healthy[0])
        arrives(statsd, b"web.reap")
        assert set(healthy[1:]) < set(c.wait_ready())
        c.stop()

        write("flapping")
        c.start_again()
        *_, healthy_one = c.wait_ready()
        eventually(lambda: "Starting" in c.log("Flapping"), what="it begins to look")

        def is_stopped_for_the_others() -> bool:
            for pid in {*c.workers()} - {healthy_one}:
                kill(pid)
            return c.status() == "stopped"

        eventually(is_stopped_for_the_others, what="the whole watcher is stopped")
        assert healthy_one not in c.workers()
        assert len(c.wait_ready(name="watched")) == 1


def arrives(statsd: socket.socket, what: bytes) -> None:
    eventually(lambda: any(what in statsd.recv(4096) for _ in range(1000)), what=f"{what!r} arrives")


def orders(c: Circusd) -> list[str]:
    """Return what became of each restart that was ordered of the whole watcher."""
    ordered = [each.message for each in c.told("command") if each.message["command"] == "restart"]
    return [message["outcome"] for message in ordered if message["outcome"]]
