#!/bin/sh
# The wheel as its users meet it: built, installed alone in a new venv outside the checkout, and there, in an empty
# folder, an app of their own kept up by real circusd.
set -eu

scripts=$(dirname -- "$0")
"$scripts/build.sh" >/dev/null
. "$scripts/bootstrap.sh"

folder=$(mktemp -d)
circusd=
leave() {
    if [ -n "$circusd" ]; then xboard-circus stop || kill -KILL "$circusd" || true; fi
    rm -rf "$folder"
}
trap leave EXIT

# What is not run is not compiled, and what is run is compiled once.
unset PYTHONPATH PYTHONDONTWRITEBYTECODE
.venv/bin/python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile dist/*.whl
export XBOARD_RUNTIME_DIR="$folder/run"
PATH="$folder/venv/bin:$PATH"
mkdir "$folder/backend"
cd "$folder/backend"
cat >hello.py <<'APP'
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
@app.get("/health/live")
@app.get("/health/ready")
async def hello() -> str:
    return "hello"
APP

# Ports that nobody has, so that the machine's own 8000, 8080 and 5555 do not matter; nor is one given to a client
# meanwhile, or to a test that runs beside this. circusd takes the one after its own, too.
set -- $("$folder/venv/bin/python" - <<'PORTS'
import random
import socket
from contextlib import suppress
from pathlib import Path

below_the_tests = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) - 12_000
ports = []
for port in random.sample(range(below_the_tests - 1000, below_the_tests, 2), 500):
    with suppress(OSError), socket.create_server(("", port)), socket.create_server(("", port + 1)):
        ports.append(port)
    if len(ports) == 3:
        break
print(*ports)
PORTS
)
xboard-circus init --app hello:app --port "$1" --page-port "$2" --endpoint-port "$3"
xboard-circus check

circusd circus.ini >circusd.log 2>&1 &
circusd=$!
if ! "$folder/venv/bin/python" - "$circusd" "http://127.0.0.1:$1/" "http://127.0.0.1:$2/healthz" <<'ASK'; then
import os
import sys
import time
import urllib.request

circusd, *addresses = sys.argv[1:]
give_up_at = time.monotonic() + 60
for address in addresses:
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                print(f"{address} answers {answer.status}: {answer.read().decode()}")
            break
        except OSError as error:
            os.kill(int(circusd), 0)
            if time.monotonic() > give_up_at:
                sys.exit(f"{address}: {error}")
            time.sleep(0.1)
ASK
    cat circusd.log logs/* >&2
    exit 1
fi
xboard-circus status | tee status
grep -q "at tcp://127.0.0.1:$3," status
xboard-circus stop
wait "$circusd"
circusd=
echo "the wheel works"
