"""What is shipped: the sdist, the wheel that is built from it, and the checkout's own layout."""

from __future__ import annotations

import configparser
import fcntl
import grp
import importlib
import importlib.metadata
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import xboard_circus

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "xboard_circus"
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "build", "dist"
)


def left_out(folder: str, names: list[str]) -> set[str]:
    """What a copy of the checkout does not need; xboard_circus/logs is no folder of logs."""
    return LEFT_OUT(folder, names) | ({"logs"} & set(names) if Path(folder) == ROOT else set())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[frozenset[str], frozenset[str]]:
    """The names in the sdist and in the wheel, as `scripts/build.sh` makes them, from a copy of the checkout."""
    copy = tmp_path_factory.mktemp("built") / "checkout"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    theirs = ("xboard.db", "uploads/private.txt", "plugins/notes.txt", "xboard_circus/secret.txt")
    for name in (*theirs, "deploy/prometheus/xboard.token"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    (sdist,), (wheel,) = (copy / "dist").glob("*.tar.gz"), (copy / "dist").glob("*.whl")
    with tarfile.open(sdist) as archive, zipfile.ZipFile(wheel) as installed:
        shipped = frozenset(name.partition("/")[2] for name in archive.getnames())
        return shipped, frozenset(installed.namelist())


def names_of(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in folder.rglob(pattern) if "__pycache__" not in path.parts}


def as_installed(name: str) -> str:
    """Return the place in the wheel of a file of the checkout; one package goes to where Circus looks for it."""
    return re.sub(r"^xboard_circus/dashboard/circusweb/", "circusweb/", name)


def packages_of_setup() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return set(setup["options"]["packages"].split())


@pytest.mark.real
def test_the_wheel_holds_exactly_our_modules(built: tuple[frozenset[str], frozenset[str]]) -> None:
    wheel = {name for name in built[1] if not name.partition("/")[0].endswith(".dist-info")}
    own = {name for name in names_of(PACKAGE, "*.py") if not name.startswith("xboard_circus/plugins/")}
    plugins = {f"xboard_circus/{name}" for name in names_of(ROOT / "plugins", "*.py")}
    data = {"xboard_circus/py.typed"} | names_of(PACKAGE, "*.ini")
    page = PACKAGE / "dashboard"
    data |= names_of(page / "templates", "*.html") | names_of(page / "static", "*.*")
    data |= names_of(page / "translations", "*.json") | names_of(PACKAGE / "translations", "*.json")
    data |= names_of(PACKAGE / "service", "*.j2") | names_of(PACKAGE, "init_template.*")

    assert wheel == {as_installed(name) for name in own} | plugins | data


def test_the_constraints_pin_every_dependency_at_its_floor_or_above() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    texts = [setup["options"]["install_requires"], *(extras[name] for name in ("fast", "test", "docs"))]
    wanted = "\n".join(texts).split("\n")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {pin.name.lower().replace("_", "-"): pin for pin in map(Requirement, lines[1:])}

    for needed in map(Requirement, filter(None, wanted)):
        if needed.name == "xboard-circus":  # an extra that holds another
            continue
        (pinned,) = pins[needed.name.lower()].specifier
        assert pinned.operator == "=="
        assert needed.specifier.contains(pinned.version), needed


def test_the_floors_that_the_design_names_are_those_of_the_setup() -> None:
    """Given a floor for which docs/design.md has a reason, such as a published fault, then it is that of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    needed = [Requirement(line) for text in texts for line in text.splitlines() if line]
    told = (
        (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("\n## Versions\n")[2].partition("\n## ")[0]
    )
    named = set()
    for each in needed:
        floor = [part.version for part in each.specifier if part.operator == ">="]
        for version in re.findall(rf"(?<![\w-]){each.name} (\d+(?:\.\d+)+)", told):
            named.add(each.name)
            assert floor == [version], each
    table = dict(re.findall(r"^\| ([\w-]+) \d[^|]*\| (.*) \|$", told, flags=re.MULTILINE))

    with_advisory = {name for name, reason in table.items() if re.match(r"(CVE-\d{4}-\d{4,}(, )?)+: ", reason)}
    assert with_advisory == {"starlette", "jinja2", "requests", "h11", "tornado", "urllib3"}
    assert {*table, "uvicorn", "anyio", "click", "pydantic", "mypy"} <= named


@pytest.mark.real
def test_the_sdist_holds_what_a_newcomer_needs(built: tuple[frozenset[str], frozenset[str]]) -> None:
    wanted = {"CHANGELOG.md", "LICENSE", "README.md", "circus.ini", "pyproject.toml", "setup.cfg"}
    wanted |= {"constraints.txt", "Dockerfile", ".dockerignore", "docker-compose.yml", ".env.example"}
    wanted |= names_of(ROOT / "scripts", "*.sh") | names_of(ROOT / "tests", "*.py") | names_of(ROOT / "plugins", "*.py")

    assert wanted - built[0] == set()


@pytest.mark.real
def test_nothing_of_the_users_is_shipped(built: tuple[frozenset[str], frozenset[str]]) -> None:
    theirs = re.compile(r"\.db|uploads/|notes\.txt|secret\.txt|\.token|__pycache__")

    assert not [name for name in built[0] | built[1] if theirs.search(name)]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist has no link")
def test_the_link_leads_to_the_plugins() -> None:
    assert os.readlink(PACKAGE / "plugins") == "../plugins"


def test_every_package_is_listed() -> None:
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")} | {PACKAGE / "plugins"}

    assert packages_of_setup() == {
        as_installed(f"{folder.relative_to(ROOT)}/").rstrip("/").replace("/", ".") for folder in folders
    }


def test_the_plugins_have_one_name() -> None:
    plugins = importlib.import_module("xboard_circus.plugins")

    assert "plugins" not in sys.modules
    assert plugins.__name__ == "xboard_circus.plugins"


def test_the_version_of_the_setup_is_that_of_the_package() -> None:
    """Given setup.cfg, then its version is a literal: setuptools would run who knows what to find the package's."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    assert setup["metadata"]["version"] == xboard_circus.__version__


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## [{xboard_circus.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_what_circus_ini_names_can_be_imported() -> None:
    ini = configparser.RawConfigParser()
    ini.read(ROOT / "circus.ini")
    named = {
        value.partition(",")[0].strip()
        for section in ini.sections()
        for option, value in ini.items(section)
        if option == "use" or option.startswith("hooks.")
    }

    assert "xboard_circus.plugins.guard.arm" in named
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_one_that_sh_can_read(script: Path) -> None:
    for shell in filter(shutil.which, ("sh", "bash")):
        subprocess.run([shell, "-n", script], check=True)

    sourced = "# Sourced by " in script.read_text()
    assert os.access(script, os.X_OK) == (not sourced)


@pytest.mark.parametrize("arguments", [[], ["sart"]])
def test_start_backend_without_a_verb_tells_its_usage(arguments: list[str]) -> None:
    script = ROOT / "scripts" / "start_backend.sh"
    told = subprocess.run([script, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)

    assert (told.returncode, told.stderr) == (2, f"usage: {script} start|stop|restart|status|clean\n")


@pytest.mark.parametrize("verb", ["stop", "status", "clean"])
def test_start_backend_installs_nothing_to_stop_or_to_look(tmp_path: Path, verb: str) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    script = tmp_path / "scripts" / "start_backend.sh"

    told = subprocess.run([script, verb], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)

    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"Nothing is installed in {tmp_path}: .venv is missing")
    assert not (tmp_path / ".venv").exists()


def installed_once(folder: Path) -> dict[str, str]:
    """Make *folder* look like a checkout with a .venv; return an environment in which pip can install nothing."""
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs.parent / ".place").write_text(f"{folder}\n")
    (programs / "python").symlink_to(sys.executable)
    (programs / "xboard-circus").write_text('#!/bin/sh\necho "$@"\n')
    (programs / "xboard-circus").chmod(0o755)
    # No index; nor may pip take the python behind the link for the one to install into.
    return {**os.environ, "PIP_NO_INDEX": "1", "PIP_REQUIRE_VIRTUALENV": "1"}


def start_backend(folder: Path, verb: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "scripts" / "start_backend.sh"), verb]
    return subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("verb", ["stop", "status", "clean"])
def test_start_backend_does_not_install_again_to_stop_or_to_look(tmp_path: Path, verb: str) -> None:
    """Given a setup.cfg newer than .venv and no package index, the backend that runs can be stopped and looked at."""
    told = start_backend(tmp_path, verb, installed_once(tmp_path))

    assert (told.returncode, told.stdout, told.stderr) == (0, f"{verb}\n", "")


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_start_backend_starts_with_what_is_installed_where_no_index_answers(tmp_path: Path, verb: str) -> None:
    """Given a setup.cfg newer than .venv and no package index, then the failure is reported, and the backend starts."""
    environ = installed_once(tmp_path)
    for name in ("setup.cfg", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)

    told = start_backend(tmp_path, verb, environ)

    assert (told.returncode, told.stdout) == (0, f"{verb}\n")
    assert "The installation failed, see above." in told.stderr
    assert told.stderr.endswith("Going on with what is installed already.\n")


def test_start_backend_makes_its_link_in_no_folder_that_another_users_link_leads_to(tmp_path: Path) -> None:
    """Given a user who puts a link to a folder in the place of backend.log at the last moment, then nothing is made in
    that folder, and the backend starts."""
    environ, fakes, theirs = installed_once(tmp_path), tmp_path / "fakes", tmp_path / "theirs"
    for folder in (fakes, theirs):
        folder.mkdir()
    (fakes / "ln").write_text(
        f'#!/bin/sh\n{shutil.which("ln")} -s {theirs} backend.log\nexec {shutil.which("ln")} "$@"\n'
    )
    (fakes / "ln").chmod(0o755)

    told = start_backend(tmp_path, "start", {**environ, "PATH": f"{fakes}:{os.environ['PATH']}"})

    assert (told.returncode, told.stdout, [*theirs.iterdir()]) == (0, "start\n", [])


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an unpacked sdist is no checkout of git")
def test_no_attributes_of_git_that_somebody_makes_steer_what_is_checked_out() -> None:
    """Given the checkout, then it has a .gitattributes, so that no other user can make one, and converts nothing."""
    lines = (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if not line.startswith("#")] == ["* -text -ident -filter -working-tree-encoding"]


@pytest.mark.parametrize("verb", ["start", "restart", "stop", "status", "clean"])
def test_start_backend_says_what_to_do_where_an_installation_has_not_ended(tmp_path: Path, verb: str) -> None:
    """Given a .venv without the program, as while the first installation runs, or after Ctrl-C in it."""
    environ = installed_once(tmp_path)
    (tmp_path / ".venv" / "bin" / "xboard-circus").unlink()
    for name in ("setup.cfg", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, tmp_path)

    told = start_backend(tmp_path, verb, environ)

    cure = f"Then run {tmp_path}/scripts/start_backend.sh again" if "start" in verb else "start installs and starts"
    assert told.returncode == 1
    assert told.stderr.rstrip(".\n").endswith(cure)


NOBODY = 65534
SCRIPTS_OF_ROOT = ("start_backend.sh start", "install_service.sh install")


@pytest.fixture
def shared_checkout() -> Iterator[Path]:
    """A new checkout of root's in which nobody, such as a service's user, may make files."""
    if os.geteuid() != 0:
        pytest.skip("only root shares a folder with the user of a service")
    above = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folder is closed to others
    above.chmod(0o755)
    folder = above / "checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for name in ("setup.cfg", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("xboard_circus", "plugins"):
        (folder / name).mkdir()
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(above)


def let_nobody_write(path: Path, kind: str = "access", mask: int = 7) -> None:
    """Give it an access list of mode 0775, or less by a *mask*, with a user of its own."""
    entries = [(1, 7, 2**32 - 1), (2, 7, NOBODY), (4, 5, 2**32 - 1), (16, mask, 2**32 - 1), (32, 5, 2**32 - 1)]
    access_list = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    os.setxattr(path, f"system.posix_acl_{kind}", access_list)


@pytest.mark.parametrize("script", SCRIPTS_OF_ROOT)
@pytest.mark.parametrize("place", [".", ".venv", "xboard_circus", "plugins/below"])
def test_root_makes_no_venv_where_what_is_made_is_open_to_others(
    shared_checkout: Path, script: str, place: str
) -> None:
    """Given a default access list with another user, whose own rights are taken away: Linux gives it to what is made
    there, whatever the umask, and that user could put a sitecustomize.py into the new .venv."""
    shared_checkout.chmod(0o755)
    for name in (".venv", "plugins/below"):
        (shared_checkout / name).mkdir(0o755)
    let_nobody_write(shared_checkout / place, "default")
    environ = {**os.environ, "PIP_NO_INDEX": "1"}

    told = subprocess.run(
        f"{shared_checkout}/scripts/{script}", shell=True, env=environ, capture_output=True, text=True, check=False
    )

    assert (told.returncode, [*(shared_checkout / ".venv").iterdir()]) == (1, []), told.stderr
    assert f"`setfacl -R -b {shared_checkout}` removes it" in told.stderr


@pytest.mark.parametrize("place", [".venv/bin", "xboard_circus", "plugins"])
def test_root_starts_nothing_where_what_python_makes_is_open_to_others(shared_checkout: Path, place: str) -> None:
    """Given such a list in the folders of what is installed already: Python makes __pycache__ there, and runs what is
    in it. One by which others may read alone is as usual."""
    shared_checkout.chmod(0o755)
    shutil.rmtree(shared_checkout / "scripts")
    environ = installed_once(shared_checkout)
    let_nobody_write(shared_checkout / place, "default", 5)
    assert start_backend(shared_checkout, "status", environ).stdout == "status\n"

    let_nobody_write(shared_checkout / place, "default")

    for verb in ("start", "status"):
        told = start_backend(shared_checkout, verb, environ)
        assert (told.returncode, told.stdout) == (1, "")
        assert f"{shared_checkout}/{place} has a default access list" in told.stderr


@pytest.mark.parametrize("script", SCRIPTS_OF_ROOT)
def test_a_setup_py_that_somebody_planted_is_not_run(shared_checkout: Path, script: str) -> None:
    ran = shared_checkout / "ran"
    for module in ("setup", "pip", "fcntl", "venv", "ensurepip"):
        (shared_checkout / f"{module}.py").write_text(f"open({str(ran)!r}, 'w').close()")
        os.chown(shared_checkout / f"{module}.py", NOBODY, NOBODY)

    told = subprocess.run(
        f"{shared_checkout}/scripts/{script}", shell=True, capture_output=True, text=True, check=False
    )

    assert told.returncode == 1
    assert f"{shared_checkout}/setup.py is another user's, of uid {NOBODY}" in told.stderr
    assert not ran.exists()


# What Python, pip, setuptools or this project look up by name, or could; each leaves its name where it is run.
PLANTED = (
    *("xboard_circus", "plugins", "circusweb", "setuptools", "pkg_resources", "distutils", "pip", "wheel", "build"),
    *("sitecustomize", "usercustomize", "configparser", "tomllib", "_in_process", "conftest", "__init__", "planted"),
)
ENTRIES = (
    *("distutils.commands", "distutils.setup_keywords", "egg_info.writers", "setuptools.file_finders"),
    "setuptools.finalize_distribution_options",
)
SETTINGS = {
    "planted.pth": "import planted\n",
    "pydistutils.cfg": "[global]\ncommand_packages = planted\n",
    ".pydistutils.cfg": "[global]\ncommand_packages = planted\n",
    "NOTICE": "planted\n",
    "README.rst": "planted\n",
}


def plant(checkout: Path, ran: Path) -> None:
    """Have nobody make at the top of *checkout* what pip could run, or put where root's Python runs it."""
    text = f"open({str(ran)!r}, 'a').write(__name__ + chr(10)); __version__ = str(1)\n"
    files = dict.fromkeys((f"{name}.py" for name in PLANTED), text) | SETTINGS
    for kind, about in (("egg-info", "PKG-INFO"), ("dist-info", "METADATA")):
        (checkout / f"planted-1.0.{kind}").mkdir()
        files[f"planted-1.0.{kind}/{about}"] = "Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n"
        files[f"planted-1.0.{kind}/entry_points.txt"] = "".join(f"[{name}]\nbuild = planted:a\n" for name in ENTRIES)
    for name, text in files.items():
        (checkout / name).write_text(text)
        os.chown(checkout / name, NOBODY, NOBODY)


@pytest.fixture
def venv_of_root(shared_checkout: Path) -> Path:
    """The .venv of a checkout with all of its sources and the setuptools of these tests, as no index answers there."""
    for name in ("xboard_circus", "plugins"):
        (shared_checkout / name).rmdir()
        shutil.copytree(ROOT / name, shared_checkout / name, symlinks=True, ignore=left_out)
    for name in ("README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, shared_checkout)
    venv, theirs = shared_checkout / ".venv", Path(str(importlib.metadata.distribution("setuptools").locate_file("")))
    subprocess.run([sys.executable, "-I", "-m", "venv", str(venv)], check=True)
    (venv / ".place").write_text(f"{shared_checkout}\n")
    (site,) = venv.glob("lib/python*/site-packages")
    for pattern in ("setuptools*", "pkg_resources", "_distutils_hack"):  # older ones, as Python 3.11 brings them
        for old in site.glob(pattern):
            shutil.rmtree(old)
    for path in (*theirs.glob("setuptools-*.dist-info"), theirs / "setuptools", theirs / "_distutils_hack"):
        shutil.copytree(path, site / path.name)
    shutil.copy(theirs / "distutils-precedence.pth", site)
    return venv


@pytest.mark.real
@pytest.mark.parametrize("how", ["start_backend.sh", "service upgrade"])
def test_roots_pip_runs_nothing_that_another_user_put_beside_the_sources(
    shared_checkout: Path, venv_of_root: Path, how: str
) -> None:
    """Given files of all sorts that a service's user has made at the top of the checkout, when root's pip installs it
    by the script, or by an upgrade for a .venv elsewhere, then none of them is run, or copied."""
    (site,) = venv_of_root.glob("lib/python*/site-packages")
    ours = re.compile(r"xboard_circus(-.*)?|circusweb|__editable__.*|__pycache__")
    had, ran = {*site.iterdir()}, shared_checkout.with_name("ran")
    for name in ("build", "xboard_circus.egg-info"):  # root makes them first
        (shared_checkout / name).mkdir()
    plant(shared_checkout, ran)
    command = [str(venv_of_root / "bin" / "python"), "-I", "-m", "pip", "install", "--upgrade", str(shared_checkout)]
    if how == "start_backend.sh":
        command = [str(shared_checkout / "scripts" / how), "start"]
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # which means: do not isolate

    told = subprocess.run(
        command, cwd=shared_checkout, env={**os.environ, **offline}, capture_output=True, text=True, check=False
    )

    made = {path.name for path in {*site.iterdir()} - had}
    assert (ran.read_text().split() if ran.exists() else []) == []
    assert f"xboard_circus-{xboard_circus.__version__}.dist-info" in made, told
    assert [name for name in made if not ours.fullmatch(name)] == []
    assert [path for path in site.glob("xboard_circus*/**/*") if path.name in SETTINGS] == []


def test_who_keeps_the_checkout_locked_is_named_and_waited_for_no_longer_than_a_limit(shared_checkout: Path) -> None:
    bootstrap = shared_checkout / "scripts" / "bootstrap.sh"
    bootstrap.write_text(bootstrap.read_text().replace("lock_within=600", "lock_within=1"))
    folder = os.open(shared_checkout, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        script = str(shared_checkout / "scripts" / "start_backend.sh")
        told = subprocess.run([script, "start"], capture_output=True, text=True, check=False, timeout=20)
    finally:
        os.close(folder)

    assert told.returncode == 1
    assert f"{shared_checkout} is still locked by pid {os.getpid()}, user root. End that process" in told.stderr


@pytest.mark.parametrize("name", [".", "scripts", "scripts/bootstrap.sh", "setup.cfg", "xboard_circus", "plugins"])
def test_root_installs_no_service_from_what_is_another_users(shared_checkout: Path, name: str) -> None:
    """Given a part of the checkout that is neither root's nor of who called sudo, then it is refused in one line."""
    os.chown(shared_checkout / name, NOBODY, NOBODY)
    before = sorted(shared_checkout.iterdir())

    refused = subprocess.run(
        [f"{shared_checkout}/scripts/install_service.sh", "install"], capture_output=True, text=True, check=False
    )

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"{shared_checkout}/{name} is another user's, of uid {NOBODY}")
    assert refused.stderr.count("\n") == 1
    assert sorted(shared_checkout.iterdir()) == before


@pytest.mark.parametrize("script", ["test.sh", "check.sh", "build.sh", "build_site.sh", "soak.sh", "deaths.sh"])
@pytest.mark.parametrize("mode", [0o1775, 0o1757, None])
def test_root_runs_no_tools_where_another_user_may_make_their_settings(
    shared_checkout: Path, script: str, mode: int | None
) -> None:
    """Given a checkout with a service, whose user may make a conftest.py, when root tests or builds there, then nothing
    is run; in one of root's and its group alone it is."""
    binaries, ran = shared_checkout / ".venv" / "bin", shared_checkout / "ran"
    binaries.mkdir(parents=True)
    for name in ("python", "ruff", "mypy"):
        (binaries / name).write_text(f'#!/bin/sh\ncase "$*" in *version_info*) ;; *) touch {ran} ;; esac\n')
        (binaries / name).chmod(0o755)
    (binaries.parent / ".place").write_text(f"{shared_checkout}\n")
    sums = subprocess.check_output(["cksum", "setup.cfg", "pyproject.toml"], cwd=shared_checkout)
    (binaries.parent / ".installed-test").write_bytes(sums)
    command = [f"{shared_checkout}/scripts/{script}"]
    shared_checkout.chmod(0o775)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert ran.exists()
    ran.unlink()
    if mode is None:
        let_nobody_write(shared_checkout)
    else:
        os.chown(shared_checkout, 0, NOBODY)
        shared_checkout.chmod(mode)

    told = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (told.returncode, told.stdout, ran.exists()) == (1, "", False)
    assert told.stderr.startswith(f"Other users may make files in {shared_checkout}")


@pytest.mark.parametrize(
    "script",
    ["bench.py --help", "build_docs.py --check", "build_site.py", "draw_terminal.py", "renew_constraints.sh"],
)
def test_root_measures_and_writes_nothing_where_another_user_may_make_modules(
    shared_checkout: Path, script: str
) -> None:
    """Given a checkout with a service, whose user has made modules of Python's own names there, when root runs a script
    that imports from the checkout, or has pip build it, then it ends before any of them is run."""
    ran = shared_checkout.with_name("ran")
    plant(shared_checkout, ran)
    name, *arguments = script.split()
    shell = [] if name.endswith(".sh") else [sys.executable]

    told = subprocess.run(
        [*shell, str(shared_checkout / "scripts" / name), *arguments],
        cwd="/",
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (told.returncode, told.stdout, ran.exists()) == (1, "", False)
    assert told.stderr.startswith(f"Other users may make files in {shared_checkout}")


@pytest.mark.parametrize(
    ("mode", "groups", "runs"),
    [(0o1775, [], False), (0o1775, [NOBODY], False), (0o775, [], False), (0o775, [NOBODY], True), (0o757, [], False)],
)
def test_an_operator_runs_no_tools_where_the_services_user_may_make_their_settings(
    shared_checkout: Path, mode: int, groups: list[int], runs: bool
) -> None:
    """Given a checkout of an operator who is not root, which a service shares, or all, or a group that he is not in,
    then nothing is run; in one that he shares with his team it is."""
    operator, binaries, ran = 61_003, shared_checkout / ".venv" / "bin", shared_checkout / "ran"
    binaries.mkdir(parents=True)
    (binaries / "python").write_text(f'#!/bin/sh\ncase "$*" in *version_info*) ;; *) touch {ran} ;; esac\n')
    (binaries / "python").chmod(0o755)
    (binaries.parent / ".place").write_text(f"{shared_checkout}\n")
    sums = subprocess.check_output(["cksum", "setup.cfg", "pyproject.toml"], cwd=shared_checkout)
    (binaries.parent / ".installed-test").write_bytes(sums)
    for path in (shared_checkout, *shared_checkout.rglob("*")):
        os.chown(path, operator, operator, follow_symlinks=False)
    os.chown(shared_checkout, operator, NOBODY)
    shared_checkout.chmod(mode)

    told = subprocess.run(
        [str(shared_checkout / "scripts" / "test.sh")],
        user=operator,
        group=operator,
        extra_groups=groups,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (told.returncode, ran.exists()) == ((0, True) if runs else (1, False)), told
    assert runs or told.stderr.startswith(f"Other users may make files in {shared_checkout}")


BOB = 61_001
FAKE_ID = """#!/bin/sh
case "$*" in
"-un 61001" | "-gn 61001") echo bob ;;
"-g 61001") echo 61001 ;;
*) exec {id} "$@" ;;
esac
"""


@pytest.mark.parametrize("script", ["test.sh", "start_backend.sh status"])
@pytest.mark.parametrize(("others", "listed"), [("", ""), ("", "bob"), ("", "carol"), ("carol:x:61002:61001:::", "")])
def test_a_group_of_a_users_name_with_others_in_it_is_one_of_others(
    shared_checkout: Path, script: str, others: str, listed: str
) -> None:
    """Given a checkout of bob's, which his group may write, then root runs what is there if bob alone is in that group,
    and nothing if that group lists carol too, or is hers."""
    fakes, programs = shared_checkout.with_name("fakes"), shared_checkout / ".venv" / "bin"
    ran, made = shared_checkout.with_name("ran"), [".venv", "xboard_circus", "plugins"]
    fakes.mkdir()
    programs.mkdir(parents=True)
    entries = f'passwd) echo "bob:x:61001:61001:::" "{others}" | tr " " "\\n" ;; group) echo "bob:x:61001:{listed}" ;;'
    for path, text in (
        (fakes / "id", FAKE_ID.format(id=shutil.which("id"))),
        (fakes / "getent", f"#!/bin/sh\ncase $1 in {entries} esac\n"),
        (programs / "python", f'#!/bin/sh\ncase "$*" in *version_info*) ;; *) touch {ran} ;; esac\n'),
        (programs / "xboard-circus", f"#!/bin/sh\ntouch {ran}\n"),
    ):
        path.write_text(text)
        path.chmod(0o775)
    (programs.parent / ".place").write_text(f"{shared_checkout}\n")
    sums = subprocess.check_output(["cksum", "setup.cfg", "pyproject.toml"], cwd=shared_checkout)
    (programs.parent / ".installed-test").write_bytes(sums)
    for path in (shared_checkout, *shared_checkout.glob("*.*"), *(shared_checkout / name for name in made)):
        os.chown(path, BOB, BOB)
    for path in programs.iterdir():
        os.chown(path, BOB, BOB)
    shared_checkout.chmod(0o775)
    command = f"{shared_checkout}/scripts/{script}"
    environ = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}"}

    told = subprocess.run(command, shell=True, env=environ, capture_output=True, text=True, check=False)

    is_his = not others and listed != "carol"
    assert (told.returncode, ran.exists()) == ((0, True) if is_his else (1, False)), told


@pytest.mark.parametrize("program", ["soak", "deaths"])
def test_what_runs_for_long_is_a_script_that_the_documents_name(tmp_path: Path, program: str) -> None:
    """Given a checkout with a .venv that is installed, then its script of that name runs the program in tests/real."""
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    sums = subprocess.check_output(["cksum", "setup.cfg", "pyproject.toml"], cwd=tmp_path)
    (tmp_path / ".venv" / ".installed-test").write_bytes(sums)

    script = tmp_path / "scripts" / f"{program}.sh"
    told = subprocess.run([script, "--help"], cwd="/", capture_output=True, text=True, check=False)

    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"usage: scripts/{program}.sh ")
    assert f"``scripts/{program}.sh" in told.stdout
    for page in ("CONTRIBUTING.md", "README.md", "README.zh-CN.md", "docs/design.md"):
        assert f"scripts/{program}.sh" in (ROOT / page).read_text(encoding="utf-8"), page


@pytest.mark.parametrize("script", [*SCRIPTS_OF_ROOT, "start_backend.sh status"])
@pytest.mark.parametrize("how", ["owner", "folder", "all", "group", "link", "list"])
def test_root_runs_no_python_of_a_venv_of_which_a_part_is_another_users(
    shared_checkout: Path, script: str, how: str
) -> None:
    """Given a .venv of another user's of which root has taken the folder alone, or all but what a group may write, or a
    user by an access list, or what a link there leads to, then nothing of it is run."""
    folder = shared_checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    ran, python = shared_checkout / "ran", folder / "python"
    program = shared_checkout / "theirs" if how == "link" else python
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod({"all": 0o777, "group": 0o775}.get(how, 0o755))
    if how == "group":
        os.chown(python, 0, NOBODY)
    elif how == "list":
        let_nobody_write(python)
    elif how != "all":
        os.chown(folder if how == "folder" else program, NOBODY, NOBODY)
    if how == "link":
        python.symlink_to(program)

    told = subprocess.run(
        f"{shared_checkout}/scripts/{script}", shell=True, capture_output=True, text=True, check=False
    )

    named = {
        "all": "every user of this host",
        "group": grp.getgrgid(NOBODY).gr_name,
        "list": "who is in its access list",
    }
    who = named.get(how, "nobody")
    place = folder if how == "folder" else python
    assert not ran.exists()
    assert told.returncode == 1
    assert f"{who} may write {place}, and root would run what is there" in told.stderr


@pytest.mark.parametrize("script", [*SCRIPTS_OF_ROOT, "start_backend.sh status"])
@pytest.mark.parametrize("how", ["link", "nowhere", "folder", "group", "list", "trusted"])
def test_root_runs_no_python_by_a_link_that_another_user_may_turn(shared_checkout: Path, script: str, how: str) -> None:
    """Given a .venv that is root's, whose link leads to a Python of root's by another user's link, or to nothing yet in
    a folder open to all, or through a folder that a user, a group or an access list lets others write, then nothing of
    it is run, and the place is named; where all on the way is root's, it is run."""
    folder, theirs, ran = (
        shared_checkout / ".venv" / "bin",
        shared_checkout.with_name("theirs"),
        shared_checkout / "ran",
    )
    folder.mkdir(parents=True)
    theirs.mkdir()
    (good := shared_checkout.with_name("good")).write_text(f"#!/bin/sh\ntouch {ran}\n")
    good.chmod(0o755)
    (way := theirs / "python").symlink_to(good)
    (folder / "python").symlink_to(way)
    if how == "link":
        os.chown(way, NOBODY, NOBODY, follow_symlinks=False)
        theirs.chmod(0o1777)
    elif how == "nowhere":
        way.unlink()
        theirs.chmod(0o1777)
    elif how == "folder":
        os.chown(theirs, NOBODY, NOBODY)
    elif how == "group":
        os.chown(theirs, 0, NOBODY)
        theirs.chmod(0o775)
    elif how == "list":
        let_nobody_write(theirs)

    told = subprocess.run(
        f"{shared_checkout}/scripts/{script}", shell=True, capture_output=True, text=True, check=False
    )

    if how == "trusted":
        assert ran.exists()
    else:
        assert (told.returncode, ran.exists()) == (1, False)
        place = theirs if how == "folder" else way
        assert f"Another user may write {place}, and root would run what is there, by a link" in told.stderr


@pytest.mark.parametrize("script", [*SCRIPTS_OF_ROOT, "start_backend.sh status"])
@pytest.mark.parametrize("how", ["link", "home = ", "\tHome\t=\t"])
def test_root_runs_no_python_of_a_venv_whose_library_is_another_users(
    shared_checkout: Path, script: str, how: str
) -> None:
    """Given a .venv that is root's, with a Python of root's, by a link or with its `home`, when the library beside that
    is another user's, then nothing of it is run, and the place is named."""
    base, ran = shared_checkout.with_name("base"), shared_checkout / "ran"
    library, python = base / "lib" / "python3.11", shared_checkout / ".venv" / "bin" / "python"
    for folder in (library, base / "bin", python.parent):
        folder.mkdir(parents=True)
    (library / "os.py").touch()
    os.chown(library, NOBODY, NOBODY)
    program = base / "bin" / "python3.11" if how == "link" else python
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    if how == "link":
        python.symlink_to(program)
    else:
        (shared_checkout / ".venv" / "pyvenv.cfg").write_text(f"{how}{base}/bin\n")

    told = subprocess.run(
        f"{shared_checkout}/scripts/{script}", shell=True, capture_output=True, text=True, check=False
    )

    assert (told.returncode, ran.exists()) == (1, False)
    assert f"Another user may write {library}, and root would run what is there, by a link" in told.stderr


@pytest.mark.parametrize("script", [*SCRIPTS_OF_ROOT, "start_backend.sh status", "monitor_backend.sh"])
@pytest.mark.parametrize("name", ["masking.py", "\x1b[2J.py"])
def test_root_runs_no_source_of_another_users_to_find_out_whose_it_is(
    shared_checkout: Path, script: str, name: str
) -> None:
    """Given a module of the checkout that is another user's, when root runs a script, then no Python has run, and the
    module's name commands no terminal."""
    python, ran = shared_checkout / ".venv" / "bin" / "python", shared_checkout / "ran"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\ntouch {ran}\n")
    python.chmod(0o755)
    module = shared_checkout / "xboard_circus" / name
    module.touch()
    os.chown(module, NOBODY, NOBODY)

    told = subprocess.run(
        f"{shared_checkout}/scripts/{script}", shell=True, capture_output=True, text=True, check=False
    )

    assert (told.returncode, told.stdout, ran.exists()) == (1, "", False)
    shown = str(module).replace("\x1b", "?")
    assert f"nobody may write {shown}, and root would run what is there" in told.stderr


def test_what_a_script_of_roots_makes_is_for_root_alone_to_write_whatever_the_umask(shared_checkout: Path) -> None:
    """Given root's shell with umask 000, when a script makes .venv, then no other user may write there."""
    environ = {**os.environ, "PIP_NO_INDEX": "1"}
    command = f"umask 000; {shared_checkout}/scripts/start_backend.sh start"
    before = {*shared_checkout.rglob("*")}

    subprocess.run(command, shell=True, env=environ, capture_output=True, check=False)

    made = {*shared_checkout.rglob("*")} - before
    assert shared_checkout / ".venv" / "bin" / "python" in made
    assert [path for path in made if not path.is_symlink() and path.stat().st_mode & 0o022] == []


# The Python that makes .venv; whenever root has run it, the service's user is quick.
QUICK = """#!/bin/sh
{python} "$@"
code=$?
setpriv --reuid={user} --regid={user} --clear-groups sh -c '
mkdir -p {venv}/bin && cp {evil} {venv}/bin/new && mv -f {venv}/bin/new {venv}/bin/python' 2>/dev/null
exit $code
"""
EVIL = """#!/bin/sh
[ "$(id -u)" != 0 ] || touch {ran}
exec {python} "$@"
"""


@pytest.mark.parametrize("script", SCRIPTS_OF_ROOT)
def test_a_venv_that_somebody_makes_while_root_makes_it_is_not_run(shared_checkout: Path, script: str) -> None:
    """Given no .venv, and a user who makes one while root looks for a Python, then root runs nothing of it."""
    venv = shared_checkout / ".venv"
    ran, evil, quick = (shared_checkout.with_name(name) for name in ("ran", "evil", "quick"))
    values = {"python": sys.executable, "user": NOBODY, "venv": venv, "evil": evil, "ran": ran}
    for path, text in ((evil, EVIL), (quick, QUICK)):
        path.write_text(text.format(**values))
        path.chmod(0o755)
    environ = {**os.environ, "PYTHON": str(quick), "PIP_NO_INDEX": "1"}

    for each in (script, "start_backend.sh status"):
        command = f"{shared_checkout}/scripts/{each}"
        told = subprocess.run(command, shell=True, env=environ, capture_output=True, text=True, check=False)

        assert not ran.exists()
        assert told.returncode == 1
        assert f"{venv} is another user's, of uid {NOBODY}" in told.stderr
    assert (venv / "bin" / "python").stat().st_uid == NOBODY
