#!/bin/sh
# Watches circusd itself, where neither systemd nor Docker does: nohup ./scripts/monitor_backend.sh >/dev/null 2>&1 &
set -eu

. "$(dirname "$0")/bootstrap.sh"
install ""
exec .venv/bin/python -m xboard_circus.monitor "$@"
