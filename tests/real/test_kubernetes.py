"""The manifests: right by the schemas of three versions of Kubernetes, and run, with their probes, by podman."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from xboard_circus import __version__
from xboard_circus.checks.file_rules import findings as findings_in_file
from xboard_circus.config import load

from .containers import ROOT, answers, need_containers, podman
from .harness import eventually
from .manifests import FOLDER, READER, Resource, kustomization, one, own_folder, pod, resources, with_page
from .parts import needs

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

VERSIONS = ("1.35", "1.36", "1.37")
BASE, SQLITE, METRICS = FOLDER / "base", FOLDER / "sqlite", FOLDER / "metrics"
PAGE = ROOT / "docs" / "kubernetes.md"

# From where the page listens, as Prometheus would.
SCRAPE = """
import os, sys, urllib.request
page = f"http://{os.environ['XBOARD_DASHBOARD_HOST']}:8080/metrics"
request = urllib.request.Request(page, headers={"Authorization": f"Bearer {sys.argv[1]}"})
print(urllib.request.urlopen(request, timeout=20).read().decode())
"""


def spec_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = one("Deployment", resources(folder))["spec"]["template"]["spec"]
    return found


# -- what the files say --


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", [FOLDER, SQLITE], ids=["many pods", "sqlite"])
def test_every_manifest_fits_the_schema(folder: Path, version: str) -> None:
    found = resources(folder)

    assert len(found) >= 6
    for resource in found:
        kubernetes_validate.validate(resource, version, strict=True)


def test_every_file_is_part_of_it() -> None:
    for folder in (FOLDER, BASE, SQLITE, METRICS):
        wanted = kustomization(folder)
        patches = [patch["path"] for patch in wanted.get("patches", [])]
        named = {name for name in [*wanted.get("resources", []), *patches] if name.endswith(".yaml")}
        assert {path.name for path in folder.glob("*.yaml")} == {*named, "kustomization.yaml"}


def test_the_kinds_are_all_there() -> None:
    kinds = {"Deployment", "Service", "PersistentVolumeClaim", "PodDisruptionBudget", "HorizontalPodAutoscaler"}

    assert {each["kind"] for each in resources()} == {*kinds, "NetworkPolicy", "ConfigMap"}


def test_a_change_of_the_ini_rolls_the_pods(tmp_path: Path) -> None:
    """Given another ini, then the ConfigMap that the pods mount has another name."""
    changed = tmp_path / "base"
    shutil.copytree(BASE, changed)
    with (changed / "circus.ini").open("a") as ini:
        ini.write("# another one\n")

    names = [
        [each["configMap"]["name"] for each in spec_of(folder)["volumes"] if each["name"] == "ini"]
        for folder in (BASE, changed)
    ]

    assert names[0] != names[1]
    assert names[1] == [one("ConfigMap", resources(changed))["metadata"]["name"]]


@pytest.mark.parametrize("folder", ["deploy/kubernetes", "deploy/kubernetes/sqlite"])
def test_the_commands_of_the_page_name_an_image_and_apply_what_holds_it(tmp_path: Path, folder: str) -> None:
    """Given the page's commands, with `docker` and `kubectl` left out, then what is applied is built of that image."""
    needs("kustomize")
    shutil.copytree(FOLDER, tmp_path / "deploy" / "kubernetes")
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert f"kubectl apply -k {folder}`" in PAGE.read_text() or f"kubectl apply -k {folder}\n" in block
    commands = block.replace("deploy/kubernetes", folder)
    stand_ins = 'docker() { :; }\nkubectl() { [ "$1 $2" = "apply -k" ] && kustomize build "$3"; }\n'
    done = subprocess.run(
        ["bash", "-euc", stand_ins + commands], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )

    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout.removeprefix(f"{tmp_path}\n")))
    (container,) = one("Deployment", built)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.org/xboard-backend:1"


def test_a_folder_of_ones_own_opens_the_way_for_alerts(tmp_path: Path) -> None:
    """Given the page's patch in a folder beside base/, then port 443 may be reached, and names as before."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)

    egress = one("NetworkPolicy", resources(own_folder(tmp_path, block)))["spec"]["egress"]

    assert [port["port"] for rule in egress for port in rule["ports"]] == [53, 53, 443]
    assert "to" not in egress[0], "where the cluster's DNS answers differs from one to the next"


def test_the_component_opens_the_page_to_prometheus_alone(tmp_path: Path) -> None:
    """Given a folder of one's own with the component, then it fits the schema and the restricted profile, and the page
    can be reached from the namespace of Prometheus, the backend from everywhere."""
    found = resources(with_page(tmp_path))
    spec = one("Deployment", found)["spec"]["template"]["spec"]
    backend, page = one("NetworkPolicy", found)["spec"]["ingress"]

    for resource in found:
        kubernetes_validate.validate(resource, VERSIONS[-1], strict=True)
    assert [each["securityContext"] for each in spec["initContainers"]] == [spec["containers"][0]["securityContext"]]
    assert ("from" in backend, backend["ports"][0]["port"]) == (False, "http")
    assert page == {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "ports": [{"protocol": "TCP", "port": "page"}],
    }


@pytest.mark.parametrize("folder", [FOLDER, SQLITE], ids=["many pods", "sqlite"])
def test_the_image_has_a_tag_that_stays(folder: Path) -> None:
    assert [image["newTag"] for image in kustomization(folder)["images"]] == [__version__]


def test_the_ini_is_the_images_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the image's variables, then its ini has no fault, and the ConfigMap holds the same."""
    file = ROOT / "deploy" / "container" / "circus.ini"
    image = {
        "APP": "xboard_circus.app:app",
        "LIVE_PATH": "/health/live",
        "READY_PATH": "/health/ready",
        "LEDGER": "/tmp/ledger.db",
        "DASHBOARD": "False",
        "DASHBOARD_HOST": "127.0.0.1",
        "DASHBOARD_FOLDER": "/tmp",
    }
    for name, value in image.items():
        monkeypatch.setenv(f"XBOARD_{name}", value)
    for name, number in (("WORKERS", 2), ("DRAIN", 6), ("GRACEFUL_TIMEOUT", 8), ("GIVE_UP_AFTER", 120)):
        monkeypatch.setenv(f"XBOARD_{name}", str(number))
    config = load(file)

    assert one("ConfigMap", resources())["data"]["circus.ini"] == file.read_text()
    assert list(findings_in_file(config)) == []
    page, xboard = sorted(config.watchers, key=lambda watcher: watcher.name)
    assert (xboard.name, xboard.numprocesses, xboard.graceful_timeout) == ("xboard", 2, 8.0)
    assert (page.name, page.given["autostart"]) == ("dashboard", "False")
    assert config.plugins[0].options.container.give_up_after == 120


@pytest.mark.parametrize("folder", [FOLDER, SQLITE], ids=["many pods", "sqlite"])
def test_the_pod_is_of_the_restricted_profile(folder: Path) -> None:
    spec = spec_of(folder)
    (container,) = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 1000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "name"}
    assert {name for volume in spec["volumes"] for name in volume} <= allowed


def test_the_times_follow_each_other() -> None:
    spec = spec_of(FOLDER)
    (container,) = spec["containers"]
    env = {each["name"]: each.get("value", "") for each in container["env"]}
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain, graceful = float(env["XBOARD_DRAIN"]), float(env["XBOARD_GRACEFUL_TIMEOUT"])

    assert drain < graceful < spec["terminationGracePeriodSeconds"] - pause
    for name in ("livenessProbe", "startupProbe"):
        probe = container[name]
        assert probe["periodSeconds"] * probe["failureThreshold"] > float(env["XBOARD_GIVE_UP_AFTER"])
    assert one("Deployment", resources())["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_with_sqlite_there_is_one_pod_and_never_two() -> None:
    found = resources(SQLITE)
    spec = one("Deployment", found)["spec"]
    volumes = {each["name"]: each for each in spec["template"]["spec"]["volumes"]}

    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert volumes["data"] == {"name": "data", "persistentVolumeClaim": {"claimName": "xboard-data"}}
    assert "HorizontalPodAutoscaler" not in {each["kind"] for each in found}


# -- what they do --


def test_the_deployment_runs_and_its_probes_pass(tmp_path: Path) -> None:
    """Given the manifests with the component of the page, when podman plays them, then the backend answers, its probes
    pass, and Prometheus gets the figures with the Secret's token.

    When a worker hangs, then it is replaced inside the pod, and the container is the same.
    """
    need_containers("catatonit")

    def name_the_address(deployment: Resource) -> None:
        # podman does not know the address of a pod before it runs.
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        (host,) = [each for each in container["env"] if each["name"] == "XBOARD_DASHBOARD_HOST"]
        assert host.pop("valueFrom") == {"fieldRef": {"fieldPath": "status.podIP"}}
        host["value"] = "127.0.0.1"

    with pod(tmp_path, name_the_address, of=with_page(tmp_path)) as running:
        answers(f"{running.url}/health/ready", within=180)
        running.wait_ready()
        eventually(lambda: running.health() == "healthy", timeout=120, every=0.5)
        found = running.inspect()
        assert (found["HostConfig"]["ReadonlyRootfs"], found["Config"]["User"]) == (True, "1000:1000")
        assert running.spools(90_000_000)
        eventually(lambda: "xboard_watcher_active" in running.exec("python", "-c", SCRAPE, READER))
        began, old = found["State"]["StartedAt"], running.workers()

        running.kill(old[0], "STOP")

        eventually(lambda: len(set(running.workers()) - {old[0]}) == 2, timeout=120, every=0.5, what="two serve")
        eventually(lambda: running.health() == "healthy", timeout=120, every=0.5)
        assert running.inspect()["State"]["StartedAt"] == began


def test_a_pod_that_hangs_as_a_whole_is_started_again_with_its_database(tmp_path: Path) -> None:
    """Given a frozen circusd, when the liveness probe has failed often enough, then the container is started again.

    The database of the pod for SQLite is on its claim.
    """
    need_containers("catatonit")

    def be_quick(deployment: Resource) -> None:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        container["livenessProbe"]["failureThreshold"] = 2
        # Both are on the way down: a frozen circusd takes no signal.
        deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 2

    with pod(tmp_path, be_quick, of=SQLITE) as running:
        running.wait_ready()
        mounts = {each["Destination"]: each["Name"] for each in running.inspect()["Mounts"] if each["Type"] == "volume"}
        assert mounts["/app/data"].startswith("xboard-data-")
        running.post("/boards", {"name": "kept"})
        eventually(lambda: running.health() == "healthy", timeout=120, every=0.5)
        began = running.inspect()["State"]["StartedAt"]

        running.kill(running.state()["circusd"]["pid"], "STOP")
        for _ in range(2):
            podman("healthcheck", "run", running.id, check=False)

        eventually(lambda: running.inspect()["State"]["StartedAt"] != began, timeout=120, every=0.5, what="a new start")
        running.wait_ready()
        assert '"kept"' in answers(f"{running.url}/boards")
