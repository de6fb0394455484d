"""Become the command of the watcher, under the same pid; the next circusd waits here for the end of the last one.

Circus starts it in front of every command of an armed watcher, as ``python -I -S /path/launch.py --wid N ... -- CMD``.
A missing program or an unknown user becomes an exit code and a line on stderr here. In its own fork Circus does not
survive them: it would stop the healthy siblings.

It runs at every restart, so it imports the least that does the work, and nothing of this package, which -I -S would not
even find.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself would import `enum`: 5 of 17 ms
import os
import stat
import sys
import time
import warnings  # noqa: F401  os.execvpe imports it, at a time when we may be a user who can't read Python's library

NOT_RUNNABLE = 120
NO_DIRECTORY = 121
NO_USER = 122
CIRCUSD_GONE = 123
NO_LIMIT = 124
USAGE = 2
OPTIONS = ("turn", "starter", "after", "fresh", "wid", "worker", "chdir", "uid", "gid", "rlimit", "env")

AFTER_POLL = 0.01
TURN_GRACE = 1.0  # for messages that the starter has sent before its end
COERCED_LOCALES = ("C.UTF-8", "C.utf8", "UTF-8")
KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271, "s390x": 280}
JOIN_SESSION_KEYRING = 1
LATER = "XBOARD_LATER_"
"""Prefix of a variable that is the command's and not ours: a LD_PRELOAD would otherwise be loaded here."""


class LaunchError(Exception):
    """Why the command was not started: one line for stderr, and an exit code of the cause for circusd."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def parse(argv: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the values of each option, and the command.

    By hand, because argparse alone would double the time that the launcher takes to start.
    """
    options: dict[str, list[str]] = {f"--{name}": [] for name in OPTIONS}
    arguments = iter(argv)
    for name in arguments:
        if name == "--":
            break
        value = next(arguments, None)
        if value is None:
            raise LaunchError(USAGE, f"{name} needs a value")
        if name not in options:
            raise LaunchError(USAGE, f"unknown option {name}")
        options[name].append(value)
    command = list(arguments)
    if not command:
        raise LaunchError(USAGE, "no command; it comes after --")
    return options, command


def variable(setting: str) -> tuple[str, str]:
    name, equals, content = setting.partition("=")
    if not name or not equals:
        raise LaunchError(USAGE, f"--env must be NAME=VALUE, not {setting!r}")
    return name, content


def is_running(pid: int, started: int) -> bool:
    """Return whether the circusd that spawned us is alive. Without /proc (macOS) that is known only of a parent."""
    if os.getppid() == pid:  # no other process can have its pid while it is our parent
        return True
    fields = stat_of(pid)
    # What looks like a zombie and has other threads left may still hold its sockets.
    return bool(fields) and (fields[0] not in (b"Z", b"X") or int(fields[17]) > 1) and int(fields[19]) == started


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def stat_of(pid: int) -> list[bytes]:
    """Return what the kernel shows of a process, from its state on; empty if it shows nothing."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def circusd_is_alive(circusd: str) -> bool:
    """Parse *circusd*, "pid:started", and return whether it is alive; True without one (started by hand)."""
    if not circusd:
        return True
    pid, _, started = circusd.partition(":")
    try:
        return is_running(int(pid), int(started))
    except ValueError:
        raise LaunchError(USAGE, f"XBOARD_CIRCUSD must be pid:started, not {circusd!r}") from None


def wait_for_turn(turn: str, starter: str, circusd: str) -> None:
    """Wait until the file *turn* is gone, or *circusd* is; raise LaunchError when *starter*, which made it, is gone.

    circusd removes the file in the step in which it leaves for this process. So no kill of the starter leaves the
    workers without a circusd, or a second circusd that waits for the first one's end.
    """
    give_up_at = None
    while os.path.exists(turn) and is_there(circusd):
        if give_up_at is None and not circusd_is_alive(starter):
            give_up_at = time.monotonic() + TURN_GRACE
        if give_up_at is not None and time.monotonic() > give_up_at:
            try:
                os.unlink(turn)
            except FileNotFoundError:
                return
            if os.path.exists(inbox := f"{turn}.sock"):
                os.unlink(inbox)
            raise LaunchError(CIRCUSD_GONE, f"what started it is gone, and circusd ({circusd}) goes on")
        time.sleep(AFTER_POLL)


def wait_for_end(circusd: str) -> None:
    """Wait until *circusd*, "pid:started", has ended, because the next one needs its endpoints."""
    while is_there(circusd):
        time.sleep(AFTER_POLL)


def is_there(circusd: str) -> bool:
    """Return whether *circusd* runs; without /proc (macOS), whether any process has its pid."""
    return circusd_is_alive(circusd) or (not stat_of(os.getpid()) and exists(int(circusd.partition(":")[0])))


def set_rlimit(setting: str) -> None:
    """Set one limit, soft and hard, as Circus does: "nofile=500"; "-1" is unlimited."""
    import resource

    name, _, value = setting.partition("=")
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if number is None:
        raise LaunchError(NO_LIMIT, f"there is no limit {name!r} on this system")
    try:
        limit = resource.RLIM_INFINITY if value == "-1" else int(value)
        if number == resource.RLIMIT_NOFILE and limit == resource.RLIM_INFINITY:
            limit = resource.getrlimit(number)[1]  # the kernel refuses "unlimited" for files; Circus reads it so too
        resource.setrlimit(number, (limit, limit))
    except (ValueError, OverflowError, OSError) as error:
        hard = resource.getrlimit(number)[1]
        raise LaunchError(NO_LIMIT, f"the limit {name}={value} can't be set (hard limit {hard}): {error}") from None


def enter(directory: str, user: str) -> None:
    """Enter *directory* as the *user* that we are by now, because root would follow a link of that user's anywhere."""
    try:
        os.chdir(directory)
    except OSError as error:
        who = f" as user {user}" if user else ""
        raise LaunchError(NO_DIRECTORY, f"no working directory {directory}{who}: {error.strerror}") from None


def find_group(name: str) -> int:
    import grp

    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise LaunchError(NO_USER, f"there is no group {name!r}") from None


def become_group(name: str) -> None:
    gid = find_group(name)
    if gid == os.getgid() == os.getegid():
        return
    try:
        os.setgid(gid)
    except (OSError, OverflowError) as error:
        raise LaunchError(NO_USER, f"no right to become group {name}: {error}") from None


def group_of(uid: int) -> int:
    """Return the group of a user known only by a number: that number, because our own group would be root's.

    A group with a name is another's, such as 42, which is `shadow`.
    """
    import grp

    if os.geteuid() != 0 or uid == 0:
        return os.getgid()
    try:
        named = grp.getgrgid(uid).gr_name
    except (KeyError, OverflowError):
        return uid
    why = f"there is no user {uid}, and group {uid} is {named}; name the group: gid = {uid} if that one is meant"
    raise LaunchError(NO_USER, why)


def leave_session_keyring() -> None:
    """Join a new session keyring, where the kernel has keyrings: users of our processes have all rights on its keys.

    circusd and the command line do it, because ctypes would slow each launcher down by 27 ms.
    """
    number = KEYCTL.get(os.uname().machine)
    if number is None or sys.maxsize < 1 << 32:
        return
    try:
        import ctypes

        ctypes.CDLL(None).syscall(number, JOIN_SESSION_KEYRING, None)  # a container forbids it, and has no such keys
    except (ImportError, OSError, AttributeError):
        pass


def close_files() -> None:
    """Close all files but stdin, stdout and stderr."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            os.closerange(int(name), int(name) + 1)


def become_user(name: str, group: str) -> dict[str, str]:
    """Become the user, with all its groups; return the environment of that user.

    HOME is replaced even if it is set, because it is circusd's own, and a library that writes below ``~`` would fail
    there.
    """
    import pwd

    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        uid, gid, user, home = entry.pw_uid, entry.pw_gid, entry.pw_name, entry.pw_dir
    except KeyError:
        if not name.isdecimal():
            raise LaunchError(NO_USER, f"there is no user {name!r}") from None
        uid, user, home = int(name), "", "/"  # a number alone is common in containers
        gid = -1 if group else group_of(uid)
    if group:
        gid = find_group(group)
    try:
        if os.geteuid() == 0:
            give_pipes(uid)
            os.setgid(gid)
            os.setgroups([gid])
            if user:
                os.initgroups(user, gid)
        elif gid != os.getgid():
            os.setgid(gid)
        os.setuid(uid)
    except (OSError, OverflowError) as error:
        raise LaunchError(NO_USER, f"no right to become user {name}: {error}") from None
    return {"HOME": home, "USER": user or name, "LOGNAME": user or name}


def pipes(descriptors: str) -> dict[str, tuple[int, int]]:
    """Return which of stdout and stderr is a pipe, with its path below the folder *descriptors* of /proc."""
    found = {}
    for path in (f"{descriptors}/1", f"{descriptors}/2"):
        try:
            facts = os.stat(path)
        except OSError:  # no /proc (macOS), closed, or another user's
            continue
        if stat.S_ISFIFO(facts.st_mode):
            found[path] = facts.st_dev, facts.st_ino
    return found


def give_pipes(uid: int) -> None:
    """Give the user the pipes that circusd reads for it: with them a worker outlives circusd."""
    others = pipes(f"/proc/{os.getppid()}/fd").values()
    for path, pipe in pipes("/proc/self/fd").items():
        if pipe not in others:
            os.chown(path, uid, -1)


def own_identity() -> str:
    """Return "pid:started" of this process, by which a worker behind a wrapper sees that circusd killed the wrapper.

    Empty without /proc (macOS), where a worker cannot recognise a process that is not its parent.
    """
    fields = stat_of(os.getpid())
    return f"{os.getpid()}:{int(fields[19])}" if fields else ""


def own_environment() -> dict[str, str]:
    """Return our original environment. Python puts LC_CTYPE into a process that has no locale (PEP 538), -I or not."""
    environment = dict(os.environ)
    if environment.get("LC_CTYPE") in COERCED_LOCALES:
        try:
            with open("/proc/self/environ", "rb") as file:
                given = file.read().split(b"\0")
        except OSError:
            given = [b"LC_CTYPE="]
        if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
            del environment["LC_CTYPE"]
    return {name.removeprefix(LATER): value for name, value in environment.items()}


def be_killed_first() -> None:
    """Have the kernel's OOM killer end this process before any other, until circusd knows that it serves: where memory
    is short for one more worker, those that serve are to stay. What it starts meanwhile inherits that."""
    try:
        with open("/proc/self/oom_score_adj", "wb") as file:
            file.write(b"1000")
    except OSError:  # not Linux
        pass


def run(command: list[str], environment: dict[str, str]) -> None:
    """Become *command*. Returns only by a LaunchError."""
    # Python ignores these two, and the command would inherit that: a shell pipeline would never end.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    program = command[0]
    try:
        os.execvpe(program, command, environment)
    except FileNotFoundError:
        where = "" if os.sep in program else f" in PATH={environment.get('PATH', os.defpath)}"
        raise LaunchError(NOT_RUNNABLE, f"program not found: {program}{where}") from None
    except (OSError, ValueError) as error:
        raise LaunchError(NOT_RUNNABLE, f"program can't be run: {program}: {error}") from None


def launch(options: dict[str, list[str]], command: list[str]) -> None:
    environment = own_environment()
    given = dict(map(variable, options["--env"]))
    for circusd in options["--after"]:
        wait_for_turn("".join(options["--turn"]), "".join(options["--starter"]), circusd)
        wait_for_end(circusd)
    # A launcher that outlived its circusd would become an orphan on the port.
    if not options["--after"] and not circusd_is_alive(environment.get("XBOARD_CIRCUSD", "")):
        raise LaunchError(CIRCUSD_GONE, "circusd is gone")
    if options["--fresh"]:  # the command of a service, typed by root, becomes its user
        close_files()
        leave_session_keyring()
    for setting in options["--rlimit"]:
        set_rlimit(setting)
    for user in options["--uid"]:
        environment.update(become_user(user, "".join(options["--gid"])))
    for group in () if options["--uid"] else options["--gid"]:
        become_group(group)
    for directory in options["--chdir"]:
        enter(directory, environment["USER"] if options["--uid"] else "")
    environment.update(given)
    for wid in options["--wid"]:
        environment["XBOARD_WID"] = wid
    for token in options["--worker"]:
        be_killed_first()
        environment.update(XBOARD_WORKER=token, XBOARD_LAUNCHER=own_identity())
    run(command, environment)


def main() -> int:
    try:
        launch(*parse(sys.argv[1:]))
    except LaunchError as error:
        print(f"xboard-circus launcher: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
