# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who is not taken care of."""

from __future__ import annotations

from typing import Any

import pytest
from engine.tasks.coverage import coverage


def guest(vmid: int, age: int | None, *jobs: str, template: bool = False) -> dict[str, Any]:
    return {
        "vmid": vmid,
        "name": f"g{vmid}",
        "kind": "lxc",
        "newest_age": age,
        "jobs": list(jobs),
        "template": template,
        "status": "running",
    }


GUESTS = [
    guest(100, 50, "nightly"),
    guest(101, 150, "nightly", "gold"),
    guest(102, None, "nightly"),
    guest(103, 50),
    guest(104, None),
    guest(105, None, template=True),
]
JOBS: list[dict[str, Any]] = [
    {"id": "nightly", "next_runs": [{"time": "b", "epoch": 200}, {"time": "c", "epoch": 300}]},
    {"id": "off", "next_runs": []},
    {"id": "gold", "next_runs": [{"time": "a", "epoch": 100}]},
]


@pytest.mark.parametrize(("max_age", "stale"), [(None, [102, 104]), (100, [101, 102, 104]), (150, [102, 104])])
def test_examples(max_age: int | None, stale: list[int]) -> None:
    found = coverage(GUESTS, JOBS, max_age)
    assert [row["vmid"] for row in found["uncovered"]] == [103, 104]
    assert [row["vmid"] for row in found["stale"]] == stale
    assert found["stale"][0] == {
        "vmid": stale[0],
        "name": f"g{stale[0]}",
        "kind": "lxc",
        "newest_age": 150 if stale[0] == 101 else None,
    }


def test_next_runs_are_in_the_order_of_time() -> None:
    assert coverage([], JOBS, None)["next_runs"] == [
        {"job": "gold", "time": "a", "epoch": 100},
        {"job": "nightly", "time": "b", "epoch": 200},
    ]
