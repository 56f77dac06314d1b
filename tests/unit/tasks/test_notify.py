# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Telling about runs, over real sockets to servers that keep what they get."""

from __future__ import annotations

import email
import email.policy
import json
import os
import socket
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from engine.errors import HoldfastError, UsageError
from engine.system.host import Host, Paths
from engine.system.secrets import write_secret
from engine.tasks import notify as notify_module
from engine.tasks import notify_mail, notify_webhook
from engine.tasks.notify import notify, send_test
from engine.tasks.results import GuestOutcome, RunResult

from tests.sinks import HookSink, Mail, MailSink, Manners, make_certificate

PASSWORD = "geh#eim+1"


class Listener:
    """Keeps what the engine says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    warn = error = info

    def progress(self, done: int, total: int, zero: int, written: int) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(notify_module, "PAUSE_SECONDS", 0.0)
    host = Host("n1", Paths.under(str(tmp_path)))
    os.makedirs(host.paths.etc)
    return host


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_certificate(str(tmp_path_factory.mktemp("tls")))


@pytest.fixture
def run(tmp_path: Path) -> RunResult:
    """One good guest, and one that failed."""
    log = tmp_path / "run.log"
    log.write_text("INFO: one line\n" + "x" * 2000 + "\n.\n", encoding="utf-8")
    good = GuestOutcome(100, "web <1>", "qemu", "ok", archive="nas:backup/a", archive_size=3 << 20, duration=62.5)
    bad = GuestOutcome(101, "d\u00e4ta", "lxc", "failed", error={"message": "the disk broke", "hint": "mend it"})
    run = RunResult("r1", "n1", "nas", "nightly", 1000.0, guests=[good, bad], state="finished", finished=1065.0)
    run.log = str(log)
    return run


def declare(host: Host, text: str) -> None:
    Path(host.paths.notifications_cfg).write_text(text, encoding="utf-8")


def smtp(sink: MailSink, mode: str = "insecure", more: str = "") -> str:
    return (
        f"smtp: office\n\tserver localhost\n\tport {sink.port}\n\tmode {mode}\n"
        f"\tfrom-address n1@example.com\n\tmailto a@example.com,b@example.com\n{more}\n"
    )


def webhook(sink: HookSink, scheme: str = "http", more: str = "", path: str = "/hook") -> str:
    return f"webhook: chat\n\turl {scheme}://localhost:{sink.port}{path}\n{more}\n"


def tell(host: Host, result: RunResult, changed: bool = False, **options: Any) -> list[str]:
    listener = Listener()
    problems = notify(host, result, options, changed=changed, report=listener)
    for line in [*problems, *listener.lines]:
        assert PASSWORD not in line
    return problems


def parsed(mail: Mail) -> EmailMessage:
    message = email.message_from_bytes(mail.data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_mail_has_the_run_as_text_and_as_html(host: Host, run: RunResult) -> None:
    with MailSink() as sink:
        declare(host, smtp(sink))
        assert tell(host, run) == []
    (mail,) = sink.mails
    assert (mail.sender, mail.recipients) == ("n1@example.com", ["a@example.com", "b@example.com"])
    message = parsed(mail)
    assert message["Subject"] == "vzdump backup status (n1): backup failed"
    assert message["From"] == "vzdump backup tool <n1@example.com>"
    assert message.get_content_type() == "multipart/alternative"
    text, page = (part.get_content().replace("\r\n", "\n") for part in message.iter_parts())
    assert "100     web <1>    ok        1m 2s    3.0 MiB    nas:backup/a\n" in text
    assert "101     d\u00e4ta       err       0s       0 B\n" in text
    assert "101 (d\u00e4ta): the disk broke (mend it)\n" in text
    assert "Total running time: 1m 5s\nTotal size: 3.0 MiB\n" in text
    assert f"Logs\n====\n\nINFO: one line\n{'x' * 2000}\n.\n" in text
    assert ">web &lt;1&gt;</td>" in page and "web <1>" not in page
    assert max(map(len, mail.data.splitlines())) < 990


def test_a_log_that_is_too_long_or_gone(host: Host, run: RunResult) -> None:
    path = Path(str(run.log))
    path.write_text("x" * ((1 << 20) + 1), encoding="utf-8")
    with MailSink() as sink:
        declare(host, smtp(sink))
        assert tell(host, run) == []
        path.unlink()
        assert tell(host, run) == []
    long, gone = (parsed(mail).get_body(("plain",)) for mail in sink.mails)
    assert long is not None and f"it is in {path}" in long.get_content()
    assert len(sink.mails[0].data) < 10000
    assert gone is not None and "The log cannot be read" in gone.get_content()


def test_a_webhook_gets_the_run_as_json(host: Host, run: RunResult) -> None:
    with HookSink() as sink:
        declare(host, webhook(sink, more="\theader X-Source: holdfast\n"))
        assert tell(host, run) == []
    (hook,) = sink.hooks
    assert hook.path == "/hook"
    assert (hook.headers["content-type"], hook.headers["x-source"]) == ("application/json", "holdfast")
    content = json.loads(hook.body)
    assert (content["type"], content["severity"], content["hostname"], content["job_id"]) == (
        *("vzdump", "error", "n1"),
        "nightly",
    )
    assert content["timestamp"] == 1065
    assert "the disk broke" in content["message"] and "one line" not in content["message"]
    assert content["run"] == run.to_dict()


@pytest.mark.parametrize(
    ("rule", "good", "changed", "told"),
    [
        ("always", True, False, True),
        ("failure", True, True, False),
        ("failure", False, False, True),
        ("change", True, True, True),
        ("change", False, False, False),
    ],
)
def test_rules(host: Host, run: RunResult, rule: str, good: bool, changed: bool, told: bool) -> None:
    if good:
        run.guests.pop()
    with HookSink() as sink:
        declare(host, webhook(sink, more=f"\trule {rule}\n"))
        assert tell(host, run, changed) == []
    assert len(sink.hooks) == told


def test_a_disabled_target_is_not_told_and_a_broken_one_is_a_problem(host: Host, run: RunResult) -> None:
    with HookSink() as sink:
        declare(host, webhook(sink, more="\tdisable\n") + "sendmail: lost\n\trule always\n")
        assert tell(host, run) == ["cannot tell 'lost', it cannot be used: 'mailto' is missing"]
    assert sink.hooks == []


@pytest.mark.parametrize("mode", ["tls", "starttls"])
def test_logging_in_to_a_mail_server(host: Host, run: RunResult, certificate: str, mode: str) -> None:
    manners = Manners(tls=mode == "tls", starttls=mode == "starttls", login=f"n1:{PASSWORD}")
    write_secret(host.paths.notification_secret("office"), PASSWORD)
    with MailSink(manners, certificate) as sink:
        declare(host, smtp(sink, mode, f"\tusername n1\n\tca-file {certificate}\n"))
        assert tell(host, run) == []
    (mail,) = sink.mails
    assert mail.protected
    assert mail.login == f"n1:{PASSWORD}"
    assert PASSWORD.encode() not in mail.data


def test_a_wrong_password_is_told_without_it(host: Host, run: RunResult, certificate: str) -> None:
    write_secret(host.paths.notification_secret("office"), PASSWORD)
    with MailSink(Manners(tls=True, login="n1:other"), certificate) as sink:
        declare(host, smtp(sink, "tls", f"\tusername n1\n\tca-file {certificate}\n"))
        (problem,) = tell(host, run)
    assert f"the mail server localhost:{sink.port} refuses the user 'n1' (535)" in problem
    assert sink.connections == 1


def test_a_password_is_not_sent_where_starttls_fails(host: Host, run: RunResult, certificate: str) -> None:
    write_secret(host.paths.notification_secret("office"), PASSWORD)
    with MailSink(Manners(login=f"n1:{PASSWORD}"), certificate) as sink:
        declare(host, smtp(sink, "starttls", f"\tusername n1\n\tca-file {certificate}\n"))
        (problem,) = tell(host, run)
    assert "cannot do what is wanted: STARTTLS" in problem
    assert sink.mails == []


@pytest.mark.parametrize("mode", ["tls", "starttls"])
def test_a_mail_server_that_nobody_vouches_for(host: Host, run: RunResult, certificate: str, mode: str) -> None:
    with MailSink(Manners(tls=mode == "tls", starttls=mode == "starttls"), certificate) as sink:
        declare(host, smtp(sink, mode))
        (problem,) = tell(host, run)
    assert "by TLS" in problem and "ca_file" in problem
    assert sink.mails == []


def test_https(host: Host, run: RunResult, certificate: str, tmp_path: Path) -> None:
    with HookSink(certificate=certificate) as sink:
        declare(host, webhook(sink, "https", f"\tca-file {certificate}\n"))
        assert tell(host, run) == []
        declare(host, webhook(sink, "https"))
        (unknown,) = tell(host, run)
        declare(host, webhook(sink, "https", f"\tca-file {certificate}\n").replace("//localhost", "//127.0.0.1"))
        (other,) = tell(host, run)
        declare(host, webhook(sink, "https", f"\tca-file {tmp_path}/none.pem\n"))
        (missing,) = tell(host, run)
    assert len(sink.hooks) == 1
    assert "self-signed certificate" in unknown
    assert "127.0.0.1" in other and "certificate is not valid for" in other
    assert "cannot read certificates from" in missing


def test_the_secret_of_a_webhook(host: Host, run: RunResult) -> None:
    write_secret(host.paths.notification_secret("chat"), PASSWORD)
    with HookSink() as sink:
        declare(host, webhook(sink, more="\theader Authorization: Bearer {secret}\n", path="/a/{secret}?b"))
        assert tell(host, run) == []
    assert sink.hooks[0].path == "/a/geh%23eim+1?b"
    assert sink.hooks[0].headers["authorization"] == f"Bearer {PASSWORD}"
    assert PASSWORD.encode() not in sink.hooks[0].body


def test_a_secret_that_is_missing_or_open_is_not_used(host: Host, run: RunResult) -> None:
    path = host.paths.notification_secret("chat")
    with HookSink() as sink:
        declare(host, webhook(sink, more="\theader Authorization: Bearer {secret}\n"))
        (missing,) = tell(host, run)
        write_secret(path, PASSWORD)
        os.chmod(path, 0o644)
        (readable,) = tell(host, run)
    assert f"{path} does not exist" in missing
    assert "not root's alone" in readable
    assert sink.hooks == []


def test_refused_connections(host: Host, run: RunResult) -> None:
    with MailSink() as mails, HookSink() as hooks:
        declare(host, smtp(mails) + webhook(hooks))
    problems = tell(host, run)
    assert len(problems) == 2
    assert all("Connection refused" in problem for problem in problems)


@pytest.mark.parametrize(
    ("answers", "count"), [((503, 204), 2), ((429, 204), 2), ((503,), 2), ((404,), 1), ((302,), 1)]
)
def test_answers_of_webhooks(host: Host, run: RunResult, answers: tuple[int, ...], count: int) -> None:
    write_secret(host.paths.notification_secret("chat"), PASSWORD)
    with HookSink(answers) as sink:
        declare(host, webhook(sink, path="/{secret}"))
        problems = tell(host, run)
    # What may pass is tried once more; a redirection is not followed.
    assert len(sink.hooks) == count
    if answers[-1] == 204:
        assert problems == []
    else:
        assert f"http://localhost:{sink.port} answered {answers[-1]}" in problems[0]


def test_a_busy_mail_server_is_asked_again(host: Host, run: RunResult) -> None:
    with MailSink(Manners(busy=1)) as sink:
        declare(host, smtp(sink))
        assert tell(host, run) == []
    assert len(sink.mails) == 1


@pytest.mark.parametrize("code", [550, 450])
def test_a_recipient_that_is_refused(host: Host, run: RunResult, code: int) -> None:
    with MailSink(Manners(refuses={"b@example.com": code})) as sink:
        declare(host, smtp(sink))
        (problem,) = tell(host, run)
    assert f"does not take mails for b@example.com ({code} not now)" in problem
    # Who has the mail does not get it again.
    assert [mail.recipients for mail in sink.mails] == [["a@example.com"]]


@pytest.mark.parametrize(("code", "connections"), [(550, 1), (450, 2)])
def test_recipients_that_are_all_refused(host: Host, run: RunResult, code: int, connections: int) -> None:
    with MailSink(Manners(refuses={"a@example.com": code, "b@example.com": code})) as sink:
        declare(host, smtp(sink))
        (problem,) = tell(host, run)
    assert f"a@example.com ({code} not now), b@example.com ({code} not now)" in problem
    assert (sink.mails, sink.connections) == ([], connections)


def test_servers_that_never_answer(host: Host, run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_mail, "SOCKET_SECONDS", 0.2)
    monkeypatch.setattr(notify_webhook, "SOCKET_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, HookSink() as hooks:
        port = silent.getsockname()[1]
        declare(
            host,
            f"smtp: office\n\tserver localhost\n\tport {port}\n\tmode insecure\n\tfrom-address a@b\n\tmailto c@d\n\n"
            f"webhook: mute\n\turl http://localhost:{port}/\n\n" + webhook(hooks),
        )
        problems = tell(host, run)
    assert [problem.partition(" about")[0] for problem in problems] == ["cannot tell 'office'", "cannot tell 'mute'"]
    assert all("timed out" in problem for problem in problems)
    assert len(hooks.hooks) == 1


def test_a_server_that_drips_is_given_up(host: Host, run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify_module, "DEADLINE_SECONDS", 0.5)
    began = time.monotonic()
    with MailSink(Manners(drips=0.05)) as sink:
        declare(host, smtp(sink))
        (problem,) = tell(host, run)
    assert "it took longer than 0.5 s" in problem
    assert time.monotonic() - began < 5


@pytest.fixture
def sendmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of the node's mail system; its arguments and input are in the folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "sendmail"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{folder}/args\ncat >{folder}/mail\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_sendmail(host: Host, run: RunResult, sendmail: Path) -> None:
    declare(host, "sendmail: admins\n\tmailto root,a@example.com\n")
    assert tell(host, run) == []
    args = (sendmail / "args").read_text(encoding="utf-8").split()
    assert args == ["-oi", "-f", "root", "--", "root", "a@example.com"]
    data = (sendmail / "mail").read_bytes()
    assert b"\r" not in data
    message = parsed(Mail("", [], data))
    assert message["To"] == "root, a@example.com"
    assert message.get_content_type() == "multipart/alternative"


def test_sendmail_that_fails(host: Host, run: RunResult, sendmail: Path) -> None:
    (sendmail / "sendmail").write_text("#!/bin/sh\necho no queue >&2\nexit 75\n", encoding="utf-8")
    declare(host, "sendmail: admins\n\tmailto root\n")
    (problem,) = tell(host, run)
    assert "failed with exit status 75: no queue" in problem


def test_without_sendmail(host: Host, run: RunResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(notify_mail, "SENDMAIL_PATHS", "/nowhere")
    declare(host, "sendmail: admins\n\tmailto root\n")
    (problem,) = tell(host, run)
    assert "'sendmail': the program is not installed" in problem


@pytest.mark.parametrize(
    ("options", "mailed", "posted"),
    [
        ({"mailto": ("a@b",)}, True, False),
        ({"mailto": ("a@b",), "mailnotification": "failure"}, True, False),
        ({"mailto": ("a@b",), "notification_mode": "notification-system"}, False, True),
        ({"mailto": ()}, False, True),
        ({"notification_mode": "legacy-sendmail"}, False, False),
        ({}, False, True),
    ],
)
def test_mailto_takes_the_place_of_the_targets(
    host: Host, run: RunResult, sendmail: Path, options: dict[str, Any], mailed: bool, posted: bool
) -> None:
    with HookSink() as sink:
        declare(host, webhook(sink))
        assert tell(host, run, **options) == []
    assert ((sendmail / "mail").exists(), len(sink.hooks)) == (mailed, posted)


def test_mailto_only_after_failures(host: Host, run: RunResult, sendmail: Path) -> None:
    run.guests.pop()
    assert tell(host, run, mailto=("a@b",), mailnotification="failure") == []
    assert not (sendmail / "mail").exists()


def test_a_message_to_try_a_target(host: Host) -> None:
    with HookSink() as sink:
        declare(host, webhook(sink, more="\trule failure\n") + "sendmail: lost\n")
        send_test(host, "chat")
    content = json.loads(sink.hooks[0].body)
    assert (content["type"], content["severity"]) == ("test", "info")
    assert "this is only a test" in content["message"]
    with pytest.raises(UsageError, match="there is no target 'none'"):
        send_test(host, "none")
    with pytest.raises(HoldfastError, match="'mailto' is missing"):
        send_test(host, "lost")
    with pytest.raises(HoldfastError, match="Connection refused"):
        send_test(host, "chat")
