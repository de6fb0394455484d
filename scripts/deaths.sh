#!/bin/sh
# Measure how memory grows over 5,000 deaths of workers in one life of circusd; deaths.sh --help names all options.
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
install test
exec .venv/bin/python -m tests.real.deaths "$@"
