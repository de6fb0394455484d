#!/bin/sh
# `xboard-circus service` for this checkout, with its .venv made first: install_service.sh install|upgrade|remove|unit
set -eu

here=$(pwd)
. "$(dirname "$0")/bootstrap.sh"
install ""
cd "$here"
# Isolated: no module is looked for in the folder that the caller stands in.
case "${1-}" in
install | upgrade | remove | unit)
    action=$1
    shift
    exec "$checkout/.venv/bin/python" -I -m xboard_circus service "$action" --dir "$checkout" "$@"
    ;;
*) exec "$checkout/.venv/bin/python" -I -m xboard_circus service "$@" ;;
esac
