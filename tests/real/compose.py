"""The committed compose file, run by podman-compose under a name of the test's own."""

import contextlib
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .containers import ROOT, Container, image, podman, podman_environ
from .free_ports import free_port

FILE = ROOT / "docker-compose.yml"
COMPOSE = [sys.executable, "-m", "podman_compose"]


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


@dataclass
class Project:
    """One run of the compose file, under a name of the test's own."""

    name: str
    folder: Path
    port: int
    env: Mapping[str, str]

    def compose(self, *arguments: str, timeout: float = 300) -> None:
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
            done = podman("logs", name, check=False)
            print(name, done.stdout, done.stderr, sep="\n")
        raise
    finally:
        made.compose("down", "--volumes", "--timeout", "2")


def losses(p: Project) -> list[str]:
    """Return the lines of the backend's ledger on a circusd that was lost."""
    command = ("python", "-m", "xboard_circus", "events", "--kind=circusd_lost", "--json")
    return p.backend().exec(*command, check=False).splitlines()


def files_that_can_be_open() -> int:
    """65536, or what the hard limit of this machine leaves where even root cannot raise it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[0], max(65536, limits[1])))
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        return 65536
    return limits[1] - 1
