#!/bin/sh
# All tests, with all that they need: test.sh [any option of pytest]
set -eu

. "$(dirname "$0")/bootstrap.sh"
. scripts/parts.sh
install test
parts
# Most of the time of most tests is waiting for real processes: three at a time keep two cores busy, not overloaded.
exec .venv/bin/python -m pytest -n 3 --dist loadfile "$@"
