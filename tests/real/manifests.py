"""The manifests of deploy/kubernetes: read, put together as Kustomize does it, and run by podman."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from .containers import ROOT, Container, image, podman
from .ports import free_port

FOLDER = ROOT / "deploy" / "kubernetes"
Resource = dict[str, Any]


def read(path: Path) -> list[Resource]:
    """Return the resources of one file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def kustomization(folder: Path) -> Resource:
    (found,) = read(folder / "kustomization.yaml")
    return found


def resources(folder: Path = FOLDER) -> list[Resource]:
    """Return what `kubectl kustomize` would, of what these files use of it: resources, patches, ConfigMaps."""
    wanted, found = kustomization(folder), []
    for name in wanted["resources"]:
        found += resources(folder / name) if (folder / name).is_dir() else read(folder / name)
    for generated in wanted.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in generated["files"]}
        head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generated["name"]}}
        found.append({**head, "data": data})
    for patch in wanted.get("patches", []):
        (change,) = read(folder / patch["path"])
        (target,) = [each for each in found if key(each) == key(change)]
        found.remove(target)
        if change.get("$patch") != "delete":
            found.append(merged(target, change))
    return found


def key(resource: Resource) -> tuple[str, str, str]:
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def merged(base: Any, change: Any) -> Any:
    """Return *base* with a strategic merge patch: lists of things with a name by that name, null takes away."""
    if isinstance(base, dict) and isinstance(change, dict):
        both = {name: merged(base.get(name), value) for name, value in change.items() if value is not None}
        return {name: value for name, value in (base | both).items() if change.get(name, 0) is not None}
    if isinstance(base, list) and isinstance(change, list) and all(isinstance(each, dict) for each in base):
        by_name = {each["name"]: each for each in base}
        for each in change:
            by_name[each["name"]] = merged(by_name.get(each["name"]), each)
        return list(by_name.values())
    return change


def one(kind: str, among: list[Resource]) -> Resource:
    (found,) = [each for each in among if each["kind"] == kind]
    return found


@contextlib.contextmanager
def pod(folder: Path, change: Callable[[Resource], None] = lambda deployment: None) -> Iterator[Container]:
    """Run the Deployment, its ConfigMap and its claim by podman, under names of the test's own."""
    mark, port = uuid.uuid4().hex[:8], free_port()
    found = [each for each in resources() if each["kind"] in ("ConfigMap", "PersistentVolumeClaim", "Deployment")]
    deployment = one("Deployment", found)
    change(deployment)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = image()
    text = yaml.safe_dump_all(found)
    for name in ("xboard-ini", "xboard-uploads"):
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
        podman("kube", "down", "--force", file, check=False, timeout=120)
        # It makes a volume of a ConfigMap, too, and forgets that one.
        podman("volume", "rm", "--force", f"xboard-ini-{mark}", check=False)
