# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup and restore, as people use them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from helpers.guests import CT, VM, tree
from helpers.node import Node


def test_a_container_under_a_new_id(box: Node) -> None:
    run = box.json("run", "box", "--storage", "backup", "--compress", "zstd", "--notes-template", "{guestname}")
    (guest,) = run["guests"]
    assert (guest["status"], guest["mode"], run["state"]) == ("ok", "stop", "finished")
    assert Path(guest["path"] + ".notes").read_text(encoding="utf-8") == "box"
    listing = subprocess.run(["tar", "--zstd", "-tf", guest["path"]], check=True, capture_output=True, text=True).stdout
    assert listing.splitlines()[0] == "./etc/vzdump/pct.conf"
    assert "temporary" not in listing
    plan = box.json("restore", "backup:latest/box", "201", "--check")
    assert [volume["key"] for volume in plan["volumes"]] == ["rootfs", "mp0", "mp1"]
    assert not box.config(201, "lxc").exists()
    assert box.json("restore", "backup:latest/box", "201", "--unique")["state"] == "restored"
    old, new = box.images / str(CT), box.images / "201"
    for number in (0, 1):
        assert tree(old / f"subvol-{CT}-disk-{number}.subvol") == tree(new / f"subvol-201-disk-{number}.subvol")
    assert list((new / "subvol-201-disk-2.subvol").iterdir()) == []
    replaced = box.json("restore", "backup:latest/box", "201", "--force")
    assert len(replaced["freed"]) == 3
    assert len(list(new.iterdir())) == 3
    assert box.json("run", str(CT), "--storage", "backup", "--max-age", "1h")["changed"] is False
    assert box.leftovers() == []


@pytest.mark.parametrize("compress", ["0", "zstd", "gzip", "lzo"])
def test_a_stopped_vm(compress: str, machine: Node) -> None:
    (guest,) = machine.json("run", "machine", "--storage", "backup", "--compress", compress)["guests"]
    assert (guest["status"], guest["mode"], guest["size"]) == ("ok", "stop", 40 << 20)
    assert machine.status(VM) == "stopped"
    machine.call("vma", "verify", guest["path"])
    result = machine.json("restore", guest["archive"], "200")
    drives = ["vm-{}-disk-0.qcow2", "vm-{}-disk-1.raw"]
    assert [volume["volid"] for volume in result["volumes"]] == [f"local:200/{name.format(200)}" for name in drives]
    for name in drives:
        pair = [machine.images / str(vmid) / name.format(vmid) for vmid in (VM, 200)]
        subprocess.run(["qemu-img", "compare", *pair], check=True, capture_output=True)
    text = machine.config(200, "qemu").read_text(encoding="utf-8")
    assert "scsi0: local:200/vm-200-disk-0.qcow2,size=24M" in text
    assert "66666666-2222" not in text
    machine.call("guest", "start", "200")
    assert machine.status(200) == "running"
    machine.call("guest", "stop", "200", "--force")
    assert machine.leftovers() == []


def test_the_command_in_a_python_of_its_own(box: Node) -> None:
    done = box.shell("run", str(CT), "--storage", "backup", "--json")
    assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "finished"), done.stderr
    done = box.shell("run", "nobody", "--storage", "backup")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
