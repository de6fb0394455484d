# shellcheck shell=sh
# Sourced by test.sh: gives `parts`, which installs the real programs that some tests start, where that is ours to do:
# as root on Debian or Ubuntu. Elsewhere these tests are skipped, each with the name of what it misses.

PARTS='aardvark-dns catatonit chromium dbus debootstrap docker-compose kustomize logrotate nftables nginx-light podman prometheus runc systemd'

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
    if ! { apt-get -qq update && apt-get -qq install --no-install-recommends $missing; } >/dev/null; then
        say "They could not be installed, see above; the tests that need them will be skipped."
    fi
}
