#!/bin/sh
# Write constraints.txt anew: the newest versions that setup.cfg allows, as a fresh venv gets them. CI and the image
# install these; run all tests before you commit it.
set -eu

. "$(dirname "$0")/bootstrap.sh"
refuse_shared
find_python
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -I -m venv "$folder"
"$folder/bin/python" -I -m pip install --quiet --disable-pip-version-check --editable "$checkout[test,fast]"
{
    echo "# Versions that all tests passed with. Written by scripts/renew_constraints.sh; do not edit."
    # Some need 3.11; on 3.10 whatever setup.cfg allows is installed.
    "$folder/bin/python" -I -m pip freeze --all --exclude pip --exclude-editable | sed 's/$/; python_version >= "3.11"/'
} >"$folder/constraints.txt"
cp "$folder/constraints.txt" constraints.txt
