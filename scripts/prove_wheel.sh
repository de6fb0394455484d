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
# Ports that nobody has, so that the machine's own 8000 and 5555 do not matter.
"$folder/venv/bin/python" - <<'PORTS'
import re
import socket
from pathlib import Path

sockets = {}
for default in ("8000", "5555", "5556", "5557"):
    sockets[default] = socket.create_server(("127.0.0.1", 0))
ini = Path("circus.ini")
text = re.sub(r"\b(8000|5555|5556|5557)\b", lambda m: str(sockets[m[0]].getsockname()[1]), ini.read_text())
ini.write_text(text)
Path("port").write_text(str(sockets["8000"].getsockname()[1]))
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
