# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declaring whom runs tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from engine.errors import ConfigError, HoldfastError
from engine.system.host import Host, Paths
from engine.tasks.changes import apply_change
from engine.tasks.results import Change
from engine.tasks.targets import plan_target, read_targets, shown_secret

CHAT = {"type": "webhook", "url": "https://x/", "headers": {"Authorization": "Bearer {secret}"}}
MAIL = {"type": "smtp", "server": "mail", "from_address": "a@b", "mailto": ["c@d"], "username": "n1"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host("n1", Paths.under(str(tmp_path)))


def declare(host: Host, name: str, wanted: dict[str, Any] | None, **more: Any) -> Change:
    change = plan_target(host, name, wanted, **more)
    apply_change(host, change)
    return change


def secret_of(host: Host, name: str) -> Path:
    return Path(host.paths.notification_secret(name))


def test_a_target_is_declared_changed_and_removed(host: Host) -> None:
    wanted = {"type": "sendmail", "mailto": ["root", "a@b"], "rule": "failure"}
    planned = plan_target(host, "admins", wanted)
    assert planned.changed and not os.path.exists(host.paths.notifications_cfg)
    apply_change(host, planned)
    text = Path(host.paths.notifications_cfg).read_text(encoding="utf-8")
    assert text == "sendmail: admins\n\tmailto root,a@b\n\trule failure\n\n"
    assert not declare(host, "admins", wanted).changed
    assert declare(host, "admins", {"rule": "change"}).after == {**wanted, "name": "admins", "rule": "change"}
    assert declare(host, "admins", {"mailto": ["root"]}, purge=True).after == {
        "name": "admins",
        "type": "sendmail",
        "rule": "always",
        "mailto": ["root"],
    }
    assert declare(host, "admins", None).changed
    assert not declare(host, "admins", None).changed
    assert read_targets(host).sections == ()


def test_a_secret_is_kept_apart_and_not_shown(host: Host) -> None:
    change = declare(host, "chat", CHAT, secret="geheim")
    assert secret_of(host, "chat").read_text(encoding="utf-8") == "geheim\n"
    assert secret_of(host, "chat").stat().st_mode & 0o777 == 0o600
    assert shown_secret(change) == ("", "\tsecret (new)\n")
    assert "geheim" not in Path(host.paths.notifications_cfg).read_text(encoding="utf-8")
    assert "geheim" not in str(change)
    for again in ({}, {"secret": "geheim"}):
        assert not declare(host, "chat", CHAT, **again).changed
    other = declare(host, "chat", CHAT, secret="anders")
    assert other.changed and other.before_text == other.after_text
    assert shown_secret(other) == ("\tsecret (set)\n", "\tsecret (new)\n")
    assert secret_of(host, "chat").read_text(encoding="utf-8") == "anders\n"


def test_a_new_secret_alone_leaves_the_file_as_it_is(host: Host) -> None:
    declare(host, "chat", CHAT, secret="geheim")
    path = Path(host.paths.notifications_cfg)
    text = "# by hand\nnonsense\n" + path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    assert declare(host, "chat", CHAT, secret="anders").changed
    assert path.read_text(encoding="utf-8") == text
    assert secret_of(host, "chat").read_text(encoding="utf-8") == "anders\n"


def test_no_secret_is_written_for_a_change_that_is_refused(host: Host) -> None:
    late = plan_target(host, "chat", CHAT, secret="geheim")
    declare(host, "admins", {"type": "sendmail", "mailto": ["root"]})
    with pytest.raises(ConfigError, match="changed in the meantime"):
        apply_change(host, late)
    assert not secret_of(host, "chat").exists()


def test_a_secret_that_others_could_read_is_replaced(host: Host) -> None:
    declare(host, "chat", CHAT, secret="geheim")
    secret_of(host, "chat").chmod(0o644)
    assert declare(host, "chat", CHAT, secret="geheim").changed
    assert secret_of(host, "chat").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("wanted", [None, {"headers": {}}])
def test_a_secret_goes_when_nothing_needs_it(wanted: dict[str, Any] | None, host: Host) -> None:
    declare(host, "chat", CHAT, secret="geheim")
    change = declare(host, "chat", wanted)
    assert shown_secret(change) == ("\tsecret (set)\n", "")
    assert not secret_of(host, "chat").exists()


@pytest.mark.parametrize(
    ("wanted", "secret", "reason"),
    [
        ({}, None, "needs a type"),
        ({"type": "sendmail"}, None, "'mailto' is missing"),
        ({"type": "sendmail", "mailto": ["root"], "server": "x"}, None, "the type sendmail has no key server"),
        ({"type": "sendmail", "mailto": ["root"], "headers": {"A": "b"}}, None, "has no key headers"),
        ({"type": "sendmail", "mailto": ["root"]}, "geheim", "nothing in it uses the secret"),
        (CHAT, None, "its secret is missing"),
        (CHAT, "ge\nheim", "one line of text"),
        (CHAT, "", "one line of text"),
        (MAIL, "geh\u00e9im", "is ASCII"),
        ({**MAIL, "mode": "insecure"}, "geheim", "anybody can read"),
        ({**CHAT, "headers": {"A": "b\nC: d"}}, "geheim", "is not 'Name: value'"),
    ],
)
def test_refusals(host: Host, wanted: dict[str, Any], secret: str | None, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as info:
        plan_target(host, "one", wanted, secret=secret)
    assert "geh" not in str(info.value)
    assert not os.path.exists(host.paths.etc)


@pytest.mark.parametrize("name", ["../x", "a/b", "a", "", "a b"])
def test_a_name_leads_nowhere_else(host: Host, name: str) -> None:
    for wanted in (None, {"type": "sendmail", "mailto": ["root"]}):
        with pytest.raises(ConfigError, match="is not the name of a target"):
            plan_target(host, name, wanted)


def test_foreign_sections_survive_and_strays_are_not_lost(host: Host) -> None:
    path = Path(host.paths.notifications_cfg)
    path.parent.mkdir(parents=True)
    foreign = "gotify: phone\n\tserver x\n\n"
    path.write_text(foreign, encoding="utf-8")
    declare(host, "admins", {"type": "sendmail", "mailto": ["root"]})
    assert path.read_text(encoding="utf-8") == foreign + "sendmail: admins\n\tmailto root\n\n"
    with pytest.raises(HoldfastError, match="is the name of a section of the type gotify"):
        plan_target(host, "phone", None)
    path.write_text("nonsense\n" + foreign, encoding="utf-8")
    with pytest.raises(ConfigError, match="lines in it would be lost"):
        plan_target(host, "admins", {"type": "sendmail", "mailto": ["root"]})


def test_what_is_the_same_stays_as_people_wrote_it(host: Host) -> None:
    path = Path(host.paths.notifications_cfg)
    path.parent.mkdir(parents=True)
    path.write_text("sendmail: admins\n  rule always\n  mailto root a@b\n", encoding="utf-8")
    assert not plan_target(host, "admins", {"mailto": ["root", "a@b"]}).changed
