# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notes templates by worked examples."""

from __future__ import annotations

import pytest
from engine.errors import UsageError
from engine.rules.notes import check_notes, render_notes

VALUES = {"cluster": "clu", "guestname": "web", "node": "n1", "vmid": "105"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{guestname}}", "web"),
        (r"{{vmid}} on {{node}}\nc={{cluster}}", "105 on n1\nc=clu"),
        (r"a\\nb", r"a\nb"),
        ("{{{vmid}}}", "{105}"),
        (r"\\{{vmid}}", r"\105"),
        ("{guestname} on {node}", "web on n1"),
        ("{{ vmid }}", "{{ vmid }}"),
        ("{{}} {} {1} }{ { a }", "{{}} {} {1} }{ { a }"),
        ("back\\", "back\\"),
        ("", ""),
    ],
)
def test_examples(template: str, text: str) -> None:
    check_notes(template)
    assert render_notes(template, VALUES) == text


def test_values_are_not_looked_at_again() -> None:
    values = {**VALUES, "guestname": r"{{vmid}}\n"}
    assert render_notes("{{guestname}} {{vmid}}", values) == r"{{vmid}}\n 105"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{VMID}}", "variable 'VMID'"),
        ("{{foo}}", "variable 'foo'"),
        ("{guestnam}", "variable 'guestnam'"),
        (r"a\tb", r"escape sequence '\\\\t'"),
        (r"\t{{foo}} {{guestname}} {{bar}}", "'foo', variable 'bar'"),
        ("a\nb", "line feed"),
    ],
)
def test_what_cannot_be_filled(template: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_notes(template)
