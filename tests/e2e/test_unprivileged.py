# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unprivileged containers: owners are shifted on disk and the same inside, wherever they are restored."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from helpers import guests
from helpers.guests import CT, goes_on, tree
from helpers.node import Node

SHIFT = 100000
MAP = f"root:{SHIFT}:65536\n"
MAPS = (Path("/etc/subuid"), Path("/etc/subgid"))


@pytest.fixture(scope="module")
def id_maps() -> Iterator[None]:
    """What root may map; files that do not say so get another line for the time of these tests."""
    before = {path: path.read_text(encoding="utf-8") if path.exists() else None for path in MAPS}
    for path, text in before.items():
        if MAP not in (text or ""):
            path.write_text((text or "") + MAP, encoding="utf-8")
    yield
    for path, text in before.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")


@pytest.fixture
def shifted(node: Node, id_maps: None) -> Iterator[Node]:
    """A node with a running unprivileged container on btrfs."""
    yield from guests.btrfs(node, owner=SHIFT)


def owners(path: Path) -> dict[str, tuple[int, int]]:
    return {str(item.relative_to(path)): (item.lstat().st_uid, item.lstat().st_gid) for item in path.rglob("*")}


@pytest.mark.parametrize("mode", ["snapshot", "suspend", "stop"])
def test_round_trip(mode: str, shifted: Node) -> None:
    guests.start(shifted, CT)
    (guest,) = shifted.json("run", str(CT), "--storage", "backup", "--mode", mode)["guests"]
    assert (guest["status"], guest["mode"]) == ("ok", mode)
    goes_on(shifted, CT)
    listing = subprocess.run(
        ["tar", "--numeric-owner", "-tvf", guest["path"]], check=True, capture_output=True, text=True
    )
    assert "1000/1001" in next(line for line in listing.stdout.splitlines() if "odd" in line)
    shifted.call("restore", guest["archive"], "201")
    old, new = (shifted.images / str(vmid) / f"subvol-{vmid}-disk-1.subvol" for vmid in (CT, 201))
    for path in (old / "log", new / "log"):
        path.unlink()
    assert tree(new) == tree(old)
    assert owners(new)["odd\nname"] == (SHIFT + 1000, SHIFT + 1001)
    shifted.call("guest", "start", "201")
    assert shifted.status(201) == "running"
    shifted.call("guest", "stop", "201")
    shifted.call("restore", guest["archive"], "202", "--unprivileged", "0")
    assert owners(shifted.images / "202" / "subvol-202-disk-1.subvol")["odd\nname"] == (1000, 1001)
    assert shifted.leftovers() == []


@pytest.fixture
def no_id_maps(tmp_path: Path) -> Iterator[None]:
    """Root may map nothing: empty files lie over those of the system."""
    empty = tmp_path / "empty"
    empty.touch()
    for path in MAPS:
        path.touch()
        subprocess.run(["mount", "--bind", empty, path], check=True)
    yield
    for path in MAPS:
        subprocess.run(["umount", path], check=True)
        if os.path.getsize(path) == 0:
            path.unlink()


def test_root_may_not_map_ids(node: Node, no_id_maps: None) -> None:
    guests.make_container(node, owner=SHIFT)
    for argv, status in (
        (("guest", "start", str(CT)), 1),
        (("run", str(CT), "--storage", "backup"), 3),
    ):
        complaint = node.refused(*argv, status=status)
        assert "/etc/subuid" in complaint
        assert f"root:{SHIFT}:65536" in complaint
    config = node.config(CT, "lxc")
    config.write_text(config.read_text(encoding="utf-8").replace("unprivileged: 1\n", ""), encoding="utf-8")
    node.call("run", str(CT), "--storage", "backup")
    complaint = node.refused("restore", "backup:latest/101", "201", "--unprivileged", "1", status=1)
    assert f"root:{SHIFT}:65536" in complaint
    assert not node.config(201, "lxc").exists()
    assert not (node.images / "201").exists()
