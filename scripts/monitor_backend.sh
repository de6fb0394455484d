#!/bin/sh
# Watches circusd itself, where neither systemd nor Docker does: nohup ./scripts/monitor_backend.sh >/dev/null 2>&1 &
set -eu

. "$(dirname "$0")/bootstrap.sh"
install ""
# Isolated: no module is looked for in this folder, where the user of a service may make files.
exec .venv/bin/python -I -m xboard_circus.monitor "$@"
