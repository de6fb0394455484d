#!/bin/sh
# All tests, with all that they need: test.sh [any option of pytest]
set -eu

. "$(dirname "$0")/bootstrap.sh"
install test
exec .venv/bin/python -m pytest "$@"
