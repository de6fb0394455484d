#!/bin/sh
# `xboard-circus service` for this checkout, with its .venv made first: install_service.sh install|upgrade|remove|unit
set -eu

here=$(pwd)
. "$(dirname "$0")/bootstrap.sh"
# Root runs what is here, now and at each upgrade: it is root's, or of who called sudo.
if [ "$(id -u)" = 0 ]; then
    trusted=${SUDO_UID:-0}
    refuse_others . setup.py setup.cfg pyproject.toml scripts scripts/* xboard_circus plugins
    refuse_below setup.py setup.cfg pyproject.toml scripts xboard_circus plugins
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
