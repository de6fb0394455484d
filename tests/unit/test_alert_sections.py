"""The [alert:...] sections of an ini: how they are read, what is said of a wrong one, and that secrets stay unsaid."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from circus.config import get_config

from xboard_circus.alerts.command import CommandSink
from xboard_circus.alerts.secrets import AlertError, Secret, scrubbed
from xboard_circus.alerts.services import ServiceSink
from xboard_circus.alerts.sinks import rules_of, sink_of
from xboard_circus.alerts.smtp import SmtpSink
from xboard_circus.alerts.webhook import WebhookSink
from xboard_circus.checks import alert_rules, file_rules
from xboard_circus.checks.check import Level, check
from xboard_circus.checks.watcher_environ import as_circusd_sees_it
from xboard_circus.config import Config, load
from xboard_circus.core.alerting import Severity, Trouble
from xboard_circus.options.alert_fields import AlertOptions, parse_alert
from xboard_circus.options.reading import ini_text
from xboard_circus.options.reference import OptionDoc, documented

TOKEN = "s3cr3t-t0k3n"
HEAD = """[circus]
endpoint = tcp://127.0.0.1:15555
pubsub_endpoint = tcp://127.0.0.1:15556
multicast_endpoint =
[watcher:web]
cmd = sleep 60
[plugin:xboard]
use = xboard_circus.plugins.bundle.Bundle
"""
WEBHOOK = {"type": "webhook", "url_env": "HOOK_OF_THE_TEST"}
EMAIL = {"type": "email", "host": "smtp.example.org", "sender": "a@example.org", "to": "ops@example.org"}

Write = Callable[..., Config]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes an ini with these alert sections, and loads it."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XBOARD_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("HOOK_OF_THE_TEST", f"https://example.org/{TOKEN}")

    def written(*, head: str = HEAD, **alerts: dict[str, str]) -> Config:
        sections = [
            f"[alert:{name}]\n" + "\n".join(f"{k} = {v}" for k, v in each.items()) for name, each in alerts.items()
        ]
        file = tmp_path / "circus.ini"
        file.write_text("\n".join([head, *sections, ""]))
        return load(file)

    return written


def told(config: Config) -> list[str]:
    return [
        f"{each.level.value} [{each.section}] {each.option}: {each.what}; {each.hint}"
        for each in alert_rules.findings(config)
    ]


def test_circus_passes_them_over(write: Write) -> None:
    config = write(ops=WEBHOOK)
    found = get_config(str(config.path))

    assert [each["name"] for kind in ("watchers", "plugins", "sockets") for each in found[kind]] == [
        "web",
        "plugin:xboard",
    ]
    assert [(alert.name, alert.problems) for alert in config.alerts] == [("ops", ())]
    assert list(file_rules.findings(config)) == []
    assert told(config) == []


def test_each_section_becomes_a_sink(write: Write) -> None:
    mail = {
        **EMAIL,
        "user": "a",
        "password_file": "secrets/smtp",
        "security": "tls",
        "to": "Ops <ops@example.org>, b@example.org",
    }
    config = write(
        hook={**WEBHOOK, "shape": "wecom", "timeout": "3", "proxies": "environment"},
        mail=mail,
        run={"type": "command", "command": "/bin/notify --to 'the team'", "on": "down, silent", "max_per_hour": "2"},
        chat={**WEBHOOK, "type": "apprise", "timeout": "5", "proxies": "environment"},
    )
    hook, post, run, chat = (sink_of(config, alert) for alert in config.alerts)

    assert hook == WebhookSink(url=Secret(env="HOOK_OF_THE_TEST"), shape="wecom", timeout=3.0, is_proxied=True)
    assert isinstance(post, SmtpSink)
    assert post.password == Secret(file=config.folder / "secrets" / "smtp")
    assert post.place == "e-mail to Ops <ops@example.org>, b@example.org by smtp.example.org:465"
    assert run == CommandSink(("/bin/notify", "--to", "the team"), config.folder, 10.0, frozenset({"HOOK_OF_THE_TEST"}))
    hidden = frozenset({"HOOK_OF_THE_TEST"})
    assert chat == ServiceSink(Secret(env="HOOK_OF_THE_TEST"), 5.0, is_proxied=True, hidden=hidden)
    rules = rules_of(config.alerts[2].options)
    assert (rules.on, rules.max_per_hour) == (frozenset({Trouble.DOWN, Trouble.SILENT}), 2)
    assert rules.min_severity is Severity.WARNING


@pytest.mark.parametrize(
    ("section", "message"),
    [
        pytest.param({}, "type = : missing; write type = webhook, email, command, otlp or apprise", id="nothing"),
        pytest.param(
            {"type": "mail"},
            "type = mail: not one of the words that may stand here; write one of webhook, email, command",
            id="type",
        ),
        pytest.param({**WEBHOOK, "shpe": "wecom"}, "shpe = wecom: unknown option; did you mean shape?", id="misspelt"),
        pytest.param({**WEBHOOK, "colour": "red"}, "colour = red: unknown option; delete it", id="unknown"),
        pytest.param(
            {**WEBHOOK, "shape": "discord"},
            "shape = discord: not one of the words that may stand here; write one of json, feishu",
            id="shape",
        ),
        pytest.param(
            {**WEBHOOK, "shape": "slack"},
            "shape = slack: Apprise sends to Slack; write type = apprise, and delete shape; the address stays",
            id="Slack's shape",
        ),
        pytest.param(
            {**WEBHOOK, "on": "dwn"},
            "on = dwn: dwn is none of the words that may stand here; did you mean down?",
            id="on",
        ),
        pytest.param(
            {**WEBHOOK, "to": "ops@example.org"},
            "to = ops@example.org: means nothing for type = webhook; delete it",
            id="another type's",
        ),
        pytest.param(
            {"type": "webhook"}, "url_file = : missing; write url_file = FILE or url_env = VARIABLE", id="no address"
        ),
        pytest.param(
            {**WEBHOOK, "url_file": "x"},
            "url_env = HOOK_OF_THE_TEST: contradicts url_file; delete one of the two",
            id="two",
        ),
        pytest.param(
            {**WEBHOOK, "shape": "wecom", "secret_env": "S"},
            "secret_env = : nothing is signed with shape = wecom; delete it",
            id="signed",
        ),
        pytest.param(
            {**WEBHOOK, "timeout": "10s"}, "timeout = 10s: seconds are written without a unit; write 10", id="unit"
        ),
        pytest.param(
            {"type": "email", **dict(list(EMAIL.items())[2:])},
            "host = : missing; write host = smtp.example.org",
            id="no host",
        ),
        pytest.param(
            {**EMAIL, "to": "ops"},
            "to = ops: ops is no address; write one such as ops@example.org",
            id="no address of mail",
        ),
        pytest.param({**EMAIL, "to": "ops@example.org\x0bBcc: x@y"}, "is no address", id="a header in an address"),
        pytest.param(
            {**EMAIL, "user": "a"},
            "password_file = : missing; write password_file = FILE or password_env = VARIABLE",
            id="no password",
        ),
        pytest.param(
            {**EMAIL, "password_env": "P"}, "user = : a password without a user; write user = NAME", id="no user"
        ),
        pytest.param(
            {**EMAIL, "user": "a", "password_env": "P", "security": "none"},
            "security = none: the password would go over the network as it is; write starttls or tls",
            id="bare",
        ),
        pytest.param({"type": "command"}, "command = : missing; write command = /path/to/program", id="no command"),
        pytest.param(
            {"type": "command", "command": "a 'b"},
            "command = a 'b: a quote is not closed; close it, or take it out",
            id="quote",
        ),
    ],
)
def test_a_wrong_section_is_told(section: dict[str, str], message: str) -> None:
    assert any(message in str(problem) for problem in parse_alert(section)[1]), parse_alert(section)[1]


@pytest.mark.parametrize(
    "section",
    [
        pytest.param({"type": "webhook", "url": TOKEN}, id="url"),
        pytest.param({"type": "webhook", "webhook": TOKEN}, id="webhook"),
        pytest.param({"type": "webhook", "urls": TOKEN}, id="a misspelt one"),
        pytest.param(
            {"type": "webhook", "url_env": f"https://example.org/{TOKEN}"}, id="in place of a variable's name"
        ),
        pytest.param({"type": "webhook", "url_file": f"https://example.org/{TOKEN}"}, id="in place of a file's name"),
        pytest.param({**EMAIL, "user": "a", "password": TOKEN}, id="password"),
        pytest.param({**WEBHOOK, "secret": TOKEN}, id="secret"),
        pytest.param({**EMAIL, "url": TOKEN}, id="of another type"),
        pytest.param({**EMAIL, "url_file": TOKEN}, id="a source of another type"),
    ],
)
def test_a_secret_in_the_ini_is_refused_and_never_quoted(section: dict[str, str], write: Write) -> None:
    config = write(ops=section)

    assert any(line.startswith("error") for line in told(config))
    assert TOKEN not in f"{told(config)} {[str(each) for each in parse_alert(section)[1]]}"


def test_the_whole_check_refuses_a_secret_and_shows_it_nowhere(write: Write) -> None:
    found = check(write(ops={"type": "webhook", "url": TOKEN}).path, others=list)  # whoever else this host has

    assert not found.passed
    assert [finding.section for finding in found.at(Level.ERROR)] == ["alert:ops", "alert:ops"]
    assert TOKEN not in f"{found} {found.as_dict()} {[str(each) for each in found.findings]}"


def test_what_is_wrong_outside_the_file_is_told(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK_OF_THE_TEST")
    (tmp_path / "open").write_text(TOKEN)
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "empty").touch(mode=0o600)
    config = write(
        hook=WEBHOOK,
        shown={"type": "webhook", "url_file": "open"},
        gone={"type": "webhook", "url_file": "no: such", "ca_file": "ca.pem"},
        empty={"type": "webhook", "url_file": "empty"},
        run={"type": "command", "command": "no-such-program --x"},
        here={"type": "command", "command": "./open"},
        chat={**WEBHOOK, "type": "apprise"},
    )
    monkeypatch.setitem(alert_rules.EXTRAS, "apprise", ("no_such_module", "Apprise", "apprise"))
    monkeypatch.setenv("HOOK_OF_THE_TEST", f"slack://{TOKEN}")
    assert told(config)[-1] == "error [alert:chat] type: Apprise is not installed; pip install 'apprise<3,>=2.0.1'"
    config = config._replace(alerts=config.alerts[:-1])
    monkeypatch.delenv("HOOK_OF_THE_TEST")

    assert told(config) == [
        (
            "warning [alert:hook] url_env: HOOK_OF_THE_TEST is not set in the environment;"
            " export HOOK_OF_THE_TEST=... where circusd is started"
        ),
        f"error [alert:shown] url_file: {tmp_path}/open can be read by others (mode 0644); chmod 600 {tmp_path}/open",
        (
            f"error [alert:gone] url_file: {tmp_path}/no: such is not there;"
            f" write the secret into it, and chmod 600 '{tmp_path}/no: such'"
        ),
        f"error [alert:gone] ca_file: {tmp_path}/ca.pem is not there; name a file of certificates",
        f"error [alert:empty] url_file: {tmp_path}/empty is empty; ",
        "error [alert:run] command: there is no program no-such-program; write its whole path",
        "error [alert:here] command: there is no program ./open; write its whole path",
    ]


def test_alerts_that_nobody_reads_are_told(write: Write) -> None:
    config = write(head=HEAD.partition("[plugin")[0], ops=WEBHOOK)

    assert told(config) == [
        "error [alert:ops] : no plugin reads it; add [plugin:xboard] use = xboard_circus.plugins.bundle.Bundle"
    ]


@pytest.mark.parametrize("name", ["alerts:ops", "alert ops", "alert:"])
def test_a_misspelt_section_is_told(name: str, write: Write) -> None:
    config = write(head=f"{HEAD}[{name}]\ntype = command\ncommand = true\n")

    assert "Circus reads no section of this kind" in [finding.what for finding in file_rules.findings(config)]


@pytest.mark.parametrize("option", documented(AlertOptions), ids=lambda option: option.name)
def test_what_the_reference_shows_of_an_option_could_stand_in_a_section(option: OptionDoc) -> None:
    name, value = option.name, option.example if option.default in (None, ()) else ini_text(option.default)

    assert name not in {
        problem.option
        for problem in parse_alert({"type": "webhook", "url_file": "x", name: value})[1]
        if "means nothing" not in problem.what and "contradicts" not in problem.what
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_of_another_user_is_refused(tmp_path: Path, mode: int) -> None:
    """Root is not told to chmod it: that user could have put a link there by then."""
    file = tmp_path / "secret"
    file.write_text(TOKEN)
    file.chmod(mode)
    os.chown(file, 12_345, -1)

    assert str(Secret(file=file).fault()).startswith(f"{file} belongs to another user (12345)")


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    assert str(Secret(file=tmp_path).fault()) == f"{tmp_path} is no plain file"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"no hook {TOKEN}", "no hook ***"),
        (f"POST /services/{TOKEN}?access=abcdef", "POST ***"),
        ("access=abcdef", "***"),
        ("abcdef", "***"),
        ("fine\nreally", "fine really"),
    ],
)
def test_what_a_server_says_is_scrubbed(said: str, shown: str) -> None:
    assert scrubbed(said, [f"https://example.org/services/{TOKEN}?access=abcdef", ""]) == shown


def test_a_password_in_the_address_is_masked_as_it_is_sent_too() -> None:
    said = "bad credentials: Basic YW5uOmh1bnRlcjIyIQ== (ann, hunter22!)"

    assert scrubbed(said, ["https://ann:hunter22%21@example.org/x"]) == "bad credentials: *** (ann, ***)"


@pytest.mark.parametrize("sent", ["hunter22!", "\0ann\0hunter22!"], ids=["LOGIN", "PLAIN"])
def test_a_login_that_a_mail_server_quotes_is_masked(sent: str) -> None:
    sink = SmtpSink(host="mail", sender="a@example.org", to=("b@example.org",), user="ann")
    said = f"535 cannot decode {base64.b64encode(sent.encode()).decode()} of ann"

    assert scrubbed(said, sink._sent("hunter22!")) == "535 cannot decode *** of ann"


def test_a_secret_that_nobody_knows_is_masked_by_its_name() -> None:
    assert scrubbed("cannot page: api_key=k-1234 is wrong", []) == "cannot page: api_key=*** is wrong"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_secret_in_a_file_that_anybody_else_can_open_is_not_read(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "hook"
    file.write_text(TOKEN)
    file.chmod(mode)

    with pytest.raises(AlertError, match=f"chmod 600 {file}"):
        Secret(file=file).read()
    file.chmod(0o600)
    assert Secret(file=file).read() == TOKEN


@pytest.mark.parametrize("user", [None, "nobody", str(os.geteuid())])
def test_what_is_tried_as_another_user_has_no_secret_of_the_alerts(
    write: Write, monkeypatch: pytest.MonkeyPatch, user: str | None
) -> None:
    """Given copy_env, then check and a trial hand the variable on to circusd's own user alone."""
    monkeypatch.setenv("OTHER_OF_THE_TEST", "1")
    uid = f"uid = {user}\n" if user else ""
    config = write(head=HEAD.replace("cmd = sleep 60\n", f"cmd = sleep 60\ncopy_env = True\n{uid}"), chat=WEBHOOK)
    (watcher,) = config.watchers

    env = as_circusd_sees_it(config, watcher, starts=True)

    assert env["OTHER_OF_THE_TEST"] == "1"
    assert ("HOOK_OF_THE_TEST" in env) == (user != "nobody")
