"""Check the env files of a watcher: each is readable, well formed, and keeps its secrets from others."""

from collections.abc import Iterator

from xboard_circus import env_files
from xboard_circus.checks.findings import ERROR, WARNING, Finding
from xboard_circus.config import Config, WatcherConfig
from xboard_circus.core.names import some_of
from xboard_circus.env_files import EnvFile, EnvFileError
from xboard_circus.errors import Command
from xboard_circus.masking import secrets_of
from xboard_circus.worker import OF_CIRCUSD

NAMED = 5


def of_watcher(config: Config, watcher: WatcherConfig) -> list[EnvFile]:
    """Return the env files of a watcher in the ini file."""
    places = {"folder": config.folder, "working_dir": watcher.working_dir}
    return env_files.of_watcher(watcher.options, watcher.cmd, watcher.args, **places)


def added_by(config: Config, watcher: WatcherConfig) -> dict[str, str]:
    """Return what the env files add to the environment of a watcher; nothing from an unusable one."""
    try:
        return env_files.values(of_watcher(config, watcher), watcher.env)
    except EnvFileError:
        return {}


def findings(config: Config, watcher: WatcherConfig) -> Iterator[Finding]:
    """Yield what is wrong with each env file of a watcher."""
    files = of_watcher(config, watcher)
    try:
        env_files.refuse_many(files)
    except EnvFileError as error:
        yield Finding(ERROR, error.option, error.what, error.hint)
        return
    for file in files:
        try:
            found = {str(each.key): each.value or "" for each in file.read()}
            env_files.values([file], watcher.env)
        except EnvFileError as error:
            yield Finding(ERROR, error.option, error.what, error.hint)
            continue
        secret = sorted(name for name, value in found.items() if secrets_of({name: value}))
        if secret and file.is_open():
            what = f"every user of this host may read {file.path}, which has {some_of(secret, NAMED)}"
            yield Finding(WARNING, file.option, what, Command("chmod 600 {}", file.path))
        if ours := sorted(found.keys() & OF_CIRCUSD):
            what = f"{some_of(ours, NAMED)} of {file.path} not used: circusd sets it for its workers, from the options"
            yield Finding(WARNING, file.option, what, "take it out of the file")
        if unused := sorted(name for name, value in found.items() if watcher.env.get(name, value) != value):
            what = f"{some_of(unused, NAMED)} of {file.path} not used: the environment has another value, and wins"
            hint = "take it out of one of the two: [env:...], or where circusd starts"
            yield Finding(WARNING, file.option, what, hint)
