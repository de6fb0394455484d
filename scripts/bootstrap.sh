# shellcheck shell=sh
# Sourced by the scripts beside it: goes to the checkout, and gives `install EXTRA` ("" or "test"), which makes .venv
# there and installs the checkout into it, once, and again when setup.cfg or pyproject.toml has changed; for the tests in
# the versions of constraints.txt.

CDPATH='' cd -- "$(dirname -- "$0")/.." || exit 1
checkout=$(pwd -P)

say() { printf '%s\n' "$*" | tr '\000-\011\013-\037\177' '[?*]' >&2; } # a name of a file may command the terminal

# Is $1 a Python that will do? A shim of pyenv for a version that is not there is found, but does not run.
is_python() {
    "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

# Set $python to the first Python, 3.10 or later, that can make a venv; PYTHON=... names one to try first.
find_python() {
    without_venv=
    for python in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3; do
        is_python "$python" || continue
        if "$python" -I -c 'import ensurepip, venv' >/dev/null 2>&1; then return; fi
        without_venv=${without_venv:-$python}
    done
    if [ -n "$without_venv" ]; then
        say "$without_venv cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv"
    else
        say "No Python of version 3.10 or later found. Install one, or name it: PYTHON=/path/to/python3 $0"
    fi
    exit 1
}

# Refuse to go on where one of the names is missing, or belongs neither to root, nor to who runs this, nor to $trusted, by
# default the owner of setup.cfg. The user of a service may make files in this folder, and replaces none that is there:
# what passes stays.
trusted=
refuse_others() {
    ours=" 0 $(id -u) ${trusted:-$(owner_of setup.cfg)} "
    for name in "$@"; do
        owner=$(owner_of "$name")
        case $ours in
        *" $owner "*) ;;
        *)
            whose="another user's, of uid $owner" # apart: `bash SCRIPT` reads no apostrophe in ${owner:+...}
            [ -n "$owner" ] || whose=missing
            say "$checkout/$name is $whose, and would be run as $(id -un)." \
                "Put that of this project in its place, or chown it if you trust it; then run $0 again."
            exit 1
            ;;
        esac
    done
}
# Refuse to go on where anything at or below the names, or where a link there leads, is another user's, or open to all or
# to a group of others, or where another user may turn what a link leads by: root would run it, and a chown of the
# folder alone leaves what is in it.
refuse_below() {
    [ "$(id -u)" = 0 ] || return 0
    owner=${trusted:-$(owner_of setup.cfg)}
    # Of tens of thousands of files mostly none is another's or open to a group: one look shows that, in place of two.
    found=$(find -L "$@" ! -user 0 ! -user "${owner:-0}" -o ! -type l \( -perm -0002 -o -perm -0020 \) 2>/dev/null |
        head -n 1)
    if [ -n "$found" ]; then
        found=$(find -L "$@" ! -user 0 ! -user "${owner:-0}" -o ! -type l \
            \( -perm -0002 -o -perm -0020 ! -group 0 ! -group "$(own_group "${owner:-0}")" \) 2>/dev/null | head -n 1)
        # With an access list, whose mask is in the place of the group's rights: `ls` shows a + behind them.
        [ -n "$found" ] || found=$(find -L "$@" ! -type l -perm -0020 -exec ls -ldL {} + 2>/dev/null |
            sed -n 's/^[^ ]*+ \( *[^ ]*\)\{7\} //p' | head -n 1)
    fi
    if [ -n "$found" ]; then
        say "xboard-circus: $(who_may_write "$found") may write $checkout/$found, and root would run what is there:" \
            "end their processes, look at it, \`chown -R root $checkout\`, \`chmod -R go-w\` and, where it has access" \
            "lists, \`setfacl -R -b\` it; then run $0 again."
        exit 1
    fi
    find_python
    refuse_inherited "$@"
    found=$(find "$@" \( -type l -o -path .venv/bin/python \) -print0 2>/dev/null |
        xargs -0 "$python" -I scripts/links.py "${owner:-0}" "$(own_group "${owner:-0}")") || exit 1
    if [ -n "$found" ]; then
        say "Another user may write $(printf '%s' "$found" | head -n 1), and root would run what is there, by a link in" \
            "$checkout, or as the library of its .venv: delete that link or .venv, or give root what it leads by; then" \
            "run $0 again."
        exit 1
    fi
}
# Refuse to go on where what root makes in a folder that `find` has by these words gets an access list by which others may
# write, whatever the umask: such as the __pycache__ of its next start.
refuse_inherited() {
    [ "$(id -u)" = 0 ] || return 0
    found=$(find -L "$@" -type d -print0 2>/dev/null | xargs -0 "$python" -I -c 'import os, struct, sys
for place in sys.argv[1:] if hasattr(os, "getxattr") else ():
    try:
        entries = os.getxattr(place, "system.posix_acl_default")[4:]
    except OSError:
        continue  # it has none, or is gone
    rights = {tag: right for tag, right, _ in struct.iter_unpack("<HHI", entries)}
    if (rights.get(16, rights[4]) | rights[32]) & 2:  # the mask, or without one the group, and all others
        print(place)') || exit 1
    if [ -n "$found" ]; then
        say "$checkout/$(printf '%s' "$found" | head -n 1) has a default access list, by which others may write what" \
            "root makes there, and root would run it: \`setfacl -R -b $checkout\` removes it; then run $0 again."
        exit 1
    fi
}
# Refuse to go on where another user may make files in the checkout, such as that of a service: pytest, mypy and the like
# look there for modules and settings, and would be run. A team shares a folder with a group that its members are in; that
# of a service has the sticky bit, so that the service's user replaces nothing.
refuse_shared() {
    # shellcheck disable=SC2012  # stat is not the same everywhere
    ls -ldn . | {
        read -r mode _ _ group _
        case $mode in
        ????????w* | ?????w????+) ;; # for all, or by an access list
        ?????w*)
            for own in 0 "$(own_group "$(owner_of setup.cfg)")" "$(own_group "$(id -u)")"; do
                [ "$group" != "$own" ] || exit 0
            done
            case "$(id -u) $mode $(id -G) " in
            "0 "* | *" "?????????[tT]*) ;;
            *" $group "*) exit 0 ;;
            esac
            ;;
        *) exit 0 ;;
        esac
        exit 1
    } || {
        say "Other users may make files in $checkout, such as the user of a service, and you would run them." \
            "Do this in a clone of your own."
        exit 1
    }
}
who_may_write() {
    if [ -n "$(find -L "$1" -prune ! -type l -perm -0002)" ]; then echo "every user of this host"; else
        ls -ldL "$1" | {
            read -r mode _ owner group _
            case $mode in ?????w*) [ "$owner" != root ] || owner=$group ;; esac
            case $mode in *+) owner="who is in its access list" ;; esac
            echo "$owner"
        }
    fi
}
# The group of a user, if it has that user's name, and no other in it as far as the host lists them; else root's.
own_group() {
    name=$(id -un "$1" 2>/dev/null)
    if gid=$(id -g "$1" 2>/dev/null) && [ "$(id -gn "$1")" = "$name" ] && [ -z "$({
        entries passwd | awk -F: -v gid="$gid" '$4 == gid {print $1}'
        entries group | awk -F: -v gid="$gid" '$3 == gid {gsub(",", "\n", $4); print $4}'
    } | grep -vxF -e "$name" -e '')" ]; then echo "$gid"; else echo 0; fi
}
entries() { getent "$1" 2>/dev/null || cat "/etc/$1"; }
owner_of() { ls -dn "$1" 2>/dev/null | { read -r _ _ owner _ && echo "$owner"; }; }

# A venv holds its own path in its scripts: one that was moved with its checkout is of no use.
is_moved() { [ -f .venv/.place ] && [ "$(cat .venv/.place)" != "$checkout" ]; }
has_venv() {
    [ -d .venv ] || return 1
    refuse_others .venv
    refuse_below .venv xboard_circus plugins
    ! is_moved && is_python .venv/bin/python
}
is_installed() { has_venv && [ "$(cksum setup.cfg pyproject.toml)" = "$(cat ".venv/.installed-$1" 2>/dev/null)" ]; }

install() {
    if is_installed "$1"; then return; fi
    python=.venv/bin/python
    has_venv || find_python
    # The lock is the open descriptor's, so it stays ours when that python has ended: who starts second waits. It is on
    # the folder itself, since a file in it could be another user's link.
    exec 9<.
    if ! lock_folder 0.1; then
        say "$checkout is locked$(holder), as by another installation. Waiting $lock_within s for it at most"
        if ! lock_folder "$lock_within"; then
            say "$checkout is still locked$(holder). End that process, then run $0 again."
            exit 1
        fi
    fi
    is_installed "$1" || install_now "$1"
    exec 9>&-
}

# Lock the folder that is open as 9, within $1 seconds.
lock_folder() {
    "$python" -I -c 'import fcntl, signal, sys
signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
fcntl.flock(9, fcntl.LOCK_EX)
signal.setitimer(signal.ITIMER_REAL, 0)' "$1"  # on a slow host it would come while Python ends
}
# Any user who may read the folder can lock it.
lock_within=600
holder() {
    pid=$(awk -v inode="$(ls -di . | awk '{print $1}')" '$2 == "FLOCK" && $6 ~ ":" inode "$" {print $5; exit}' \
        /proc/locks 2>/dev/null) || return 0
    # That of an installation has ended, while the script holds the lock on.
    if [ -n "$pid" ] && user=$(ps -o user= -p "$pid"); then echo " by pid $pid, user $user"; fi
}

install_now() {
    # Nobody else may write what is made here, whatever the shell says; what is started later has its own.
    mask=$(umask)
    umask go-w
    # Who makes them first owns them.
    for name in .venv xboard_circus.egg-info; do mkdir "$name" 2>/dev/null || :; done
    refuse_others setup.py pyproject.toml .venv xboard_circus.egg-info
    refuse_inherited . -prune
    refuse_below setup.py setup.cfg pyproject.toml xboard_circus.egg-info
    if ! has_venv; then
        say "Making .venv with $python"
        "$python" -I -m venv --clear .venv || exit 1
        printf '%s\n' "$checkout" >.venv/.place
    fi
    say "Installing into .venv: once, about a minute"
    # Isolated, and from the root folder: no module of that name in the checkout is run.
    if ! (cd / && "$checkout/.venv/bin/python" -I -m pip install --quiet --disable-pip-version-check \
        ${1:+--constraint "$checkout/constraints.txt"} --editable "$checkout${1:+[$1]}"); then
        say "The installation failed, see above. Is the package index reachable? Then run $0 again."
        exit 1
    fi
    # What the tests need holds all that a start needs.
    cksum setup.cfg pyproject.toml | tee ".venv/.installed-$1" >.venv/.installed-
    umask "$mask"
}
