#!/bin/sh
# systemd: a socket unit holds the port, a service for each worker serves it. As a `systemd --user` of its own in
# namespaces of its own, so that it meets nothing of the host's; `sweep` removes its control group.
set -eu
group=/sys/fs/cgroup/bench-@port
if [ "${1-}" = sweep ]; then
    exec unshare --mount sh -euc 'mount -t cgroup2 none /sys/fs/cgroup; find "$1" -depth -type d -exec rmdir {} +' sh "$group"
fi
export HOME=@folder XDG_CONFIG_HOME=@folder/config XDG_RUNTIME_DIR=@folder/xdg
units=$XDG_CONFIG_HOME/systemd/user
mkdir -p "$units" "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
cat >"$units/web.socket" <<END
[Socket]
ListenStream=127.0.0.1:@port
Service=web@1.service
END
cat >"$units/web@.service" <<END
[Service]
Sockets=web.socket
ExecStart=@python -m uvicorn bench.plain_app:app --fd 3 --no-access-log
WorkingDirectory=@folder
Restart=always
TimeoutStopSec=30
END
{
    echo "[Unit]"
    for number in $(seq @workers); do echo "Wants=web@$number.service"; done
} >"$units/default.target"
exec unshare --mount sh -euc '
    umount -l /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 none /sys/fs/cgroup
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system "$1"
    echo $$ >"$1/cgroup.procs"
    exec /usr/lib/systemd/systemd --user --log-target=console' sh "$group"
