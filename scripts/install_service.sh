#!/bin/sh
# `xboard-circus service` for this checkout, with its .venv made first: install_service.sh install|upgrade|remove|unit
set -eu

here=$(pwd)
. "$(dirname "$0")/bootstrap.sh"
# The folder may belong to the service's user, who could put another .venv there for root to run.
if [ "$(id -u)" = 0 ] && [ -e .venv ] && [ -z "$(find .venv -prune -user root)" ]; then
    say "$checkout/.venv does not belong to root, and root would run what is in there. If you trust it: chown -R root $checkout/.venv"
    exit 1
fi
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
