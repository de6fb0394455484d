"""The manifests of deploy/kubernetes: put together by Kustomize, and run by podman."""

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from .containers import ROOT, Container, image, podman
from .free_ports import free_port
from .parts import needs

FOLDER = ROOT / "deploy" / "kubernetes"
READER = "r" * 32
Resource = dict[str, Any]


def kustomization(folder: Path) -> Resource:
    found: Resource = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return found


def resources(folder: Path = FOLDER) -> list[Resource]:
    """Return what `kubectl apply -k` of *folder* would send to the cluster."""
    needs("kustomize")
    done = subprocess.run(["kustomize", "build", folder], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def own_folder(folder: Path, *lines: str) -> Path:
    """Copy the manifests into *folder*, with one of a user's own beside them whose kustomization has *lines*, too."""
    shutil.copytree(FOLDER, folder / "kubernetes")
    own = folder / "kubernetes" / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text("\n".join(["resources: [../base]", *lines]))
    return own


def with_page(folder: Path) -> Path:
    """Return a folder of a user's own with the component that turns the page on, and its Secret."""
    own = own_folder(
        folder, "components: [../metrics]", "secretGenerator: [{name: xboard-dashboard, files: [dashboard.token]}]"
    )
    (own / "dashboard.token").write_text(f"admin = {'a' * 32}\nreader = {READER}\n")
    return own


def one(kind: str, among: list[Resource]) -> Resource:
    (found,) = [each for each in among if each["kind"] == kind]
    return found


@contextlib.contextmanager
def pod(
    folder: Path, change: Callable[[Resource], None] = lambda deployment: None, *, of: Path = FOLDER
) -> Iterator[Container]:
    """Run the Deployment that *of* makes, its ConfigMap and claims by podman, under names of the test's own."""
    mark, port = uuid.uuid4().hex[:8], free_port()
    kinds = ("ConfigMap", "PersistentVolumeClaim", "Secret", "Deployment")
    found = [each for each in resources(of) if each["kind"] in kinds]
    # Kustomize has put a sum of what is in it behind it.
    ini = one("ConfigMap", found)["metadata"]["name"].replace("xboard-ini", f"xboard-ini-{mark}")
    deployment = one("Deployment", found)
    change(deployment)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for each in [container, *deployment["spec"]["template"]["spec"].get("initContainers", [])]:
        each["image"] = image()
    text = yaml.safe_dump_all(found)
    for name in ("xboard-ini", "xboard-uploads", "xboard-data", "xboard-dashboard"):
        text = text.replace(name, f"{name}-{mark}")
    text = text.replace("name: xboard-backend", f"name: xboard-backend-{mark}")
    file = folder / "pod.yaml"
    file.write_text(text)
    try:
        podman("kube", "play", f"--publish=127.0.0.1:{port}:8000", file)
        running = Container(f"xboard-backend-{mark}-pod-backend", port, is_restarted=True)
        try:
            yield running
        except BaseException:
            print(running.logs())
            raise
    finally:
        podman("kube", "down", "--force", file, check=False)
        # It makes a volume of a ConfigMap, too, and forgets that one.
        podman("volume", "rm", "--force", ini, check=False)
