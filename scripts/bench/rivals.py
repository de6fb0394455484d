"""Who is measured: how each is installed, started and told to reload, with the best settings that it has.

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

VENV = CHECKOUT / ".venv-bench"
RIVALS = ["circus", "gunicorn", "setuptools<81", "superlance", "supervisor", "uvicorn-worker", "uvicorn[standard]"]
SHOWN = ["circus", "fastapi", "gunicorn", "superlance", "supervisor", "uvicorn", "uvicorn-worker", "uvloop"]
RELOAD_WITHIN = 60.0


def _reload_ours(running: Running) -> None:
    reply = running.ask_circusd("xboard_reload", name="web")
    if reply["status"] != "ok":
        raise RuntimeError(f"reload: {reply}")
    until = time.monotonic() + RELOAD_WITHIN
    while time.monotonic() < until:
        if running.ask_circusd("xboard_state")["watchers"][0]["reload"]["state"] != "running":
            return
        time.sleep(0.1)


def _reload_circus(running: Running) -> None:
    endpoint = f"tcp://127.0.0.1:{running.words['control']}"
    circusctl = ("-m", "circus.circusctl", "--timeout", "60", "--endpoint", endpoint)
    _run(*circusctl, "reload", "web", "--sequential", "--waiting")


def _restart_one_by_one(running: Running) -> None:
    """`restart` of the whole group would leave nobody for as long as the new ones start."""
    file = str(running.folder / "supervisord.conf")
    for number in range(running.workers):
        _run("-m", "supervisor.supervisorctl", "-c", file, "restart", f"web:web_{number}")


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, timeout=RELOAD_WITHIN)


def _hang_up(running: Running) -> None:
    running.supervisor.signal(signal.SIGHUP)


UVICORN = "{python} -m uvicorn bench.plain_app:app --host 127.0.0.1 --port {port} --no-access-log"
WORKERS = f"{UVICORN} --workers {{workers}} --timeout-worker-healthcheck 2"
SUPERVISOR = "{python} -m supervisor.supervisord -c {file}"
CIRCUSD = "{python} -m circus.circusd {file}"
OURS, UVICORN_WORKERS, BARE, FAKE, CLI = "xboard-circus", "uvicorn", "bare-uvicorn", "fake-workers", "cli"
RIVAL = {
    rival.name: rival
    for rival in (
        Rival(OURS, "xboard-circus", CIRCUSD, "xboard.ini", _reload_ours),
        Rival("supervisor", "supervisor + httpok", SUPERVISOR, "supervisord.conf", _restart_one_by_one),
        Rival("gunicorn", "gunicorn + uvicorn-worker", "{python} -m gunicorn -c {file}", "gunicorn.conf.py", _hang_up),
        Rival(UVICORN_WORKERS, "uvicorn --workers", WORKERS, reload=_hang_up),
        Rival("circus", "stock Circus", CIRCUSD, "circus-stock.ini", _reload_circus),
        Rival(BARE, "bare uvicorn, one process", UVICORN),
        Rival(FAKE, "xboard-circus", CIRCUSD, "fake-workers.ini"),
        Rival(CLI, "xboard-circus start", "{python} -m xboard_circus start -c {file}", "xboard.ini"),
    )
}
MEASURED = [OURS, "supervisor", "gunicorn", UVICORN_WORKERS, "circus"]


def requirements() -> list[str]:
    ini = configparser.ConfigParser()
    ini.read(CHECKOUT / "setup.cfg")
    return [line for line in ini["options"]["install_requires"].splitlines() if line] + RIVALS


def enter_venv() -> None:
    """Go on in the bench's own environment, which is made when it is not there or stands for other requirements."""
    wanted = hashlib.sha256("\n".join(requirements()).encode()).hexdigest()
    python, stamp = VENV / "bin" / "python", VENV / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making {VENV} with the rivals: once, about a minute", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements()], check=True)
        stamp.write_text(wanted)
    if Path(sys.prefix).resolve() != VENV:
        os.execv(python, [str(python), *sys.argv])


def versions() -> dict[str, str]:
    from importlib.metadata import version

    from xboard_circus import __version__

    return {"xboard-circus": f"{__version__} ({_commit()})", **{name: version(name) for name in SHOWN}}


def _commit() -> str:
    git = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--exclude", "*"]
    found = subprocess.run(git, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "no git"
