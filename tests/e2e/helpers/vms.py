# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of the VM, and looking at what they hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from helpers import guests
from helpers.guests import VM, Monitor
from helpers.node import Node
from helpers.process import wait_for

TWIN = 200


def back_up(node: Node, *options: str, status: int = 0) -> dict[str, Any]:
    """The outcome of a backup of the VM; whatever it is, nothing may be left behind."""
    ended = node.start("run", str(VM), "--storage", "backup", *options, "--json").wait()
    assert ended.status == status, ended.err
    assert node.leftovers() == []
    (guest,) = json.loads(ended.out)["guests"]
    return dict(guest)


def set_config(node: Node, *lines: str, without: tuple[str, ...] = ()) -> None:
    """Add lines to the VM's config; keys that are there already, or named by ``without``, go."""
    path = node.config(VM, "qemu")
    gone = {*without, *(line.partition(":")[0] for line in lines)}
    kept = [line for line in path.read_text().splitlines() if line.partition(":")[0] not in gone]
    path.write_text("".join(f"{line}\n" for line in [*kept, *lines]))


def restored(node: Node, guest: dict[str, Any]) -> Path:
    """Restore an archive as another VM; returns the folder of its volumes."""
    if node.config(TWIN, "qemu").exists():
        node.config(TWIN, "qemu").unlink()
        shutil.rmtree(node.images / str(TWIN))
    node.call("restore", guest["archive"], str(TWIN), "--trust-config")
    return node.images / str(TWIN)


def of_one_instant(node: Node, guest: dict[str, Any]) -> None:
    """An archive of the VM while it wrote holds both disks as they were at one instant."""
    restored(node, guest)
    assert guests.numbers(node, TWIN).one_instant


def writes_on(node: Node) -> None:
    """The VM writes at this moment, while a backup is in it."""

    def writes() -> int:
        with Monitor(node) as monitor:
            return sum(int(device["stats"]["wr_operations"]) for device in monitor.execute("query-blockstats"))

    before = writes()
    wait_for(lambda: writes() > before + 4, "the VM to write", 10)
