# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``vzdump.conf``: reading what people wrote, and changing it without losing any of it."""

from __future__ import annotations

from typing import Any

import pytest
from engine.settings.vzdump_conf import edit_vzdump_conf, parse_vzdump_conf
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = """# our defaults
 zstd:  0
storage:nas

exclude-path: '/a b' /c
exclude-path: *.iso
#mode: stop
performance: max-workers=4
mailto: root, a@b
bwlimit: 5
bwlimit: 6
unheard-of: x
"""


def test_a_file() -> None:
    options, warnings = parse_vzdump_conf(TEXT)
    assert options == {
        "zstd": 0,
        "storage": "nas",
        "exclude_path": ("/a b", "/c", "*.iso"),
        "performance": {"max-workers": 4},
        "mailto": ("root", "a@b"),
        "bwlimit": 6,
    }
    assert warnings == ["vzdump.conf line 12: ignored, there is no option 'unheard-of'"]


@pytest.mark.parametrize(
    ("text", "options", "warning"),
    [
        ("", {}, None),
        ("mailto:", {"mailto": ()}, None),
        ("remove: yes", {"remove": True}, None),
        ("fleecing: 1,storage=fast", {"fleecing": {"enabled": True, "storage": "fast"}}, None),
        ("storage: a\ndumpdir: /x", {"storage": "a"}, "both 'storage' and 'dumpdir' are set, 'dumpdir' is ignored"),
        ("dumpdir: /x", {"dumpdir": "/x"}, None),
        ("mode: warp", {}, "line 1: ignored, option mode"),
        ("mode: stop\nmode: warp", {}, "line 2: ignored, option mode"),
        ("prune-backups: keep-last=x", {}, "retention"),
        ("compress zstd", {}, "line 1: ignored, it is not 'key: value': compress zstd"),
        ("exclude-path: 'a", {}, "exclude-path: No closing quotation"),
        ("exclude-path: a\x0cb \u2028", {"exclude_path": ("a\x0cb",)}, None),
        ("mode: stop\r\nzstd: 2\r\n", {"mode": "stop", "zstd": 2}, None),
        ("vmid: 100", {}, "there is no option 'vmid'"),
    ],
)
def test_lines(text: str, options: dict[str, Any], warning: str | None) -> None:
    found, warnings = parse_vzdump_conf(text)
    assert found == options
    assert len(warnings) == (warning is not None)
    assert warning is None or warning in warnings[0]


def test_a_change_keeps_comments_order_and_foreign_lines() -> None:
    changes = {"zstd": 2, "bwlimit": None, "exclude_path": ["/d e"], "mode": "stop", "protected": True}
    assert edit_vzdump_conf(TEXT, changes) == (
        "# our defaults\nzstd: 2\nstorage:nas\n\nexclude-path: '/d e'\n#mode: stop\nperformance: max-workers=4\n"
        "mailto: root, a@b\nunheard-of: x\nmode: stop\nprotected: 1\n"
    )
    assert edit_vzdump_conf(TEXT, {}) == TEXT
    assert edit_vzdump_conf("", {"mailto": ()}) == "mailto:\n"


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["stop", "suspend"]),
        "remove": st.booleans(),
        "bwlimit": st.integers(0, 1000),
        "performance": st.just({"max-workers": 4, "pbs-entries-max": 5}),
        "fleecing": st.sampled_from([{"enabled": False}, {"enabled": True, "storage": "f"}]),
        "prune_backups": st.sampled_from([{"keep-last": 3, "keep-daily": 1}, {"keep-all": 1}]),
        "exclude_path": st.lists(
            st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), min_size=1, max_size=8),
            min_size=1,
            max_size=3,
        ).map(tuple),
        "mailto": st.sampled_from([(), ("root", "a@b")]),
        "notes_template": st.sampled_from([r"{{guestname}}\n{{vmid}}", "# a: b"]),
    },
)


@settings(max_examples=80, deadline=None)
@given(OPTIONS, OPTIONS)
def test_round_trip(first: dict[str, Any], second: dict[str, Any]) -> None:
    text = edit_vzdump_conf("", first)
    assert parse_vzdump_conf(text) == (first, [])
    changed = edit_vzdump_conf(text, second)
    assert parse_vzdump_conf(changed) == ({**first, **second}, [])
    assert parse_vzdump_conf(edit_vzdump_conf(changed, dict.fromkeys(second))) == (
        {key: value for key, value in first.items() if key not in second},
        [],
    )
