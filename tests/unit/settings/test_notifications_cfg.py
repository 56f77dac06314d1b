# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``notifications.cfg``: what is understood, what is refused, and what survives."""

from __future__ import annotations

import pytest
from engine.settings.notifications import Target, parse_notifications_cfg, section_from_target
from engine.settings.section import write_sections

TEXT = """sendmail: admins
\tmailto root,backup@example.com
\tmailto third@example.com
\trule failure

smtp: office
\tmailto a@example.com
\tfrom-address n1@example.com
\tserver mail.example.com
\tmode starttls
\tusername n1

webhook: chat
\tdisable
\turl https://hooks.example.com/{secret}?x=1
\theader X-Source: n1: holdfast
\theader Authorization: Bearer {secret}

matcher: default
\ttarget admins
"""


def test_targets_of_each_type() -> None:
    file = parse_notifications_cfg(TEXT)
    assert file.findings == () and file.broken == {}
    admins, office, chat = file.targets.values()
    assert admins.mailto == ("root", "backup@example.com", "third@example.com")
    assert (admins.rule, admins.needs_secret, office.rule) == ("failure", False, "always")
    assert (office.mode, office.port, office.username, office.needs_secret) == ("starttls", None, "n1", True)
    assert chat.disable and chat.needs_secret
    assert chat.headers == {"X-Source": "n1: holdfast", "Authorization": "Bearer {secret}"}


def test_what_is_written_is_understood_again() -> None:
    targets = parse_notifications_cfg(TEXT).targets
    text = write_sections([section_from_target(target) for target in targets.values()])
    assert parse_notifications_cfg(text).targets == targets


def test_keys_that_are_not_known_are_told_and_kept() -> None:
    text = "sendmail: admins\n\tmailto root\n\tauthor x\n"
    file = parse_notifications_cfg(text, "n.cfg")
    (finding,) = file.findings
    assert "section 'sendmail: admins' (line 1): 'author' has no effect" in finding.message
    assert write_sections([section_from_target(file.targets["admins"])]) == text + "\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sendmail: a1\n\trule failure\n", "'mailto' is missing"),
        ("sendmail: a1\n\tmailto root\n\trule sometimes\n", "'sometimes' is not one of always, failure, change"),
        ("sendmail: a1\n\tmailto -oQ/tmp\n", "'-oQ/tmp' is not a mail address"),
        ("sendmail: a1\n\tmailto root\n\tdisable maybe\n", "disable: 'maybe' is neither yes nor no"),
        ("sendmail: a1\n\tmailto root\n\tfrom-address a\n\tfrom-address b\n", "'from-address' is given twice"),
        ("sendmail: 1a\n\tmailto root\n", "not the name of a target"),
        ("smtp: a1\n\tmailto a@b\n\tfrom-address c@d\n", "'server' is missing"),
        ("smtp: a1\n\tmailto a@b\n\tfrom-address c@d\n\tserver s\n\tport 0\n", "port: '0' is not between 1 and 65535"),
        ("smtp: a1\n\tmailto a@b\n\tfrom-address c@d\n\tserver s\n\tmode insecure\n\tusername u\n", "anybody can read"),
        ("smtp: a1\n\tmailto a@b\n\tfrom-address c@d\n\tserver s\n\tca-file ca.pem\n", "not an absolute path"),
        ("webhook: a1\n\turl ftp://x/\n", "no URL of the schemes http or https"),
        ("webhook: a1\n\turl https:///x\n", "no URL of the schemes http or https"),
        ("webhook: a1\n\turl https://u:p@x/\n", "no secret may stand before the path"),
        ("webhook: a1\n\turl https://{secret}.x/\n", "no secret may stand before the path"),
        ("webhook: a1\n\turl https://x:99999/\n", "is no URL"),
        ("webhook: a1\n\turl https://x/\n\theader no\n", "is not 'Name: value'"),
        ("webhook: a1\n\turl https://x/\n\tmailto root\n", "the type webhook has no key 'mailto'"),
    ],
)
def test_a_target_that_is_not_right_is_not_used(text: str, reason: str) -> None:
    file = parse_notifications_cfg("sendmail: good\n\tmailto root\n\n" + text)
    (broken,) = file.broken.values()
    assert reason in broken
    assert list(file.targets) == ["good"]
    assert len(file.findings) == 1


def test_defaults_are_not_written() -> None:
    target = Target("mail", "smtp", mailto=("a@b",), from_address="c@d", server="s")
    assert (
        write_sections([section_from_target(target)]) == "smtp: mail\n\tmailto a@b\n\tfrom-address c@d\n\tserver s\n\n"
    )
