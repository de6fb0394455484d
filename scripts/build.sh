#!/bin/sh
# The sdist, and the wheel from it, into dist/.
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
install test
rm -rf build dist # a plugin deleted since would still be in the next wheel
exec .venv/bin/python -m build --no-isolation # setuptools is among what the tests need
