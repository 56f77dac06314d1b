# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ids given to guests that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine.errors import ConfigError
from engine.guests import vmids
from engine.guests.vmids import stable_vmids
from engine.system.host import Host, Paths


def test_ids_follow_from_the_guest_and_are_kept(tmp_path: Path) -> None:
    here, there = (Host("n", Paths.under(str(tmp_path / name))) for name in ("here", "there"))
    names = [f"libvirt:{number}" for number in range(50)]
    given = stable_vmids(here, names)
    assert len(set(given.values())) == 50
    assert all(100_000_000 <= vmid <= 999_999_999 for vmid in given.values())
    assert stable_vmids(there, names[:1]) == {names[0]: given[names[0]]}
    recorded = Path(here.paths.vmids)
    content = json.loads(recorded.read_text())
    recorded.write_text(json.dumps({**content, names[0]: 150}))
    assert stable_vmids(here, names[:2]) == {names[0]: 150, names[1]: given[names[1]]}


def test_two_guests_never_share_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmids, "_COUNT", 3)
    host = Host("n", Paths.under(str(tmp_path)))
    assert sorted(stable_vmids(host, ["a", "b", "c"]).values()) == [100_000_000, 100_000_001, 100_000_002]


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "x"}'])
def test_damaged_file(text: str, tmp_path: Path) -> None:
    host = Host("n", Paths.under(str(tmp_path)))
    Path(host.paths.vmids).parent.mkdir(parents=True)
    Path(host.paths.vmids).write_text(text)
    with pytest.raises(ConfigError, match=r"vmids\.json"):
        stable_vmids(host, ["a"])


def test_a_name_that_is_not_text_has_an_id_as_well(tmp_path: Path) -> None:
    host = Host("n1", Paths.under(str(tmp_path)))
    assert len(set(stable_vmids(host, ["lxc:n1/\udcff", "lxc:n1/\udcfe"]).values())) == 2
