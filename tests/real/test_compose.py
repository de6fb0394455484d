"""The committed compose file, by podman-compose: what it starts, what it keeps, what it limits."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shlex
import shutil
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .containers import ROOT, Container, answers, get, image, need_containers, podman, podman_environ
from .harness import eventually
from .parts import find
from .ports import free_port

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(600)

FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
PROMETHEUS = Path("deploy", "prometheus")
COMPOSE = [sys.executable, "-m", "podman_compose"]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


# -- what the file says --


def test_the_backend_alone_is_the_default() -> None:
    assert {name: service.get("profiles", []) for name, service in services().items()} == {
        "backend": [],
        "nginx": ["nginx"],
        "prometheus": ["prometheus"],
    }


def test_every_service_restarts_is_limited_and_rotates_its_log() -> None:
    for name, service in services().items():
        assert service["restart"] == "unless-stopped", name
        assert service["mem_limit"], name
        assert service["read_only"] is True, name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}, name


def test_the_example_holds_every_variable_with_its_default() -> None:
    shown = dict(line.split("=", 1) for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#"))
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", FILE.read_text()))
    images = {"XBOARD_NGINX_IMAGE", "XBOARD_PROMETHEUS_IMAGE"}

    assert shown == {name: value for name, value in used.items() if name not in images}
    assert (shown["XBOARD_NOFILE"], shown["XBOARD_NPROC"]) == ("65536", "4096")


def test_what_is_mounted_is_there() -> None:
    mounted = [volume for service in services().values() for volume in service.get("volumes", [])]
    ours = [volume.partition(":")[0] for volume in mounted if volume.startswith("./")]

    assert "./deploy/nginx/xboard.conf" in ours
    assert [name for name in ours if "prometheus" not in name and not (ROOT / name).exists()] == []


# -- what it does --


@dataclass
class Project:
    """One run of the compose file, under a name of the test's own."""

    name: str
    folder: Path
    port: int
    env: Mapping[str, str]

    def compose(self, *arguments: str, timeout: float = 180) -> None:
        done = subprocess.run(
            [*COMPOSE, "--project-name", self.name, *arguments],
            cwd=self.folder,
            env=podman_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def backend(self) -> Container:
        return Container(f"{self.name}_backend_1", self.port)

    def containers(self) -> list[str]:
        listed = podman(
            "ps", "--all", "--filter", f"label=io.podman.compose.project={self.name}", "--format={{.Names}}"
        )
        return listed.stdout.split()


@contextlib.contextmanager
def project(folder: Path, **env: str) -> Iterator[Project]:
    """The compose file in a folder of its own, with the variables *env* in its .env; nothing of it is left behind."""
    for name in ("docker-compose.yml", "deploy"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    port = free_port()
    chosen = {"XBOARD_IMAGE": image(), "XBOARD_LISTEN": f"127.0.0.1:{port}", **env}
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in chosen.items()))
    made = Project(f"xb{uuid.uuid4().hex[:10]}", folder, port, chosen)
    try:
        yield made
    except BaseException:
        for name in made.containers():
            print(podman("logs", name, check=False).stdout)
        raise
    finally:
        made.compose("down", "--volumes", "--timeout", "2")


def files_that_can_be_open() -> int:
    """65536, or what the hard limit of this machine leaves where even root cannot raise it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], max(65536, limits[1])))
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        return 65536
    return limits[1] - 1


def test_it_is_healthy_limited_and_keeps_its_data(tmp_path: Path) -> None:
    """Given ``up``, then the backend is healthy and within its limits; after ``down`` and ``up`` its data is there."""
    need_containers()
    files = files_that_can_be_open()
    with project(tmp_path, XBOARD_NOFILE=str(files), XBOARD_MEMORY="300m", XBOARD_CPUS="1.5") as p:
        p.compose("up", "--detach")
        assert p.containers() == [f"{p.name}_backend_1"]
        backend = p.backend()
        backend.wait_ready()
        assert eventually(lambda: backend.health() == "healthy", timeout=40, every=1)

        limits = backend.exec("cat", "/proc/self/limits")
        assert re.search(rf"Max open files +{files} +{files} ", limits)
        assert re.search(r"Max processes +4096 +4096 ", limits)
        assert limit_inside(backend, "memory.max", "memory/memory.limit_in_bytes") == str(300 * 1024 * 1024)
        assert limit_inside(backend, "cpu.max", "cpu/cpu.cfs_quota_us").split()[0] == "150000"
        found = backend.inspect()["HostConfig"]
        assert (found["ReadonlyRootfs"], found["RestartPolicy"]["Name"]) == (True, "unless-stopped")
        assert found["LogConfig"]["Size"].upper() == "10MB"

        put(f"{p.backend().url}/uploads/note.txt", b"kept")
        post(f"{p.backend().url}/boards", {"name": "kept"})
        p.compose("down")
        assert p.containers() == []
        p.compose("up", "--detach")

        assert "kept" in answers(f"{p.backend().url}/boards")
        assert "note.txt" in get(f"{p.backend().url}/uploads")


def test_prometheus_beside_the_backend_scrapes_it_and_nobody_else_can(tmp_path: Path) -> None:
    """Given XBOARD_DASHBOARD=True and the reader's token, then Prometheus in the backend's network has its figures."""
    need_containers("prometheus", "nsenter")
    with project(tmp_path, XBOARD_NOFILE=str(files_that_can_be_open()), XBOARD_DASHBOARD="True") as p:
        p.compose("up", "--detach")
        backend = p.backend()
        backend.wait_ready()
        said = (tmp_path / PROMETHEUS / "prometheus.yml").read_text()
        (told,) = re.findall(r"^# .* exec -T backend (.*)$", said, re.MULTILINE)
        *words, to = shlex.split(told)
        token = eventually(lambda: backend.exec(*words, check=False), timeout=30, every=0.5, what="there is a token")
        (tmp_path / to.removeprefix(">")).write_text(token)

        with prometheus_beside(backend, tmp_path):
            up = "http://127.0.0.1:9090/api/v1/query?query=up"
            code = f"import urllib.request; print(urllib.request.urlopen({up!r}).read().decode())"
            is_up = eventually(lambda: '"1"]' in backend.exec("python", "-c", code, check=False), timeout=60, every=1)
        assert is_up
        assert backend.health() == "healthy"
        # Only 8000 is published; the page listens on the container's own 127.0.0.1.
        assert list(backend.inspect()["NetworkSettings"]["Ports"]) == ["8000/tcp"]


@contextlib.contextmanager
def prometheus_beside(backend: Container, folder: Path) -> Iterator[None]:
    """This host's Prometheus in the network of *backend*, as the compose file runs the image's."""
    pid = str(backend.inspect()["State"]["Pid"])
    places = {"/etc/prometheus": folder / PROMETHEUS, "=/prometheus": f"={folder / 'figures'}"}
    options = services()["prometheus"]["command"]
    for inside, here in places.items():
        options = [word.replace(inside, str(here)) for word in options]
    program = find("prometheus") or "prometheus"
    with (folder / "prometheus.log").open("wb") as log:
        command = ["nsenter", "--net", f"--target={pid}", "--", program, *options]
        popen = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        popen.terminate()
        popen.wait(30)


def limit_inside(backend: Container, *files: str) -> str:
    """Return what the first of *files* that is there says; the second is that of older machines."""
    names = " ".join(f"/sys/fs/cgroup/{name}" for name in files)
    return backend.exec("sh", "-c", f"cat {names} 2>/dev/null; true")


def put(url: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=10) as done:
        assert done.status in (200, 201)


def post(url: str, fields: Mapping[str, str]) -> None:
    request = urllib.request.Request(url, json.dumps(fields).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as done:
        assert done.status == 201


@pytest.mark.parametrize("profile", ["nginx", "prometheus"])
def test_a_profile_adds_its_service(profile: str) -> None:
    need_containers()
    command = [*COMPOSE, "--file", str(FILE), "--profile", profile, "config", "--services"]
    done = subprocess.run(command, env=podman_environ(), capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert set(done.stdout.split()) == {"backend", profile}
