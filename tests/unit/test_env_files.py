"""Env files: what they add, what is refused of them with file and line, and that no value is ever shown."""

import json
import os
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from xboard_circus.checks.findings import Finding, Level
from xboard_circus.checks.judgement import judge
from xboard_circus.config import ARM
from xboard_circus.env_files import OPTION, EnvFile, EnvFileError, of_watcher, values
from xboard_circus.launch import LATER
from xboard_circus.masking import secrets_of, without
from xboard_circus.options.reading import parse_watcher
from xboard_circus.supervisor.life.command_line import of_launcher

WORKER = "python -m xboard_circus.worker app:app"


def written(folder: Path, text: str | bytes, name: str = ".env", mode: int = 0o600) -> EnvFile:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return EnvFile(OPTION, path)


@pytest.mark.parametrize(
    ("text", "environ", "added"),
    [
        pytest.param("A=1\nexport B='two words'\n# no\n\nC=\"x\\ny\"", {}, {"A": "1", "B": "two words", "C": "x\ny"}),
        pytest.param("A=1\nA=2", {}, {"A": "2"}, id="the last one of a name counts"),
        pytest.param("A=1\nB=2", {"A": "0"}, {"B": "2"}, id="the environment wins"),
        pytest.param("A=${HOST}:${B:-80}", {"HOST": "db"}, {"A": "db:80"}, id="variables of the environment"),
        pytest.param("B=1\nA=${B}2", {"B": "0"}, {"A": "02"}, id="the environment wins within a value too"),
        pytest.param("A=$x # c\nB='#'", {}, {"A": "$x", "B": "#"}, id="comments and signs"),
        pytest.param("\ufeffA=1\r\nB=2\r\n", {}, {"A": "1", "B": "2"}, id="written on Windows"),
        pytest.param("A\nB=", {}, {"B": ""}, id="a bare name says nothing"),
        pytest.param("XBOARD_WORKER=1\nXBOARD_DB=x", {}, {"XBOARD_DB": "x"}, id="never what circusd tells a worker"),
        pytest.param("", {}, {}, id="empty"),
    ],
)
def test_what_a_file_adds_to_the_environment(
    tmp_path: Path, text: str, environ: Mapping[str, str], added: Mapping[str, str]
) -> None:
    assert values([written(tmp_path, text)], environ) == added


def test_the_later_of_two_files_wins(tmp_path: Path) -> None:
    files = [written(tmp_path, "A=1\nB=1", "one"), written(tmp_path, "B=2\nC=${A}${B}", "two")]

    assert values(files, {}) == {"A": "1", "B": "2", "C": "12"}


@pytest.mark.timeout(20)
def test_thousands_of_variables_are_read_in_linear_time(tmp_path: Path) -> None:
    """Given as many as a file of 64 KiB has: each was added to a copy of all before it, for 9 s."""
    file = written(tmp_path, "".join(f"{n:x}=\n" for n in range(11_000)))
    copies: list[int] = []

    class Environ(UserDict[str, str]):
        def __iter__(self) -> Iterator[str]:  # as it is copied
            copies.append(1)
            return super().__iter__()

    assert len(values([file], Environ())) == 11_000
    assert len(copies) < 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("A=1\nB hunter2\nC=3\n", "line 2: neither NAME=value nor a comment", id="no sign"),
        pytest.param("\n\nhunter2 x\n\nA='hunter2\n", "lines 3, 5: neither", id="an open quote, after blank lines"),
        pytest.param("A=hunter2\0", "line 1: neither", id="a NUL"),
        pytest.param("'A=B'=hunter2", "line 1: neither", id="a name with a sign"),
        pytest.param(b"A=\xff\xfe", "is not UTF-8 text", id="another encoding"),
        pytest.param("A=" + "x" * 70_000, "is larger than 64 KiB", id="a large file"),
        pytest.param(
            "A=0123456789\n" + "".join(f"A{n}=${{A{n - 1 or ''}}}${{A{n - 1 or ''}}}\n" for n in range(1, 40)),
            "exceed 64 KiB",
            id="values that double",
        ),
        pytest.param("A=" + "${" * 30_000, "A has too many ${", id="a value that takes minutes to look through"),
    ],
)
def test_what_cannot_be_used_is_named_without_its_content(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = written(tmp_path, text)

    with pytest.raises(EnvFileError) as error:
        values([file], {})

    assert said in error.value.what
    assert str(file.path) in error.value.what
    assert "hunter2" not in str(error.value)


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()

    told = []
    for name in ("pipe", ".", "missing", "loop", "file/x"):
        with pytest.raises(EnvFileError) as error:
            EnvFile(OPTION, tmp_path / name).read()
        told.append((error.value.what, error.value.hint))

    a_file = "name a file of NAME=value lines"
    assert told == [
        (f"{tmp_path}/pipe cannot be read: it is no plain file", a_file),
        (f"{tmp_path} cannot be read: Is a directory", a_file),
        (f"there is no file {tmp_path}/missing", "write it, or correct its name"),
        (f"{tmp_path}/loop cannot be read: it is a link that leads back to itself", "put a file in its place"),
        (f"{tmp_path}/file/x cannot be read: Not a directory", a_file),
    ]


@pytest.mark.parametrize(
    ("option", "cmd", "names"),
    [
        pytest.param(None, WORKER, [], id="none"),
        pytest.param(".env, prod.env", WORKER, ["/ini/.env", "/ini/prod.env"], id="by commas"),
        pytest.param(".env\nprod.env", WORKER, ["/ini/.env", "/ini/prod.env"], id="by lines"),
        pytest.param("/etc/x y.env", f"{WORKER} --env-file .env", ["/work/.env", "/etc/x y.env"], id="uvicorn's too"),
        pytest.param(None, f"{WORKER} --env-file=a --env-file b", ["/work/b"], id="uvicorn takes the last"),
        pytest.param(None, "uvicorn app:app --env-file .env", [], id="not of another command"),
    ],
)
def test_the_files_of_a_watcher(option: str | None, cmd: str, names: list[str]) -> None:
    options, problems = parse_watcher({} if option is None else {OPTION: option})

    found = of_watcher(options, cmd, "", folder=Path("/ini"), working_dir=Path("/work"))

    assert problems == []
    assert [str(file.path) for file in found] == names


@pytest.mark.parametrize("spelled", [repr, json.dumps, quote, quote_plus, lambda value: value.splitlines()[1]])
def test_a_secret_is_masked_in_each_spelling(spelled: Callable[[str], str]) -> None:
    key = '-----BEGIN KEY-----\nMIIEvQ/geheim+"=\n-----END KEY-----'

    shown = without(f"it is {spelled(key)}", secrets_of({"PRIVATE_KEY": key}))

    assert "geheim" not in shown


def test_secrets_are_masked_and_other_values_are_not() -> None:
    found = {"DB_PASSWORD": "hunter2", "URL": "postgres://app:s3cret@db/x", "LOG_LEVEL": "info", "API_KEY": "true"}
    found["PWD"] = "/srv/app"

    assert secrets_of(found) == {"hunter2", "s3cret"}
    assert without("info: hunter2 at postgres://app:s3cret@db/x, true", secrets_of(found)) == (
        "info: *** at postgres://app:***@db/x, true"
    )


def test_the_launcher_has_what_circusd_has_and_the_rest_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANG", "C.UTF-8")
    env = {"LANG": "C.UTF-8", "LD_PRELOAD": "x.so", "XBOARD_CIRCUSD": "1:2", f"{LATER}XBOARD_WORKER": "1", "Port": "80"}

    found = of_launcher(env, "serve --port $(circus.env.PORT)", None)

    assert found == {
        "LANG": "C.UTF-8",
        f"{LATER}LD_PRELOAD": "x.so",
        "XBOARD_CIRCUSD": "1:2",
        f"{LATER}{LATER}XBOARD_WORKER": "1",
        "Port": "80",
    }


def judged(folder: Path, *lines: str, cmd: str = WORKER) -> list[Finding]:
    ini = folder / "circus.ini"
    given = "\n".join(lines)
    ini.write_text(f"[watcher:web]\ncmd = {cmd}\nhooks.before_start = {ARM}\ncopy_env = True\n{given}\n")
    return [each for each in judge(ini) if each.option in (OPTION, "cmd") and "env" in each.what]


def test_check_names_a_missing_file(tmp_path: Path) -> None:
    for found in (judged(tmp_path, f"{OPTION} = .env"), judged(tmp_path, cmd=f"{WORKER} --env-file .env")):
        assert [(each.level, each.what) for each in found] == [(Level.ERROR, f"there is no file {tmp_path}/.env")]


def test_more_files_than_fifty_are_refused_by_their_number(tmp_path: Path) -> None:
    """Given 50 env files, and one more in the command, then the 50 are read, and the 51 are neither read nor used."""
    for number in range(50):
        (tmp_path / f"{number}.env").write_text(f"V{number}=1")
    fifty = f"{OPTION} = {', '.join(f'{number}.env' for number in range(50))}"

    assert judged(tmp_path, fifty) == []
    (found,) = judged(tmp_path, fifty, cmd=f"{WORKER} --env-file 0.env")
    assert found.level is Level.ERROR
    assert f"{found.what}; {found.hint}" == "51 env files are too many; name 50 at most"


def test_check_warns_of_a_secret_that_everybody_may_read_and_shows_no_value(tmp_path: Path) -> None:
    written(tmp_path, "LEVEL=info\nDB_PASSWORD=hunter2", mode=0o644)

    (found,) = judged(tmp_path, f"{OPTION} = .env")

    path = tmp_path / ".env"
    assert found.level is Level.WARNING
    assert f"{found.what}; {found.hint}" == (
        f"every user of this host may read {path}, which has DB_PASSWORD; chmod 600 {path}"
    )
    path.chmod(0o640)
    assert judged(tmp_path, f"{OPTION} = .env") == []


def test_check_warns_of_a_value_that_is_not_used(tmp_path: Path) -> None:
    written(tmp_path, "MODE=prod\nOTHER=1\nSAME=same")

    (found,) = judged(tmp_path, f"{OPTION} = .env", "[env:web]", "MODE = test", "SAME = same")

    assert (found.level, found.what.partition(" of ")[0]) == (Level.WARNING, "MODE")
