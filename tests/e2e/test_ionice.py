# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run says when the disks of its guests ignore the I/O priority that was asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from helpers.guests import CT
from helpers.node import Node


@pytest.mark.parametrize(("scheduler", "ignored"), [("bfq", False), ("none", True)])
def test_schedulers(btrfs_box: Node, scheduler: str, ignored: bool) -> None:
    found = subprocess.run(
        ["findmnt", "-no", "SOURCE", btrfs_box.root / "local"], capture_output=True, text=True, check=True
    )
    disk = os.path.basename(found.stdout.strip())
    Path(f"/sys/block/{disk}/queue/scheduler").write_text(scheduler, encoding="ascii")
    with btrfs_box.mounted():
        argv = ("run", str(CT), "--storage", "disk")
        told = btrfs_box.start(*argv, "--ionice", "3").wait()
        assert told.status == 0, told.err
        assert (f"ionice 3 has no effect on disks whose I/O scheduler ignores it: {disk} (none)" in told.out) == ignored
        assert "ionice priority: 3" in next((btrfs_box.root / "disk" / "dump").glob("*.log")).read_text()
        assert "has no effect" not in btrfs_box.start(*argv).wait().out
