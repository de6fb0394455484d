"""Containers for the tests: the image of the committed Dockerfile, on a base that debootstrap makes, run by podman.

There is no registry here, and none is needed. The base is kept in the user's cache; the image is kept in podman's
storage under a name made of all that goes into it, so that several files of tests, at once or on the next day, build
it once. Whatever is run is removed by its id.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import shutil
import subprocess
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from .free_ports import free_port
from .harness import eventually, is_well
from .parts import needs

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xboard-circus-tests"
SUITE = "trixie"
PACKAGES = "python3,python3-venv,ca-certificates"
BASE = f"localhost/xboard-test-base:{SUITE}"
IMAGE = "localhost/xboard-test"
OWNER = "test.checkout"  # a label: which checkout an image was built from
# As Debian's own slim images leave it out.
NOT_READ = ("doc", "info", "locale", "man")
LEFT_OUT = ("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", *(f"usr/share/{name}/*" for name in NOT_READ))
INPUTS = (
    "Dockerfile",
    ".dockerignore",
    "README.md",
    "LICENSE",
    "setup.cfg",
    "pyproject.toml",
    "constraints.txt",
    "deploy/container",
)
SOURCES = ("plugins", "xboard_circus")
# A quarter of what our own client takes, since it imports little, and it is run twice a second.
ASK = """
import os, zmq
circusd = zmq.Context().socket(zmq.DEALER)
circusd.linger = 0
circusd.connect(os.environ["CIRCUSCTL_ENDPOINT"])
circusd.send_json({"id": "1", "command": "xboard_state", "properties": {}})
circusd.poll(5000) or exit("circusd does not answer")
print(circusd.recv_string())
"""
# The first process, and how soon it takes a circusd for hung.
WITH_LITTLE_PATIENCE = """
import sys
from pathlib import Path
from xboard_circus.container.run import run
sys.exit(run(Path("circus.ini").absolute(), patience=1))
"""
# What must not get into an image, laid into the folder that it is built from.
SECRETS = (".env", "xboard.db", "ledger.db", "dashboard.token", "uploads/private.txt", "plugins/secret.txt")


def podman(*arguments: str | Path, timeout: float = 180, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman; AssertionError with what it said when it fails."""
    done = subprocess.run(
        ["podman", *map(str, arguments)],
        env=podman_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0 or not check, f"podman {arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done


def podman_environ() -> dict[str, str]:
    return {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}


def need_containers(*programs: str) -> None:
    """Skip where containers cannot be built and run: without root, podman or debootstrap."""
    needs("podman", "debootstrap", "nft", *programs)
    if os.geteuid() != 0:
        pytest.skip("debootstrap and the limits of containers need root")


def image() -> str:
    """Return the name of the image of this checkout, built where it is missing."""
    need_containers()
    with alone():
        base()
        name = f"{IMAGE}:{digest()}"
        if not exists(name):
            remove_older()
            build(name)
    return name


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait for whoever else builds, and keep others from it meanwhile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def base() -> None:
    """See to it that the image to build on is there; to be called `alone`."""
    if not exists(BASE):
        make_base()


def exists(name: str) -> bool:
    return podman("image", "exists", name, check=False).returncode == 0


def digest() -> str:
    """Return what stands for all that goes into the image."""
    found = hashlib.sha256(podman("image", "inspect", BASE, "--format", "{{.Id}}").stdout.encode())
    for name in (*INPUTS, *SOURCES):
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                found.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def make_base() -> None:
    """Import a small Debian with Python, from the cache or made now, in less than a minute."""
    archive = CACHE / f"{SUITE}-{hashlib.sha256(f'{PACKAGES}{LEFT_OUT}'.encode()).hexdigest()[:8]}.tar"
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            root, made = Path(folder, "root"), Path(folder, "base.tar")
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            left_out = [f"--exclude=./{pattern}" for pattern in LEFT_OUT]
            subprocess.run(["tar", "-C", root, *left_out, "-cf", made, "."], check=True)
            made.rename(archive)
    podman("import", archive, BASE, timeout=600)


def build(name: str) -> None:
    """Build as the documents say, from a copy of the checkout in which secrets lie about."""
    with tempfile.TemporaryDirectory(prefix="xb-context-") as folder:
        for source in (*INPUTS, *SOURCES):
            path, copy = ROOT / source, Path(folder, source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, copy)
        for secret in SECRETS:
            Path(folder, secret).parent.mkdir(exist_ok=True)
            Path(folder, secret).write_text("hunter2")
        podman("build", *build_flags(), f"--label={OWNER}={ROOT}", f"--tag={name}", folder, timeout=600)


def build_flags(on: str = BASE) -> list[str]:
    """Return what podman needs to be told here to build a Dockerfile as Docker would, *on* that image."""
    limits = [
        f"{name}={resource.getrlimit(number)[1]}:{resource.getrlimit(number)[1]}"
        for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
    ]
    return [
        *(f"--ulimit={limit}" for limit in limits),
        "--format=docker",  # the other one has no HEALTHCHECK
        f"--layer-label={OWNER}={ROOT}",  # what is between is used again by the next build, and removed with the image
        "--network=host",
        "--volume=/etc/ssl/certs:/etc/ssl/certs:ro",
        f"--build-arg=BASE={on}",
    ]


def remove_older() -> None:
    """Remove what this checkout built earlier; an image that is in use stays."""
    listed = podman("images", "--all", "--filter", f"label={OWNER}={ROOT}", "--format", "{{.Id}}")
    for number in dict.fromkeys(listed.stdout.split()):
        podman("rmi", number, check=False)


class Container:
    """A container that was started; *port* is where its 8000 is on this host."""

    def __init__(self, number: str, port: int, *, is_restarted: bool = False) -> None:
        self.id = number
        self.port = port
        self.is_restarted = is_restarted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def logs(self) -> str:
        done = podman("logs", self.id)
        return done.stdout + done.stderr

    def inspect(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(podman("inspect", self.id).stdout)[0]
        return found

    def exec(self, *command: str, check: bool = True) -> str:
        return podman("exec", self.id, *command, check=check).stdout.strip()

    def kill(self, pid: int, signal: str = "KILL") -> None:
        """Signal the process that has *pid* inside; it may be gone already."""
        self.exec("sh", "-c", f"kill -{signal} {pid}", check=False)

    def state(self) -> dict[str, Any]:
        """What circusd inside tells of itself."""
        state: dict[str, Any] = json.loads(self.exec("python", "-c", ASK))
        return state

    def workers(self) -> list[int]:
        """The pids, inside, of the workers that serve."""
        self.workers_may_come()
        (xboard,) = (watcher for watcher in self.state()["watchers"] if watcher["name"] == "xboard")
        return [worker["pid"] for worker in xboard["workers"] if is_well(worker)]

    def workers_may_come(self) -> None:
        """Raise RuntimeError, for which nobody waits, when the container has ended and will not be started again."""
        if self.inspect()["State"]["Status"] == "exited" and not self.is_restarted:
            raise RuntimeError(f"the container has ended\n{self.logs()}")

    def goes_first(self) -> None:
        """Let its processes run before all others of this machine; those that they start do too."""
        init = psutil.Process(self.inspect()["State"]["Pid"])
        for each in [init, *init.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):  # it has ended since
                each.nice(-15)
                # Where each session is a group of its own, a priority counts inside of it alone.
                Path(f"/proc/{each.pid}/autogroup").write_text("-15")

    def health(self) -> str:
        """Run the check as Docker does every ten seconds, and return the status that comes of it."""
        podman("healthcheck", "run", self.id, check=False)
        return str(self.inspect()["State"]["Health"]["Status"])

    def post(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Post *fields* to the backend, which has to answer 201; return what it says."""
        body = json.dumps(fields).encode()
        request = urllib.request.Request(f"{self.url}{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as made:
            assert made.status == 201
            answer: dict[str, Any] = json.loads(made.read())
            return answer

    def spools(self, size: int) -> bool:
        """Say whether a temporary file may have that many bytes, as an upload of a form needs one."""
        code = f"import tempfile; print(tempfile.TemporaryFile(buffering=0).write(bytes({size})))"
        return self.exec("python", "-c", code, check=False) == str(size)

    def wait_ready(self, workers: int = 2, timeout: float = 120) -> None:
        eventually(self._answers, timeout=timeout, every=0.2, what="the backend answers")
        eventually(lambda: len(self.workers()) == workers, timeout=timeout, every=0.5, what="all workers serve")

    def _answers(self) -> bool:
        try:
            return bool(get(f"{self.url}/health/live"))
        except OSError:
            self.workers_may_come()
            return False

    def wait_end(self, timeout: float = 180) -> int:
        """Wait until the container has ended; return its exit code."""
        return int(podman("wait", self.id, timeout=timeout).stdout)


@contextlib.contextmanager
def running(
    *options: str,
    env: Mapping[str, str] | None = None,
    mounts: Sequence[str] = (),
    publish: bool = True,
    of: str | None = None,
) -> Iterator[Container]:
    """Run the image, or the one named *of*, with the further *options* of ``podman run``; remove the container."""
    port = free_port()
    where = [f"--publish=127.0.0.1:{port}:8000"] if publish else []
    given = [f"--env={name}={value}" for name, value in (env or {}).items()]
    volumes = [f"--volume={mount}" for mount in mounts]
    number = podman("run", "--detach", *where, *given, *volumes, *options, of or image()).stdout.strip()
    container = Container(number, port, is_restarted="--restart=always" in options)
    try:
        yield container
    except BaseException:
        print(container.logs())
        raise
    finally:
        podman("rm", "--force", "--time=1", "--volumes", number)


@contextlib.contextmanager
def volume() -> Iterator[str]:
    """A named volume for one test."""
    name = f"xb-{uuid.uuid4().hex[:12]}"
    podman("volume", "create", name)
    try:
        yield name
    finally:
        podman("volume", "rm", "--force", name)


def get(url: str, timeout: float = 20) -> str:
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return str(answer.read().decode())


def answers(url: str, *, within: float = 120) -> str:
    """Wait until *url* answers 2xx and return what it says."""
    return eventually(lambda: get(url), timeout=within, every=0.2, what=f"{url} answers")


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def orders(folder: Path) -> Path:
    """Make a folder that the container's user may write, for what the test backend is told and tells."""
    made = folder / "orders"
    made.mkdir()
    made.chmod(0o777)
    return made


def backend_mounts(folder: Path) -> list[str]:
    """Mount the test backend and its folder of orders; the app is ``backend:app`` and BACKEND_DIR is /orders."""
    return [f"{HERE / 'backend.py'}:/app/backend.py:ro", f"{folder}:/orders"]


BACKEND = {"XBOARD_APP": "backend:app", "BACKEND_DIR": "/orders"}
