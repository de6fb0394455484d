"""The committed compose file, by podman-compose: what it starts, what it keeps, what it limits."""

import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .compose import COMPOSE, FILE, files_that_can_be_open, losses, project, services
from .containers import ROOT, Container, answers, get, need_containers, podman, podman_environ
from .harness import eventually
from .parts import needs

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

EXAMPLE = ROOT / ".env.example"


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


def test_no_service_gains_rights_or_has_more_than_it_needs() -> None:
    for name, service in services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert services()["nginx"]["cap_add"] == ["NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN"]


def test_the_example_holds_every_variable_with_its_default() -> None:
    shown = dict(line.split("=", 1) for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#"))
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", FILE.read_text()))
    (used["COMPOSE_PROJECT_NAME"],) = re.findall(r"^name: (.*)", FILE.read_text(), re.MULTILINE)
    images = {"XBOARD_NGINX_IMAGE", "XBOARD_PROMETHEUS_IMAGE"}

    assert shown == {name: value for name, value in used.items() if name not in images}
    assert (shown["XBOARD_NOFILE"], shown["XBOARD_NPROC"]) == ("65536", "4096")


def test_what_is_mounted_is_there() -> None:
    mounted = [volume for service in services().values() for volume in service.get("volumes", [])]
    ours = [volume.partition(":")[0] for volume in mounted if volume.startswith("./")]

    assert "./deploy/nginx/xboard.conf" in ours
    assert [name for name in ours if "prometheus" not in name and not (ROOT / name).exists()] == []


def read_by_compose(*options: str) -> Any:
    """Return what Docker's own Compose makes of the file; it needs no Docker for that."""
    needs("docker-compose")
    command = ["docker-compose", "--file", str(FILE), *options, "config", "--format=json"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XBOARD_", "COMPOSE_"))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_dockers_own_compose_reads_it_and_the_example_changes_nothing() -> None:
    """Given Compose itself, which is stricter than podman's, then it takes every service, and .env.example for one."""
    profiles = ("--profile=nginx", "--profile=prometheus")

    read = read_by_compose("--env-file=/dev/null", *profiles)

    assert set(read["services"]) == set(services())
    assert set(read["services"]["backend"]["networks"]) == {"default", "figures"}
    assert set(read["services"]["nginx"]["networks"]) == {"default"}
    assert set(read["services"]["prometheus"]["networks"]) == {"default", "figures"}
    assert read["networks"]["figures"]["internal"] is True
    assert read_by_compose(f"--env-file={EXAMPLE}", *profiles) == read


def test_a_second_backend_of_the_host_shares_nothing_with_the_first_where_its_env_says_so(tmp_path: Path) -> None:
    """Given an .env with a name, image and addresses of its own, then no volume, network, image or port is the same."""
    own = tmp_path / ".env"
    changed = re.sub(r"^((?:COMPOSE_PROJECT_NAME|XBOARD_IMAGE)=).*", r"\1shop", EXAMPLE.read_text(), flags=re.MULTILINE)
    own.write_text(re.sub(r"^(XBOARD_\w*LISTEN=.*:)\d+$", r"\g<1>9999", changed, flags=re.MULTILINE))

    def taken(file: Path) -> set[str]:
        read = read_by_compose(f"--env-file={file}")
        backend = read["services"]["backend"]
        named = {each["name"] for kind in ("volumes", "networks") for each in read[kind].values()}
        return {read["name"], backend["image"], *(each["published"] for each in backend["ports"])} | named

    assert {"xboard", "xboard_data", "xboard-backend", "8000"} <= taken(EXAMPLE)
    assert taken(EXAMPLE).isdisjoint(taken(own))


# -- what it does --


def test_it_is_healthy_limited_and_keeps_its_data(tmp_path: Path) -> None:
    """Given ``up``, then the backend is healthy and within its limits.

    After a kill of the container, ``down`` and ``up``, its data is there, and the kill is in its ledger.
    """
    need_containers()
    files = files_that_can_be_open()
    with project(tmp_path, XBOARD_NOFILE=str(files), XBOARD_MEMORY="300m", XBOARD_CPUS="1.5") as p:
        p.compose("up", "--detach")
        assert p.containers() == [f"{p.name}_backend_1"]
        backend = p.backend()
        backend.wait_ready()
        assert eventually(lambda: backend.health() == "healthy", timeout=120, every=1)

        assert backend.spools(90_000_000)
        limits = backend.exec("cat", "/proc/self/limits")
        assert re.search(rf"Max open files +{files} +{files} ", limits)
        assert re.search(r"Max processes +4096 +4096 ", limits)
        assert limit_inside(backend, "memory.max", "memory/memory.limit_in_bytes") == str(300 * 1024 * 1024)
        assert limit_inside(backend, "cpu.max", "cpu/cpu.cfs_quota_us").split()[0] == "150000"
        found = backend.inspect()["HostConfig"]
        assert (found["ReadonlyRootfs"], found["RestartPolicy"]["Name"]) == (True, "unless-stopped")
        assert found["LogConfig"]["Size"].upper() == "10MB"

        put(f"{p.backend().url}/uploads/note.txt", b"kept")
        backend.post("/boards", {"name": "kept"})
        podman("kill", backend.id)
        p.compose("down")
        assert p.containers() == []
        p.compose("up", "--detach")

        assert "kept" in answers(f"{p.backend().url}/boards")
        assert "note.txt" in get(f"{p.backend().url}/uploads")
        eventually(lambda: len(losses(p)) == 1, every=0.5, what="the kill is recorded once")


def limit_inside(backend: Container, *files: str) -> str:
    """Return what the first of *files* that is there says; the second is that of older machines."""
    names = " ".join(f"/sys/fs/cgroup/{name}" for name in files)
    return backend.exec("sh", "-c", f"cat {names} 2>/dev/null; true")


def put(url: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=60) as done:
        assert done.status in (200, 201)


@pytest.mark.parametrize("profile", ["nginx", "prometheus"])
def test_a_profile_adds_its_service(profile: str) -> None:
    need_containers()
    command = [*COMPOSE, "--file", str(FILE), "--profile", profile, "config", "--services"]
    done = subprocess.run(command, env=podman_environ(), capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert set(done.stdout.split()) == {"backend", profile}
