#!/bin/sh
# All tests, with all that they need: test.sh [any option of pytest]
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
. scripts/parts.sh
install test
# The tests start thousands of processes: without compiled files each would compile all that it imports.
unset PYTHONDONTWRITEBYTECODE
# Five processes that collect all tests at once would each compile them.
if [ $# = 0 ]; then .venv/bin/python -m pytest --collect-only -q >/dev/null 2>&1 & fi
parts
wait
# Most of the time of most tests is waiting for real processes: six at a time keep two cores busy. With seven, on a host
# that is slow itself, nobody got a turn in time.
# In the order of tests/conftest.py: xdist would put those with few tests, and the longest, at the end.
exec .venv/bin/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder "$@"
