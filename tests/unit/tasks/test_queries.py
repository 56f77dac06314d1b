# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Queries over the list of guests."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.errors import UsageError
from engine.guests.model import GuestInfo
from engine.system.host import Host, Paths
from engine.tasks.backup_setup import selected_ids
from engine.tasks.definitions import apply_change, get_job, plan_job
from engine.tasks.queries import query_guests

GUESTS = [
    GuestInfo("qemu", 100, "web", ("gold", "prod"), "", False, ""),
    GuestInfo("lxc", 101, "db", ("gold",), "p", False, ""),
    GuestInfo("lxc", 102, "scratch", (), "", True, ""),
]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("[?contains(tags, 'gold')]", {100, 101}),
        ("[?kind == 'lxc' && !template]", {101}),
        ("[?pool == 'p'].vmid", {101}),
        ("[].name", {100, 101, 102}),
        ("[?node == 'n1' && vmid > `100`]", {101, 102}),
        ("[?tags[0] == 'none']", set()),
    ],
)
def test_examples(query: str, ids: set[int]) -> None:
    assert query_guests(query, GUESTS, "n1") == ids


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("[?contains(tags, 'gold'", "is not JMESPath"),
        ("[?starts_with(vmid, 'a')]", "cannot be answered"),
        ("length(@)", "yields 3, not a list"),
        ("foo", "yields None, not a list"),
        ("[].{a: name}", "which is no guest"),
        ("['nobody']", "which is no guest"),
    ],
)
def test_refusals(query: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        query_guests(query, GUESTS, "n1")


def test_a_job_is_resolved_when_it_runs(tmp_path: Path) -> None:
    host = Host("n1", Paths.under(str(tmp_path)))
    wanted = {"schedule": "daily", "query": "[?contains(tags,\n  'gold')]", "exclude": ["103"]}
    change = plan_job(host, "gold", wanted)
    assert "\tquery [?contains(tags,   'gold')]\n" in change.after_text
    assert "\tall 1\n" not in change.after_text
    apply_change(host, change)
    assert not plan_job(host, "gold", wanted).changed
    assert selected_ids(host, get_job(host, "gold")) == []
    folder = Path(host.paths.lxc_configs)
    folder.mkdir(parents=True)
    for vmid, tags in ((101, "gold;web"), (102, "web"), (103, "gold")):
        text = f"hostname: g{vmid}\nrootfs: local:{vmid}/x.raw\ntags: {tags}\n"
        (folder / f"{vmid}.conf").write_text(text, encoding="utf-8")
    assert selected_ids(host, get_job(host, "gold")) == [101]
    apply_change(host, plan_job(host, "gold", {"tags": ["web"]}))
    assert selected_ids(host, get_job(host, "gold")) == [101]
    apply_change(host, plan_job(host, "gold", {"schedule": "daily", "tags": ["web"]}, purge=True))
    assert selected_ids(host, get_job(host, "gold")) == [101, 102]
    with pytest.raises(UsageError, match="cannot declare job 'gold': the query"):
        plan_job(host, "gold", {"query": "[?"})
    with pytest.raises(UsageError, match="exclude each other"):
        plan_job(host, "gold", {"query": "[]", "all": True})
