# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of a real container that tell servers about themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.faults import HOLD, Fault
from helpers.guests import CT
from helpers.node import Node

from tests.sinks import HookSink, MailSink, Manners, make_certificate

SECRET = "0b5e7a37-secret"
TARGETS = """smtp: office
\tserver localhost
\tport {mail}
\tmode tls
\tca-file {certificate}
\tusername n1
\tfrom-address n1@example.com
\tmailto a@example.com

webhook: chat
\turl http://localhost:{hook}/{{secret}}
\trule change

"""
RUN = ("run", str(CT), "--storage", "backup")


def declare(node: Node, mails: MailSink, hooks: HookSink, certificate: str) -> None:
    text = TARGETS.format(mail=mails.port, hook=hooks.port, certificate=certificate)
    Path(node.host.paths.notifications_cfg).write_text(text, encoding="utf-8")
    for name in ("office", "chat"):
        path = Path(node.host.paths.notification_secret(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        path.write_text(SECRET + "\n", encoding="utf-8")


def files_with(node: Node, text: str) -> list[str]:
    """Files of the node, but those of secrets, that hold this text."""
    paths = (path for path in node.root.rglob("*") if path.is_file() and path.suffix != ".secret")
    return [str(path) for path in paths if text.encode() in path.read_bytes()]


def test_runs_are_told_and_measured(box: Node, tmp_path: Path) -> None:
    certificate = make_certificate(str(tmp_path))
    metrics = box.root / "metrics" / "holdfast.prom"
    Path(box.host.paths.vzdump_conf).write_text(f"metrics-file: {metrics}\n", encoding="utf-8")
    with MailSink(Manners(tls=True, login=f"n1:{SECRET}"), certificate) as mails, HookSink() as hooks:
        declare(box, mails, hooks, certificate)
        told = box.call(*RUN)
        assert "told 'office' about the run" in told
        # The first good run is no change.
        assert (len(mails.mails), len(hooks.hooks)) == (1, 0)
        assert f'vmid="{CT}",name="box",kind="lxc"}} 1\n' in metrics.read_text(encoding="utf-8")

        # A configuration with a wrong line makes the backup fail.
        config = box.config(CT, "lxc")
        good = config.read_text(encoding="utf-8")
        config.write_text(good + "no line at all\n", encoding="utf-8")
        for _time in range(2):
            box.call(*RUN, status=3)
        assert f'vmid="{CT}",name="box",kind="lxc"}} 0\n' in metrics.read_text(encoding="utf-8")
        config.write_text(good, encoding="utf-8")
        box.call(*RUN)
    assert len(mails.mails) == 4
    assert all(mail.protected and mail.login.endswith(SECRET) for mail in mails.mails)
    assert b"starting backup of CT" in mails.mails[0].data
    # Of the two failures one is news, and so is that it went well again.
    contents = [json.loads(hook.body) for hook in hooks.hooks]
    assert [content["severity"] for content in contents] == ["error", "info"]
    assert [hook.path for hook in hooks.hooks] == [f"/{SECRET}"] * 2
    assert files_with(box, SECRET) == []
    assert SECRET not in told
    assert box.leftovers() == []


def test_a_run_without_its_storage_is_told(box: Node, tmp_path: Path) -> None:
    certificate = make_certificate(str(tmp_path))
    with MailSink(Manners(tls=True, login=f"n1:{SECRET}"), certificate) as mails, HookSink() as hooks:
        declare(box, mails, hooks, certificate)
        # Nothing is mounted there.
        box.refused("run", str(CT), "--storage", "disk", status=1)
    assert b"backup failed: " in mails.mails[0].data
    assert "mount point" in json.loads(hooks.hooks[0].body)["title"]


@pytest.mark.parametrize("failing", ["refused", "login"])
def test_who_cannot_be_told_does_not_fail_the_backup(box: Node, tmp_path: Path, failing: str) -> None:
    certificate = make_certificate(str(tmp_path))
    with MailSink(Manners(tls=True, login="n1:other"), certificate) as mails, HookSink((500,)) as hooks:
        declare(box, mails, hooks, certificate)
        if failing == "login":
            result = box.json(*RUN)
    if failing == "refused":
        result = box.json(*RUN)
    assert result["ok"]
    (warning,) = result["warnings"]
    assert ("refuses the user 'n1' (535)" if failing == "login" else "Connection refused") in warning
    assert warning in Path(result["log"]).read_text(encoding="utf-8")
    (run,) = box.json("status")["runs"]
    assert run["state"] == "finished"
    assert run["result"]["warnings"] == [warning]
    assert files_with(box, SECRET) == []
    assert box.leftovers() == []


def test_a_signal_is_told(box: Node, tmp_path: Path) -> None:
    certificate = make_certificate(str(tmp_path))
    with MailSink(Manners(tls=True, login=f"n1:{SECRET}"), certificate) as mails, HookSink() as hooks:
        declare(box, mails, hooks, certificate)
        child = box.start(*RUN, fault=Fault(HOLD, at="piece of the archive"))
        child.wait_held()
        command = Path(f"/proc/{child.pid}/cmdline").read_bytes() + Path(f"/proc/{child.pid}/environ").read_bytes()
        child.send(15)
        child.resume()
        assert child.wait().status == 1
    assert SECRET.encode() not in command
    content = json.loads(hooks.hooks[0].body)
    assert content["title"].endswith("backup failed: interrupted by SIGTERM")
    assert content["run"]["state"] == "interrupted"
    assert len(mails.mails) == 1
    assert box.leftovers() == []
