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

.venv/bin/python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check dist/*.whl
unset PYTHONPATH
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

xboard-circus init --app hello:app
# Ports that nobody has, so that the machine's own 8000 and 5555 do not matter; nor is one given to a client meanwhile.
"$folder/venv/bin/python" - <<'PORTS'
import random
import re
from pathlib import Path

low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
defaults = ("8000", "5555", "5556", "5557")
ports = dict(zip(defaults, map(str, random.sample(range(low - 12_000, low), len(defaults)))))
ini = Path("circus.ini")
ini.write_text(re.sub(r"\b(8000|5555|5556|5557)\b", lambda m: ports[m[0]], ini.read_text()))
Path("port").write_text(ports["8000"])
PORTS
xboard-circus check

circusd circus.ini >circusd.log 2>&1 &
circusd=$!
if ! "$folder/venv/bin/python" - "$circusd" <<'ASK'; then
import os
import sys
import time
import urllib.request
from pathlib import Path

address = f"http://127.0.0.1:{Path('port').read_text()}/"
give_up_at = time.monotonic() + 60
while True:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            print(f"{address} answers {answer.status}: {answer.read().decode()}")
        break
    except OSError as error:
        os.kill(int(sys.argv[1]), 0)
        if time.monotonic() > give_up_at:
            sys.exit(f"{address}: {error}")
        time.sleep(0.1)
ASK
    cat circusd.log logs/* >&2
    exit 1
fi
xboard-circus status
xboard-circus stop
wait "$circusd"
circusd=
echo "the wheel works"
