#!/bin/sh
# The backend as a whole: start_backend.sh start|stop|restart|status|clean
set -eu

case "${1-}" in
start | stop | restart | status | clean) ;;
*)
    echo "usage: $0 start|stop|restart|status|clean" >&2
    exit 2
    ;;
esac
. "$(dirname "$0")/bootstrap.sh"
has_program() { has_venv && [ -x .venv/bin/xboard-circus ]; } # not so while the first installation runs
case "$1" in
start | restart)
    # Without a network, a checkout that was updated starts with the packages that it has.
    if ! (install ""); then
        has_program || exit 1
        say "Going on with what is installed already."
    fi
    # Where one looks for it; deleted with the old logs, it is made again here. -n: not in a folder that a link leads to,
    # which the user of a service has put there since.
    [ -e backend.log ] || [ -h backend.log ] || ln -sn logs/xboard.log backend.log || :
    ;;
*) has_program || {
    say "Nothing is installed in $checkout: .venv is missing, incomplete, or was moved. $0 start installs and starts."
    exit 1
} ;;
esac
exec .venv/bin/xboard-circus "$@"
