"""The image of the committed Dockerfile, run as in production: not as root, in little memory, on a read-only root."""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xboard_circus import __version__

from .containers import (
    BACKEND,
    BASE,
    ROOT,
    SECRETS,
    WITH_LITTLE_PATIENCE,
    Container,
    answers,
    backend_mounts,
    get,
    image,
    last_line,
    need_containers,
    orders,
    podman,
    running,
    volume,
)
from .harness import eventually
from .load import Load

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp:mode=1777,size=64m",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=256m",
)
MEGABYTE = 1_000_000
LARGEST = 200 * MEGABYTE


@pytest.fixture(autouse=True)
def _parts() -> None:
    need_containers()


@pytest.fixture(scope="module")
def built() -> str:
    need_containers()
    return image()


@pytest.fixture(scope="module")
def backend(built: str) -> Iterator[Container]:
    """The sample backend, hardened, with its data in two volumes."""
    with volume() as data, volume() as uploads:
        mounts = [f"{data}:/app/data", f"{uploads}:/app/uploads"]
        with running(*HARDENED, env={"XBOARD_DB": "/app/data/xboard.db"}, mounts=mounts) as container:
            container.wait_ready()
            yield container


def seen_inside(code: str) -> str:
    """Return what a shell says in a new container of the image, as root so that nothing is hidden from it."""
    done = podman("run", "--rm", "--user=0", "--network=none", "--entrypoint=sh", image(), "-c", code)
    return done.stdout.strip()


# -- the image --


def test_the_image_is_small(built: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = int(podman("image", "inspect", built, "--format", "{{.Size}}").stdout)

    with capsys.disabled():
        print(f"\nsize of the image: {size / MEGABYTE:.0f} MB")
    assert size < LARGEST


def test_the_image_says_what_it_is_and_how_it_ends(built: str) -> None:
    found = json.loads(podman("image", "inspect", built).stdout)[0]
    config: dict[str, Any] = found["Config"]
    labels: dict[str, str] = config["Labels"]

    assert (config["User"], config["StopSignal"], config["WorkingDir"]) == ("1000:1000", "SIGTERM", "/app")
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert {"title", "description", "revision"} <= set(said)
    assert (said["version"], said["licenses"], said["base.name"]) == (__version__, "Apache-2.0", BASE)
    assert found["Healthcheck"]["Test"] == ["CMD", "python", "-m", "xboard_circus.container", "health"]


def test_the_image_holds_no_compiler_no_cache_and_no_secret(built: str) -> None:
    names = " -o ".join(f"-name '{Path(secret).name}'" for secret in (*SECRETS, ".git", "*.whl", "pip-*.dist-info"))

    assert seen_inside("for each in gcc cc g++ make pip; do command -v $each; done; true") == ""
    assert seen_inside("ls -d /root/.cache /app/.cache /src /tools 2>/dev/null; true") == ""
    # Debian's own venv module has a wheel of pip in it; what counts is what we have added.
    assert seen_inside(f"find /opt /app /home /root /srv /tmp /var \\( {names} \\)") == ""
    assert "hunter2" not in podman("history", "--no-trunc", built).stdout


# -- in it --


def test_the_backend_answers_and_is_healthy(backend: Container) -> None:
    """Given a read-only root, 256 MB and no rights, then the backend answers, keeps data, and the check is well."""
    assert json.loads(answers(f"{backend.url}/health"))["status"] == "ok"
    backend.post("/boards", {"name": "from outside"})
    assert "from outside" in get(f"{backend.url}/boards")

    eventually(lambda: backend.health() == "healthy", timeout=120, every=0.5)
    assert backend.exec("id", "-u") == "1000"
    assert "Read-only" in podman("exec", backend.id, "touch", "/app/x", check=False).stderr
    limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
    assert backend.exec("sh", "-c", limit) == str(256 * 1024 * 1024)


def test_its_workers_are_forked(backend: Container) -> None:
    """Given a container whose processes can gain no rights, then its workers are forked as elsewhere."""
    assert wait_forked(backend) == ("server", "ready", "")


def test_its_workers_are_forked_from_an_import_of_the_app(built: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "container" / "circus.ini").read_text()
    (tmp_path / "circus.ini").write_text(text.replace("copy_env = True", "copy_env = True\nworker.preload = app", 1))
    env = {"XBOARD_DB": "/app/data/xboard.db", "XBOARD_UPLOADS": "/app/data/uploads"}
    mounts = [f"{tmp_path / 'circus.ini'}:/app/circus.ini:ro"]
    with running(*HARDENED, "--tmpfs=/app/data:mode=1777", env=env, mounts=mounts) as container:
        container.wait_ready()
        assert wait_forked(container) == ("app", "ready", "")


def wait_forked(container: Container) -> tuple[str, str, str]:
    """Wait for a forked worker, and return what circusd says of the preload; all in there is under the seccomp filter.

    A fork that does not answer in time is a start, by design: the other tests are not to decide it.
    """

    def is_one_forked() -> bool:
        """Look for a forked worker; have the workers replaced where all of them were started."""
        container.goes_first()
        for pid in container.workers():
            if container.exec("grep", "-c", "XBOARD_FORK_LEVEL", f"/proc/{pid}/environ", check=False) == "1":
                return True
        print([each["preload"] for each in container.state()["watchers"]])  # shown if none is in the end
        print(container.exec("xboard-circus", "reload", check=False))
        return False

    assert eventually(is_one_forked, timeout=120)
    statuses = [f"/proc/{pid}/status" for pid in (1, container.state()["circusd"]["pid"], *container.workers())]
    rights = container.exec("grep", "-hE", "^(Seccomp|NoNewPrivs):", *statuses).split()
    assert rights == ["NoNewPrivs:", "1", "Seccomp:", "2"] * len(statuses)
    (preload,) = (each["preload"] for each in container.state()["watchers"] if each["name"] == "xboard")
    return preload["level"], preload["state"], preload["reason"]


def test_only_the_backend_can_be_reached(backend: Container) -> None:
    """Given a container, then nothing but the backend's port listens, and the way to circusd is closed to others."""
    listening = backend.exec("sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" {print $2}'")

    assert {int(line.rpartition(":")[2], 16) for line in listening.split()} == {8000}
    assert backend.exec("stat", "-c", "%a %u", "/tmp/xboard") == "700 1000"


def test_all_logs_are_on_stdout(backend: Container) -> None:
    get(f"{backend.url}/boards?limit=7")

    eventually(lambda: "/boards?limit=7" in podman("logs", backend.id).stdout)
    logs = podman("logs", backend.id).stdout
    for part in ("every option is read", "xboard started", "Application startup complete", "plugin INFO Bundle"):
        assert part in logs, part
    assert podman("logs", backend.id).stderr == ""


def test_a_killed_worker_is_replaced(backend: Container) -> None:
    old = backend.workers()

    backend.kill(old[0])

    eventually(lambda: len(set(backend.workers()) - {old[0]}) == 2, timeout=120, every=0.3, what="two serve again")
    assert answers(f"{backend.url}/health")
    eventually(lambda: backend.health() == "healthy", timeout=120, every=0.5)


def test_the_check_fails_when_circusd_does_not_answer(backend: Container) -> None:
    """Given a frozen circusd, whose workers serve on, then the check says who does not answer."""
    circusd = backend.state()["circusd"]["pid"]
    backend.kill(circusd, "STOP")
    try:
        check = podman("exec", backend.id, "python", "-m", "xboard_circus.container", "health", check=False)
    finally:
        backend.kill(circusd, "CONT")

    assert check.returncode == 1
    assert check.stdout.startswith("no answer from circusd at ipc:///tmp/xboard/circusd")
    eventually(lambda: backend.health() == "healthy", timeout=120, every=0.5)


def test_a_circusd_that_hangs_is_replaced_in_the_same_container(built: str) -> None:
    """Given a load, when circusd is frozen, then another one serves in its place, no request is lost, the container is
    the same, and the ledger has the loss once."""
    quick = f"--entrypoint={json.dumps(['python', '-c', WITH_LITTLE_PATIENCE])}"
    env = {"XBOARD_DB": "/app/data/xboard.db", "XBOARD_UPLOADS": "/app/data/uploads"}
    with running(*HARDENED, "--tmpfs=/app/data:mode=1777", quick, env=env) as container:
        container.wait_ready()
        began, hung = container.inspect()["State"]["StartedAt"], container.state()["circusd"]["pid"]
        with Load(f"{container.url}/health/live", rate=50) as load:
            container.kill(hung, "STOP")
            eventually(lambda: container.state()["circusd"]["pid"] != hung, timeout=120, every=0.3, what="another one")
            container.wait_ready()
        assert load.lost == []
        assert container.inspect()["State"]["StartedAt"] == began
        assert "circusd was ended by SIGKILL: starting it again; its workers serve on" in container.logs()
        kinds = ("--kind=circusd_lost", "--kind=circusd_back", "--json")
        listed = container.exec("python", "-m", "xboard_circus", "events", *kinds).splitlines()
        assert [(each["kind"], each["pid"]) for each in map(json.loads, listed)] == [
            ("circusd_lost", hung),
            ("circusd_back", hung),
        ]


def test_the_check_fails_when_the_port_does_not_answer(backend: Container) -> None:
    """Given frozen workers, which circusd still takes for ready, then the check says that their port is silent."""
    is_plugin = 'grep -qz "^from circus import plugins" $each/cmdline'
    code = f"for each in /proc/[0-9]*; do {is_plugin} && basename $each; done; true"
    plugin = int(backend.exec("sh", "-c", code))
    backend.kill(plugin, "STOP")  # it would replace them before a crowded machine has run the check
    frozen = backend.workers()
    for pid in frozen:
        backend.kill(pid, "STOP")

    check = podman("exec", backend.id, "python", "-m", "xboard_circus.container", "health", check=False)

    backend.kill(plugin, "CONT")
    assert (check.returncode, "xboard at port 8000, /health/live: " in check.stdout) == (1, True), check
    eventually(lambda: len(set(backend.workers()) - {*frozen}) == 2, timeout=120, every=0.5, what="others serve")


def test_orphans_are_reaped_and_a_stop_ends_it(built: str, tmp_path: Path) -> None:
    """Given a worker with a child, when the worker dies and then the child, then no zombie of either is left."""
    folder = orders(tmp_path)
    with running(env={**BACKEND, "XBOARD_WORKERS": "1"}, mounts=backend_mounts(folder)) as container:
        container.wait_ready(1)
        (worker,) = container.workers()
        (folder / ".do").write_text("child")
        (folder / ".do").replace(folder / f"do.pid-{worker}")  # in one step: the backend never reads half of it
        sleeper = eventually(lambda: pid_of(container, "sleep"), timeout=120, every=0.2)
        container.kill(worker)
        eventually(lambda: container.workers() not in ([], [worker]), timeout=120, every=0.3)
        container.kill(sleeper)  # circusd may have been quicker

        eventually(lambda: pid_of(container, "sleep") is None and not zombies(container), timeout=120, every=0.2)
        podman("stop", "--time=20", container.id)
        assert container.inspect()["State"]["ExitCode"] == 0


def pid_of(container: Container, name: str) -> int | None:
    code = f'for each in /proc/[0-9]*; do [ "$(cat $each/comm 2>/dev/null)" = {name} ] && basename $each; done; true'
    found = container.exec("sh", "-c", code).split()
    return int(found[0]) if found else None


def zombies(container: Container) -> list[str]:
    return container.exec("sh", "-c", "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; true").split()


def test_a_stop_under_load_loses_nothing_until_the_drain_is_over(built: str, tmp_path: Path) -> None:
    """Given kept-alive clients and long requests, when the container is stopped, then each is answered.

    What asks for a *new* connection after the stop has begun finds a service that is going away.
    """
    with running(*HARDENED, env=BACKEND, mounts=backend_mounts(orders(tmp_path))) as container:
        container.wait_ready()
        quick = Load(f"{container.url}/", rate=100, connections=20, timeout=30)
        slow = Load(f"{container.url}/slow?s=3", rate=5, timeout=30)
        with quick, slow:
            eventually(lambda: quick.answered > 150 and slow.answered > 0, timeout=120, what="both kinds are under way")
            stopped_at = time.monotonic()
            podman("stop", "--time=10", container.id)
        served = [request for load in (quick, slow) for request in load.requests]
        lost = [
            request for request in served if request.outcome != "ok" and (request.start < stopped_at or request.worker)
        ]

        assert lost == []
        assert any(request.start < stopped_at < request.start + request.latency for request in slow.requests)
        assert any(request.start > stopped_at and request.worker and not request.lost for request in quick.requests)
        assert container.inspect()["State"]["ExitCode"] == 0, "10 s were too little, and it was ended by SIGKILL"


# -- what cannot run --

BROKEN = """
import contextlib

from fastapi import FastAPI


@contextlib.asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no database at db:5432")
    yield


app = FastAPI(lifespan=lifespan)
"""


def test_an_app_that_cannot_start_ends_the_container_with_the_reason(built: str, tmp_path: Path) -> None:
    """Given an app that fails at its start, then the container ends with 1 after the set time and says why, last."""
    (tmp_path / "broken.py").write_text(BROKEN)
    env = {"XBOARD_APP": "broken:app", "XBOARD_GIVE_UP_AFTER": "15"}
    began_at = time.monotonic()
    with running(*HARDENED, env=env, mounts=[f"{tmp_path / 'broken.py'}:/app/broken.py:ro"]) as container:
        code = container.wait_end()

        assert code == 1
        assert time.monotonic() - began_at > 15
        told = last_line(container.logs())
        assert told.startswith("xboard-circus: giving up: xboard could not be kept up for 15 s: ")
        assert "RuntimeError: no database at db:5432" in told


def test_an_ini_with_a_fault_is_not_started(built: str, tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "container" / "circus.ini").read_text()
    (tmp_path / "circus.ini").write_text(text.replace("health.live_path =", "health.life_path ="))
    with running(mounts=[f"{tmp_path / 'circus.ini'}:/app/circus.ini:ro"]) as container:
        code = container.wait_end()

        logs = container.logs()
        assert code == 1
        assert "health.life_path = /health/live: unknown option; did you mean health.live_path?" in logs
        assert last_line(logs).startswith("xboard-circus: nothing was started")
        assert "Starting master" not in logs


# -- the volumes of the seed --


def test_what_was_answered_outlives_the_container(built: str, tmp_path: Path) -> None:
    """Given files and a folder of the host's, mounted as the guide does it, when the container is killed and removed
    right after 100 boards were answered 201, then the next one has all of them, the upload, and the events.
    """
    database, ledger, uploads = tmp_path / "xboard.db", tmp_path / "ledger.db", tmp_path / "uploads"
    for path in (database, ledger):
        path.touch()
    uploads.mkdir()
    for path in (database, ledger, uploads):
        os.chown(path, 1000, 1000)
    mounts = [f"{uploads}:/app/uploads", f"{database}:/app/xboard.db", f"{ledger}:/app/ledger.db"]
    env = {"XBOARD_LEDGER": "/app/ledger.db"}
    with running(mounts=mounts, env=env) as container:
        container.wait_ready()
        put = urllib.request.Request(f"{container.url}/uploads/note.txt", b"kept", method="PUT")
        with urllib.request.urlopen(put, timeout=60) as done:
            assert done.status in (200, 201)
        killed = container.workers()[0]
        container.kill(killed)
        eventually(lambda: f"{killed}" in events(container), timeout=120, every=0.5, what="its end is in the ledger")
        for number in range(100):
            assert container.post("/boards", {"name": f"board {number}"})["id"] == number + 1
        podman("kill", container.id)

    with running(mounts=mounts, env=env) as container:
        container.wait_ready()
        assert json.loads(get(f"{container.url}/boards"))["total"] == 100
        assert container.post("/boards", {"name": "one more"})["id"] == 101
        assert get(f"{container.url}/uploads/note.txt") == "kept"
        assert f"{killed}" in events(container)


def events(container: Container) -> list[str]:
    """Return the pids of the events that the ledger in there has."""
    told = container.exec("python", "-m", "xboard_circus", "events", "--json", check=False)
    return [str(json.loads(line).get("pid")) for line in told.splitlines()]


def test_a_folder_in_place_of_the_database_is_told(built: str, tmp_path: Path) -> None:
    """Given that there was no file to mount, so that Docker made a folder, then the container says so and ends."""
    (tmp_path / "xboard.db").mkdir()
    with running(mounts=[f"{tmp_path / 'xboard.db'}:/app/xboard.db"]) as container:
        assert container.wait_end() == 1
        assert "/app/xboard.db is a folder: there was no file to mount" in last_line(container.logs())
