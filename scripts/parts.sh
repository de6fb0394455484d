# shellcheck shell=sh
# Sourced by test.sh: gives `parts`, which installs the real programs that some tests start, where that is ours to do:
# as root on Debian or Ubuntu. Elsewhere these tests are skipped, each with the name of what it misses.

PARTS='aardvark-dns catatonit chromium-headless-shell dbus debootstrap docker-compose kustomize logrotate lsof net-tools nftables nginx-light podman procps prometheus runc systemd tmux'

parts() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    missing=
    for part in $PARTS; do
        dpkg-query --show --showformat='${db:Status-Status}' "$part" 2>/dev/null | grep -qx installed || missing="$missing $part"
    done
    [ -n "$missing" ] || return 0
    say "Installing for the tests:$missing"
    # No service of theirs may start: a test starts what it needs, on ports of its own.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    apt-get -qq update >/dev/null || :
    # shellcheck disable=SC2086  # one word for each
    if get_parts $missing 2>/dev/null; then return 0; fi
    # One that this release of Debian or Ubuntu does not have must not keep the others away.
    for part in $missing; do
        if [ "$part" = chromium-headless-shell ] && get_parts chromium; then continue; fi
        get_parts "$part" || say "$part could not be installed, see above; the tests that need it will be skipped."
    done
}

get_parts() { apt-get -qq install --no-install-recommends "$@" >/dev/null; }
