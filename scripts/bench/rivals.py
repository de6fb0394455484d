"""Define the rivals: how each is installed, started and reloaded, with its best settings.

The settings themselves are in ``settings/``; @words in them are filled in.
"""

import configparser
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.running import CHECKOUT, Rival, Running
from tests.real.processes import process

VENV, TEST_VENV = CHECKOUT / ".venv-bench", CHECKOUT / ".venv"
SHOWN = ["circus", "fastapi", "granian", "gunicorn", "hypercorn", "pandas", "superlance", "supervisor", "uvicorn"]
SHOWN += ["uvicorn-worker", "uvloop"]
RIVALS = [*SHOWN, "setuptools<81", "uvicorn[standard]"]  # pandas is what a heavy app imports
PROGRAMS = {
    "pm2": """node -p "require('$(dirname "$(realpath "$(command -v pm2)")")/../package.json').version" """,
    "systemd": "systemctl --version | awk 'NR == 1 { print $2 }'",
}
RELOAD_WITHIN = 60.0


def _reload_ours(running: Running) -> None:
    running.query_circusd("xboard_reload", name="web")
    until = time.monotonic() + RELOAD_WITHIN
    while time.monotonic() < until:
        if running.query_circusd("xboard_state")["watchers"][0]["reload"]["state"] != "running":
            return
        time.sleep(0.1)


def _reload_circus(running: Running) -> None:
    endpoint = f"tcp://127.0.0.1:{running.words['control']}"
    circusctl = ("-m", "circus.circusctl", "--timeout", "60", "--endpoint", endpoint)
    _do(sys.executable, *circusctl, "reload", "web", "--sequential", "--waiting")


def _restart_one_by_one(running: Running) -> None:
    """Restart one by one: `restart` of the whole group would leave no worker for as long as the new ones start."""
    file = str(running.folder / "supervisord.conf")
    for number in range(running.workers):
        _do(sys.executable, "-m", "supervisor.supervisorctl", "-c", file, "restart", f"web:web_{number}")


def _restart_units(running: Running) -> None:
    """Restart the next one only when the last one serves again: systemd knows no more of uvicorn than that it runs."""
    systemctl = ["env", f"XDG_RUNTIME_DIR={running.folder}/xdg", "systemctl", "--user", "restart"]
    for number in range(running.workers):
        _do(*systemctl, f"web@{number + 1}")
        running.until(lambda: len(running.serving()) >= running.workers, RELOAD_WITHIN, "the new worker")


def _reload_pm2(running: Running) -> None:
    """Have pm2 send uvicorn the signal for a reload, because its own reload stops uvicorn first."""
    _do("env", f"PM2_HOME={running.folder}", "pm2", "sendSignal", "SIGHUP", "web", env=running.environ())


def _replace_master(running: Running) -> None:
    """Replace the master: SIGHUP would keep the preloaded code; a new master reads it anew."""
    old = process(process(min(running.serving())).parent or 0)
    old.signal(signal.SIGUSR2)
    running.until(lambda: len(running.serving()) >= 2 * running.workers, RELOAD_WITHIN, "the new master's workers")
    old.signal(signal.SIGTERM)


def _do(*command: str, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=RELOAD_WITHIN)


def _hang_up(running: Running) -> None:
    running.supervisor.signal(signal.SIGHUP)


UVICORN = "{python} -m uvicorn bench.plain_app:app --host 127.0.0.1 --port {port} --no-access-log"
WORKERS = f"{UVICORN} --workers {{workers}} --timeout-worker-healthcheck 2"
SUPERVISOR = "{python} -m supervisor.supervisord -c {file}"
CIRCUSD = "{python} -m circus.circusd {file}"
GUNICORN = "{bin}/gunicorn -c {file}"  # with -m its SIGUSR2 starts what cannot import
GUNICORN_ASGI, GUNICORN_FILE = f"{GUNICORN} -k asgi", "gunicorn.conf.py"
GRANIAN = "{python} -m granian bench.plain_app:app --interface asgi --host 127.0.0.1 --port {port} --workers {workers}"
GRANIAN += " --respawn-failed-workers --respawn-interval 2 --workers-kill-timeout 30"
HYPERCORN = "{python} -m hypercorn bench.plain_app:app -b 127.0.0.1:{port} -w {workers} -k uvloop --graceful-timeout 30"
UNSHARE = "test $(id -u) = 0 -a -x /usr/lib/systemd/systemd && unshare --mount mount -t cgroup2 none /sys/fs/cgroup"
PROCESS_1 = dict.fromkeys(("orphan", "supervisor-killed"), "systemd is process 1, which nothing kills")
OF_SYSTEMD = ("root, systemd, and leave to mount a control group tree", UNSHARE)
PM2 = "env PM2_HOME={folder} pm2-runtime start {file}"
OF_PM2 = ("pm2: npm install --global pm2", "command -v pm2-runtime")
OURS, UVICORN_WORKERS, BARE, FAKE, CLI = "xboard-circus", "uvicorn", "bare-uvicorn", "fake-workers", "cli"
HOW_SYSTEMD = {"needs": OF_SYSTEMD, "cannot": PROCESS_1, "sweep": "sh {file} sweep"}
ALL_RIVALS = (
    Rival(OURS, "xboard-circus", CIRCUSD, "xboard.ini", _reload_ours),
    Rival("supervisor", "supervisor + httpok", SUPERVISOR, "supervisord.conf", _restart_one_by_one),
    Rival("gunicorn", "gunicorn + uvicorn-worker", GUNICORN, GUNICORN_FILE, _hang_up),
    Rival("gunicorn-asgi", "gunicorn -k asgi", GUNICORN_ASGI, GUNICORN_FILE, _hang_up),
    Rival(
        "gunicorn-preload", "gunicorn -k asgi --preload", f"{GUNICORN_ASGI} --preload", GUNICORN_FILE, _replace_master
    ),
    Rival("granian", "granian", GRANIAN, reload=_hang_up),
    Rival("hypercorn", "hypercorn", HYPERCORN, reload=_hang_up),
    Rival("pm2", "pm2 + uvicorn --workers", PM2, "pm2.config.js", _reload_pm2, needs=OF_PM2),
    Rival("systemd", "systemd socket + uvicorn", "sh {file}", "systemd.sh", _restart_units, **HOW_SYSTEMD),
    Rival(UVICORN_WORKERS, "uvicorn --workers", WORKERS, reload=_hang_up),
    Rival("circus", "stock Circus", CIRCUSD, "circus-stock.ini", _reload_circus),
    Rival(BARE, "bare uvicorn, one process", UVICORN),
    Rival(FAKE, "xboard-circus", CIRCUSD, "fake-workers.ini"),
    Rival(CLI, "xboard-circus start", "{python} -m xboard_circus start -c {file}", "xboard.ini"),
)
RIVAL = {rival.name: rival for rival in ALL_RIVALS}
MEASURED = [name for name in RIVAL if name not in (BARE, FAKE, CLI)]


def requirements() -> list[str]:
    ini = configparser.ConfigParser()
    ini.read(CHECKOUT / "setup.cfg")
    return [line for line in ini["options"]["install_requires"].splitlines() if line] + RIVALS


def enter_venv(*, is_short: bool) -> None:
    """Go on in the bench's own environment, which is made if it is missing or has other requirements.

    A short run, which measures uvicorn alone beside us, uses that of the tests if it exists.
    """
    if is_short and TEST_VENV.exists():
        _go_on_in(TEST_VENV)
        return
    wanted = hashlib.sha256("\n".join(requirements()).encode()).hexdigest()
    python, stamp = VENV / "bin" / "python", VENV / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making {VENV} with the rivals: once, about a minute", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements()], check=True)
        stamp.write_text(wanted)
    _go_on_in(VENV)


def _go_on_in(venv: Path) -> None:
    if Path(sys.prefix).resolve() != venv:
        python = str(venv / "bin" / "python")
        os.execv(python, [python, *sys.argv])


def versions() -> dict[str, str]:
    from importlib.metadata import distributions

    from xboard_circus import __version__

    installed = {each.name: each.version for each in distributions()}
    rivals = {name: installed[name] for name in SHOWN if name in installed}
    rivals |= {name: version for name, command in PROGRAMS.items() if (version := _output(["sh", "-c", command]))}
    commit = _output(["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude", "*"]) or "no git"
    return {"xboard-circus": f"{__version__} ({commit})", **rivals}


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
