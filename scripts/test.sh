#!/bin/sh
# All tests, with all that they need: test.sh [any option of pytest]
set -eu

. "$(dirname "$0")/bootstrap.sh"
. scripts/parts.sh
install test
parts
# The tests start thousands of processes: without compiled files each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE
# Most of the time of most tests is waiting for real processes: five at a time keep two cores busy. Seven were a minute
# quicker, but on a host that is slow itself nobody got a turn in time.
# In the order of the files: xdist would put those with few tests, and the longest, at the end, where nothing runs beside.
exec .venv/bin/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder "$@"
