#!/bin/sh
# What can be said of the code and the documentation without running them.
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
install test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
scripts/build_site.sh
