# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests a backup takes, by worked examples."""

from __future__ import annotations

from typing import Any

import pytest
from engine.errors import UsageError
from engine.rules.selection import GuestRef, Selection, change_selection, check_selection, find, select

GUESTS = [
    *(
        GuestRef(vmid, f"g{vmid}", "qemu", "node1", "gold" if vmid < 102 else "", ("web", "prod") if vmid > 111 else ())
        for vmid in (113, 100, 101, 112)
    ),
    *(GuestRef(vmid, f"g{vmid}", "lxc", "node2", "gold" if vmid < 202 else "") for vmid in (200, 201, 212, 213)),
]


def chosen(here: str = "node1", **wanted: Any) -> Selection:
    return select(GUESTS, here=here, **wanted)


@pytest.mark.parametrize(
    ("wanted", "guests", "skipped"),
    [
        ({"all": True}, (100, 101, 112, 113), (200, 201, 212, 213)),
        ({"exclude": [100, "102", 200, 202]}, (101, 112, 113), (201, 212, 213)),
        ({"exclude": [100, 102, 200, 202], "node": "node1"}, (101, 112, 113), ()),
        ({"all": True, "node": "node2"}, (), ()),
        ({"vmid": [100, 201, 212]}, (100,), (201, 212)),
        ({"vmid": [201, 212], "node": "node1"}, (), ()),
        ({"vmid": [201, 212]}, (), (201, 212)),
        ({"pool": "gold"}, (100, 101), (200, 201)),
        ({"vmid": ["g112", "0100", " 101 "]}, (100, 101, 112), ()),
        ({"vmid": [100, 100, "g100"]}, (100,), ()),
        ({"vmid": [100, 0, "000"]}, (100,), ()),
        ({"tags": ["web", "db"]}, (112, 113), ()),
        ({"tags": ["prod"], "exclude": [112]}, (113,), ()),
        ({"tags": ["db"]}, (), ()),
        ({"found": {100, 200}}, (100,), (200,)),
        ({"found": {100, 113}, "tags": ["web"]}, (113,), ()),
        ({"found": set()}, (), ()),
        ({"exclude": ["g100", "no such guest"]}, (101, 112, 113), (200, 201, 212, 213)),
    ],
)
def test_examples(wanted: dict[str, Any], guests: tuple[int, ...], skipped: tuple[int, ...]) -> None:
    assert chosen(**wanted) == Selection(guests, skipped)


def test_guests_that_do_not_exist_are_told_and_stop_nothing() -> None:
    assert chosen(vmid=[100, 201, 7654, "typo", "\u00b2"]) == Selection((100,), (201,), ("7654", "typo", "\u00b2"))
    assert chosen(here="elsewhere", vmid=[7654], node="node1") == Selection()


@pytest.mark.parametrize(("other", "value"), [("exclude", [100]), ("all", True)])
def test_a_pool_is_taken_as_a_whole(other: str, value: Any) -> None:
    found = chosen(pool="gold", **{other: value})
    assert (found.guests, found.skipped) == ((100, 101), (200, 201))
    assert found.warnings == (f"{other!r} has no effect beside 'pool': every member of 'gold' is taken",)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "no guest is selected"),
        ({"vmid": [100], "all": True}, "'vmid' and 'all' exclude each other"),
        ({"vmid": [100], "exclude": [101]}, "'vmid' and 'exclude' exclude each other"),
        ({"vmid": [100], "pool": "gold"}, "'vmid' and 'pool' exclude each other"),
        ({"vmid": [100], "all": True, "node": "elsewhere"}, "exclude each other"),
        ({"pool": "silver"}, "no guest in the pool 'silver'"),
    ],
)
def test_refusals(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen(**wanted)


def test_an_id_wins_over_a_name_and_a_name_has_to_be_unique() -> None:
    guests = [GuestRef(100, "web", "qemu"), GuestRef(101, "100", "qemu"), GuestRef(102, "web", "lxc")]
    assert find(guests, "100") == 100
    assert find(guests, "103") is None
    with pytest.raises(UsageError, match=r"several guests \(100, 102\)"):
        find(guests, "web")


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ({"all": True, "exclude": ("1",)}, {"vmid": ("2",)}, {"vmid": ("2",)}),
        ({"pool": "p"}, {"vmid": ("2",)}, {"vmid": ("2",)}),
        ({"vmid": ("1",), "node": "a"}, {"all": True}, {"all": True, "node": "a"}),
        ({"pool": "p"}, {"all": True}, {"all": True}),
        ({"all": True, "exclude": ("1",)}, {"all": True}, {"all": True, "exclude": ("1",)}),
        ({"vmid": ("1",)}, {"exclude": ("2",)}, {"exclude": ("2",), "all": True}),
        ({"all": True}, {"exclude": ("2",)}, {"exclude": ("2",), "all": True}),
        ({"all": True, "exclude": ("1",)}, {"pool": "p"}, {"pool": "p"}),
        ({"vmid": ("1",)}, {"node": "b"}, {"vmid": ("1",), "node": "b"}),
        ({"all": True, "exclude": ("1",)}, {"exclude": ()}, {"all": True}),
        ({}, {"all": False}, {}),
        ({"vmid": ("1",)}, {}, {"vmid": ("1",)}),
    ],
)
def test_one_way_of_selecting_replaces_another(
    before: dict[str, Any], changes: dict[str, Any], after: dict[str, Any]
) -> None:
    assert change_selection(before, changes) == after


def test_ways_that_are_set_together_are_refused_not_dropped() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        check_selection(change_selection({}, {"vmid": ("1",), "all": True}))
