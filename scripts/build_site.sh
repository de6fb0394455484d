#!/bin/sh
# Build the documentation into site/, in both languages; a link that leads nowhere fails. Open site/index.html.
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
# What the tests need holds it too.
is_installed test || install docs
.venv/bin/python scripts/build_site.py
