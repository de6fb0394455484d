#!/bin/sh
# Run rounds of random commands and faults on a real circusd: soak.sh --rounds 1000 [--seed N]; --help names all options.
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
install test
exec .venv/bin/python -m tests.real.soak "$@"
