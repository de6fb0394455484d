#!/bin/sh
# What can be said of the code without running it.
set -eu

. "$(dirname "$0")/bootstrap.sh"
install test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
