#!/bin/sh
# The backend as a service of the host: systemd on Linux, launchd on macOS. See docs/services.md.
set -eu

usage() {
    cat <<EOF
usage: $0 install|upgrade|remove [options]

install   write the service's files, enable it and start it; again: only what has changed
upgrade   install the packages anew, then the same, and restart the service
remove    stop and disable it, and delete the files that install wrote; the folder, its logs and data stay

  --user         a service of yours, not of the system; needs no root
  --name NAME    its name (xboard-backend)
  --dir DIR      the folder that it runs in, with its ini file and, in .venv, its packages (this checkout)
  --ini FILE     the ini file in that folder (circus.ini)
  --run-as USER  whom a system service runs as; made where there is none (xboard)
  --dry-run      print what would be done, and do nothing
EOF
}

fail() {
    say "install_service.sh: $*"
    exit 1
}

# Called with what there is not, before anything else is known.
misused() {
    printf '%s\n' "$*; $0 --help shows what there is" >&2
    exit 2
}

action=${1-}
case "$action" in
install | upgrade | remove) shift ;;
-h | --help) usage && exit ;;
'') usage >&2 && exit 2 ;;
*) misused "$action: neither install, upgrade nor remove" ;;
esac
name=xboard-backend dir='' ini=circus.ini user=xboard scope=system dry=
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) usage && exit ;;
    --user) scope=user ;;
    --dry-run) dry=yes ;;
    --name | --dir | --ini | --run-as)
        [ -n "${2-}" ] || misused "$1: what it is to be has to follow"
        case "$1" in
        --name) name=$2 ;;
        --dir) dir=$(CDPATH='' cd -- "$2" 2>/dev/null && pwd -P) || misused "--dir $2: there is no such folder, or you may not enter it" ;;
        --ini) ini=$2 ;;
        --run-as) user=$2 ;;
        esac
        shift
        ;;
    *) misused "$1: no such option" ;;
    esac
    shift
done

. "$(dirname "$0")/bootstrap.sh"
dir=${dir:-$checkout}
overlay=$dir/service.ini

# Do it, or with --dry-run only say so.
run() {
    say "${dry:+would }run: $*"
    if [ -z "$dry" ]; then "$@"; fi
}

# Write to the file $1, with the mode $2, the text $3, unless it holds that already.
changed=
put() {
    if [ -f "$1" ] && [ "$3" = "$(cat "$1")" ]; then
        say "unchanged: $1"
        return
    fi
    say "${dry:+would }write: $1"
    changed=yes
    if [ -n "$dry" ]; then return; fi
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "$3" >"$1.new"
    chmod "$2" "$1.new"
    mv "$1.new" "$1"
}

delete() {
    for file; do
        [ -e "$file" ] || continue
        say "${dry:+would }delete: $file"
        if [ -z "$dry" ]; then rm -f "$file"; fi
    done
}

# The template $1, filled in.
filled() {
    drop='/\[system\]/,/\[end\]/d'
    if [ "$scope" = system ]; then drop='/\[system\]/d;/\[end\]/d'; fi
    sed -e '/^# Filled in/,/^$/d' -e '/<!-- Filled in/d' -e "$drop" \
        -e "s|@name@|$name|g" -e "s|@label@|$label|g" -e "s|@dir@|$dir|g" -e "s|@python@|$python|g" \
        -e "s|@venv@|$venv|g" -e "s|@ini@|$overlay|g" -e "s|@user@|$user|g" -e "s|@group@|$group|g" \
        -e "s|@runtime@|$runtime|g" -e "s|@stop_seconds@|$stop_seconds|g" -e "s|@watchdog_seconds@|$watchdog_seconds|g" \
        -e "s|@start_seconds@|$start_seconds|g" \
        -e "s|@protect_home@|$protect_home|g" -e "s|@wanted_by@|$wanted_by|g" "$1"
}

# Where everything is on this host: $manager, $unit, $command, $runtime and what else the templates name.
look_around() {
    case "$name" in *[!A-Za-z0-9_-]* | -*) fail "--name $name: write letters, digits, - and _ only" ;; esac
    case "$user" in '' | *[!A-Za-z0-9_.-]* | -*) fail "--run-as $user: write a user's name, letters, digits and ._- only" ;; esac
    case "$ini" in /*) fail "--ini $ini: write its name in the folder that --dir names" ;; esac
    case "$dir$ini" in *[!A-Za-z0-9/._+-]*) fail "$dir/$ini: the service managers do not take such a path; choose one of letters, digits and ._+-" ;; esac
    label=com.xboard.backend
    if [ "$name" != xboard-backend ]; then label=com.xboard.$name; fi
    case "$(uname -s)" in
    Linux) manager=systemd template=systemd/xboard-backend.service ;;
    Darwin) manager=launchd template=launchd/com.xboard.backend.plist ;;
    *) fail "neither systemd nor launchd here: nohup ./scripts/monitor_backend.sh keeps the backend up" ;;
    esac
    if [ "$scope" = user ]; then
        user=$(id -un) wanted_by=default.target command=$HOME/.local/bin/$name
    else
        [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "a service of the system takes root: sudo $0 $action ..., or --user for one of yours"
        [ "$user" != root ] || fail "--run-as root: who reaches circusd's endpoint could then do all that root can; name another user"
        wanted_by=multi-user.target command=/usr/local/bin/$name
    fi
    case "$manager $scope" in
    'systemd user') unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/$name.service runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/$name ;;
    'systemd system') unit=/etc/systemd/system/$name.service runtime=/run/$name ;;
    'launchd user') unit=$HOME/Library/LaunchAgents/$label.plist runtime=$dir/run domain=gui/$(id -u) ;;
    'launchd system') unit=/Library/LaunchDaemons/$label.plist runtime=$dir/run domain=system ;;
    esac
    if [ "$manager $scope$dry" = 'systemd system' ] && [ ! -d /run/systemd/system ]; then
        fail "this host was not started by systemd; nohup ./scripts/monitor_backend.sh keeps the backend up"
    fi
    if [ "$manager $scope$dry" = 'systemd user' ] && ! systemctl --user show-environment >/dev/null 2>&1; then
        fail "no systemd of $user's answers: log in as that user, not by su or sudo, or: loginctl enable-linger $user"
    fi
    # A unix socket's path has 103 letters on macOS, 107 elsewhere; a worker's is the longest in there.
    [ ${#runtime} -le 50 ] || fail "$runtime: too long for the sockets in it; choose a shorter --dir"
}

# Is $1, where there is one, of our making?
is_ours() { [ ! -s "$1" ] || grep -Eq 'circus\.circusd|Written by install_service\.sh' "$1"; }

# The service of that name may be somebody else's, or ours in another folder: that one is what `remove` means.
look_at_installed() {
    for file in "$unit" "$command"; do
        is_ours "$file" || fail "$file is there, and not of this script's making: choose another --name"
    done
    if [ -e "/usr/lib/systemd/$scope/$name.service" ]; then fail "$name is a service of this host's own: choose another --name"; fi
    installed=$(sed -n 's/^exec .* -c \(.*\) "\$@"$/\1/p' "$command" 2>/dev/null) || :
    if [ -z "$installed" ] || [ "$installed" = "$overlay" ]; then return; fi
    [ "$action" = remove ] || fail "$name is the service of ${installed%/*}: say --dir ${installed%/*} for that one, or choose another --name"
    overlay=$installed dir=${installed%/*}
}

# The Python of the service: the folder's own .venv, else the checkout's, which is made where it is missing.
choose_python() {
    venv=$dir/.venv
    if [ "$dir" = "$checkout" ] || [ ! -x "$venv/bin/python" ]; then
        venv=$checkout/.venv
        if [ -z "$dry" ]; then install ""; fi
    fi
    python=$venv/bin/python
    # The folder belongs to the service's user, who could put another .venv there for root to run.
    if [ "$scope" = system ] && [ "$(id -u)" = 0 ] && [ -e "$venv" ] && [ -z "$(find "$venv" -prune -user root)" ]; then
        fail "$venv does not belong to root, and root would run what is in there: chown -R root $venv, if you trust it"
    fi
    if [ "$action" = upgrade ]; then
        # The checkout's own .venv runs what stands in the checkout; any other gets a copy of it.
        editable=
        if [ "$venv" = "$checkout/.venv" ]; then editable=--editable; fi
        run "$python" -m pip install --quiet --disable-pip-version-check --upgrade $editable "$checkout"
    fi
    case "$dir:$(readlink -f "$python" 2>/dev/null || printf %s "$python")" in
    /home/* | /root/* | *:/home/* | *:/root/*) protect_home=read-only ;;
    *) protect_home=yes ;;
    esac
}

# The longest graceful_timeout, and what one worker of each watcher after the other may take to get ready.
times_of_ini() {
    # Isolated: the folder belongs to the service's user, and this may run as root.
    "$python" -I -c '
import math, sys
from xboard_circus import config, errors
try:
    watchers = config.load(sys.argv[1]).watchers
except errors.XboardError as error:
    sys.exit(str(error))
stop = max((each.graceful_timeout for each in watchers), default=30)
print(math.ceil(stop), math.ceil(sum(each.options.health.startup_timeout for each in watchers) or 60))' "$dir/$ini"
}

# Above what the ini file allows, so that circusd and not the service manager ends the workers.
read_ini() {
    [ -f "$dir/$ini" ] || fail "$dir/$ini: no such file; \`xboard-circus init --app module:app $dir\` writes one"
    if [ -x "$python" ]; then times=$(times_of_ini) || exit 1; else times='30 60'; fi
    stop_seconds=$((${times% *} + 15)) watchdog_seconds=$((${times% *} + 30)) start_seconds=$((${times#* } + 30))
}

# circus.ini with other endpoints: what stands first counts in Circus.
overlay_text() {
    cat <<EOF
# Written by scripts/install_service.sh for the service $name, and written anew by it: change $ini instead.
# What stands here goes before what $ini says: whoever reaches circusd's endpoints can run any command, so they are
# sockets in a folder that is closed to all other users.
[circus]
include = $ini
endpoint = ipc://$runtime/circusd.sock
pubsub_endpoint = ipc://$runtime/pubsub.sock
multicast_endpoint =
EOF
    if grep -Eq '^(statsd *= *(1|[Tt]rue|[Yy]es|[Oo]n)|stats_endpoint *=)' "$dir/$ini"; then
        printf '%s\n' "stats_endpoint = ipc://$runtime/stats.sock"
    fi
}

command_text() {
    cat <<EOF
#!/bin/sh
# Written by install_service.sh: xboard-circus for the service $name, such as $name status.
export XBOARD_RUNTIME_DIR=$runtime
EOF
    if [ "$scope" = system ] && [ "$manager" = systemd ]; then
        printf '%s\n' "[ \"\$(id -un)\" = $user ] || exec runuser -u $user -- \"\$0\" \"\$@\""
    elif [ "$scope" = system ]; then
        printf '%s\n' "[ \"\$(id -un)\" = $user ] || exec sudo -u $user \"\$0\" \"\$@\""
    fi
    # Not where the caller stands: Python looks for modules there first.
    printf '%s\n' "cd $dir || exit 1" "exec $python -m xboard_circus -c $overlay \"\$@\""
}

need_user() {
    group=$(id -gn "$user" 2>/dev/null || printf %s "$user")
    if [ "$scope" = user ] || id "$user" >/dev/null 2>&1; then return; fi
    [ "$manager" = systemd ] || fail "there is no user $user: make one, or name one with --run-as"
    run useradd --system --user-group --home-dir "/var/lib/$name" --no-create-home --shell /usr/sbin/nologin "$user"
}

# From the root folder: the one that this was called in may be closed to that user.
as_user() { (cd / && runuser -u "$user" -- "$@"); }

# The folder and logs/ have to be the service's to write in; what else is in there stays whose it is.
give_folder() {
    run mkdir -p "$dir/logs"
    run mkdir -p -m 700 "$runtime"
    if [ "$scope" = user ]; then return; fi
    run chown "$user:$group" "$dir" "$dir/logs" "$runtime"
    if [ -n "$dry" ] || [ "$manager" = launchd ]; then return; fi
    case "$dir" in /tmp/* | /var/tmp/*) say "$dir: the service has a /tmp of its own, and does not find that folder; choose another --dir" ;; esac
    as_user test -x "$dir" || fail "$user cannot enter $dir: put it where that user can, such as /opt/xboard, not below /root"
    as_user "$python" -c 'import xboard_circus' 2>/dev/null ||
        fail "$user cannot run $python: put folder and packages where that user can enter, such as /opt/xboard, not below /root"
}

# With an error in the ini file nothing is started: what runs, runs on.
check_ini() {
    if [ -n "$dry" ]; then return; fi
    found=0
    told=$("$command" check 2>&1) || found=$?
    printf '%s\n' "$told" | grep -v '^ok' >&2 || :
    [ "$found" = 0 ] || fail "$dir/$ini has errors, see above; nothing was started"
}

ctl() { if [ "$scope" = user ]; then run systemctl --user "$@"; else run systemctl "$@"; fi; }

start_systemd() {
    ctl daemon-reload
    ctl enable "$name.service"
    if [ "$action" = upgrade ]; then ctl restart "$name.service"; else ctl start "$name.service"; fi
    if [ -n "$changed" ] && [ "$action" = install ]; then
        say "where it was running already, $0 upgrade ... or systemctl restart makes it take what was written"
    fi
    if [ "$scope" = user ] && command -v loginctl >/dev/null; then
        say "to have it run while you are not logged in: loginctl enable-linger"
    fi
}

# launchctl may come back before the job has ended, as it drains, even with an error of its own for that; and what has
# not ended cannot be loaded anew.
unload() {
    run launchctl bootout "$domain/$label" || :
    if [ -n "$dry" ]; then return; fi
    left=$((${stop_seconds:-120} + 10))
    while launchctl print "$domain/$label" >/dev/null 2>&1; do
        [ "$left" -gt 0 ] || fail "$label does not end; see: launchctl print $domain/$label"
        left=$((left - 1))
        sleep 1
    done
}

start_launchd() {
    if launchctl print "$domain/$label" >/dev/null 2>&1; then
        if [ -z "$changed" ] && [ "$action" = install ]; then
            say "unchanged: $label is loaded"
            return
        fi
        unload
    fi
    run launchctl enable "$domain/$label"
    run launchctl bootstrap "$domain" "$unit"
}

install_service() {
    choose_python
    read_ini
    need_user
    give_folder
    put "$overlay" 644 "$(overlay_text)"
    put "$command" 755 "$(command_text)"
    check_ini
    put "$unit" 644 "$(filled "deploy/$template")"
    "start_$manager"
    say "done; \`$command status\` tells how it is"
}

remove_service() {
    if [ ! -e "$unit" ]; then
        say "not installed: $unit"
    elif [ "$manager" = systemd ]; then
        ctl stop "$name.service"
        ctl disable "$name.service"
    elif launchctl print "$domain/$label" >/dev/null 2>&1; then
        unload
    fi
    delete "$unit" "$command" "$overlay"
    if [ "$manager" = systemd ]; then ctl daemon-reload; fi
    say "$dir, its logs and data, and the user $user are left as they are"
}

look_around
look_at_installed
if [ "$action" = remove ]; then remove_service; else install_service; fi
