# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unprivileged containers: owners are shifted on disk and the same inside, wherever they are restored."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from engine.cli import main
from helpers import guests
from helpers.guests import CT, goes_on, tree
from helpers.node import Node
from helpers.process import Child, Ended

SHIFT = 100000
MAP = f"root:{SHIFT}:65536\n"
CLONE_NEWNS = 0x20000
MAPS = (Path("/etc/subuid"), Path("/etc/subgid"))


@pytest.fixture(scope="module")
def id_maps() -> Iterator[None]:
    """What root may map; files that do not say so get a line for the time of these tests."""
    added = [path for path in MAPS if MAP not in (path.read_text(encoding="utf-8") if path.exists() else "")]
    for path in added:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(MAP)
    yield
    for path in added:
        path.write_text(path.read_text(encoding="utf-8").replace(MAP, "", 1), encoding="utf-8")


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
    # The original goes on writing its log.
    written, origin = ({name: what for name, what in tree(path).items() if name != "log"} for path in (new, old))
    assert written == origin
    assert owners(new)["odd\nname"] == (SHIFT + 1000, SHIFT + 1001)
    shifted.call("guest", "start", "201")
    assert shifted.status(201) == "running"
    shifted.call("guest", "stop", "201")
    shifted.call("restore", guest["archive"], "202", "--unprivileged", "0")
    assert owners(shifted.images / "202" / "subvol-202-disk-1.subvol")["odd\nname"] == (1000, 1001)
    assert shifted.leftovers() == []


def without_id_maps(node: Node, *args: str) -> Ended:
    """A command where root may map nothing: in its own mount namespace empty files lie over those of the system."""
    empty = node.root / "empty"
    empty.touch()

    def work() -> int:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        for path in MAPS:
            subprocess.run(["mount", "--bind", empty, path], check=True)
        return main(["--root", str(node.root), "--node", "n1", *args])

    return Child(work).wait()


def test_root_may_not_map_ids(node: Node, id_maps: None) -> None:
    guests.make_container(node, owner=SHIFT)
    remedy = f"hint: add the line {MAP.strip()} to /etc/subuid and /etc/subgid"
    for argv, status in ((("guest", "start", str(CT)), 1), (("run", str(CT), "--storage", "backup"), 3)):
        ended = without_id_maps(node, *argv)
        assert (ended.status, ended.err.splitlines()[-1]) == (status, remedy)
        assert node.leftovers() == []
    node.call("run", str(CT), "--storage", "backup")
    ended = without_id_maps(node, "restore", "backup:latest/101", "201")
    assert (ended.status, ended.err.splitlines()[-1]) == (1, remedy)
    assert node.leftovers() == []
    assert not node.config(201, "lxc").exists()
    assert not (node.images / "201").exists()
