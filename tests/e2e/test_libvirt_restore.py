# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Domains restored with each disk in a place of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from helpers.domains import DomainNode, back_up, make_domain
from helpers.faults import KILL, Fault
from helpers.guests import VM

TWIN = 200


@pytest.fixture
def machine(domain_node: DomainNode) -> DomainNode:
    """A stopped domain, and a folder that no storage has."""
    make_domain(domain_node)
    (domain_node.root / "shelf").mkdir()
    return domain_node


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A block device full of something else, larger than a disk."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xee" * (65 << 20))
    done = subprocess.run(["losetup", "-f", "--show", backing], check=True, capture_output=True, text=True)
    yield done.stdout.strip()
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


def same(node: DomainNode, sda: Path | str, vda: Path | str) -> bool:
    """Whether images hold what the disks of the stopped original do; a device may be larger than its disk."""
    originals = {f"vm-{VM}-disk-0.qcow2": Path(sda), f"vm-{VM}-disk-1.raw": Path(vda)}
    for name, path in originals.items():
        plain = node.root / "plain"
        subprocess.run(["qemu-img", "convert", "-O", "raw", node.images / str(VM) / name, plain], check=True)
        wanted = plain.read_bytes()
        subprocess.run(["qemu-img", "convert", "-O", "raw", path, plain], check=True)
        with plain.open("rb") as stream:
            if stream.read(len(wanted)) != wanted:
                return False
    return True


def test_each_disk_in_its_place(machine: DomainNode, loop: str) -> None:
    archive, shelf = back_up(machine)["archive"], machine.root / "shelf"
    places = ("--volume", "sda=local,format=raw", "--volume", f"vda={loop}")
    done = machine.json("restore", archive, str(TWIN), "--unique", *places)
    first = machine.images / str(TWIN) / f"vm-{TWIN}-disk-0.raw"
    assert [(volume["key"], volume["volid"], volume["format"]) for volume in done["volumes"]] == [
        ("sda", f"local:{TWIN}/vm-{TWIN}-disk-0.raw", "raw"),
        ("vda", loop, "raw"),
    ]
    assert f"{loop} is overwritten in place" in "\n".join(done["warnings"])
    assert same(machine, first, loop)
    xml = machine.daemon.virsh("dumpxml", machine.domain(TWIN))
    assert "<disk type='block' device='disk'>" in xml and f"<source dev='{loop}'/>" in xml
    # It runs from them, and its own archive goes back in its place, elsewhere.
    machine.call("guest", "start", str(TWIN))
    machine.call("run", str(TWIN), "--storage", "backup", "--mode", "snapshot")
    assert f"{loop}: it is a disk of guest {TWIN}" in machine.refused(
        "restore", archive, "201", "--unique", "--volume", f"vda={loop}", status=2
    )
    machine.call("guest", "stop", str(TWIN), "--force")
    options = ("--force", "--storage", str(shelf), "--volume", "vda=local,format=qcow2")
    done = machine.json("restore", f"backup:latest/{TWIN}", str(TWIN), *options)
    assert done["freed"] == [str(first)]
    assert f"disk vda of the replaced domain is kept: {loop}" in done["warnings"]
    assert [path.name for path in shelf.iterdir()] == [f"machine-{TWIN}-sda.raw"]
    assert [path.name for path in first.parent.iterdir()] == [f"vm-{TWIN}-disk-1.qcow2"]
    machine.call("guest", "start", str(TWIN))
    assert machine.status(TWIN) == "running"


def test_wishes_that_are_refused(machine: DomainNode) -> None:
    archive = back_up(machine)["archive"]
    for wish, why, status in (
        ("scsi0=local", "cannot place volume 'scsi0'", 2),
        ("efidisk0=local", "libvirt keeps UEFI variables and TPMs", 2),
        ("sda=nowhere", "nowhere", 2),
        ("sda=backup", "content 'images'", 1),
        ("sda=/nowhere", "there is no such folder", 1),
        ("sda=local,size=8G", "the size of a VM's disk is that of the archive", 2),
        ("sda=local,format=subvol", "no disks of VMs of the form 'subvol'", 2),
    ):
        assert why in machine.refused("restore", archive, str(TWIN), "--unique", "--volume", wish, status=status)
    assert not (machine.images / str(TWIN)).exists()


def test_what_fails_leaves_nothing_in_any_place(machine: DomainNode) -> None:
    guest = back_up(machine, "--compress", "zstd")
    shelf, path = machine.root / "shelf", Path(guest["path"])
    argv = ("restore", guest["archive"], str(TWIN), "--unique", "--volume", "sda=local", "--volume", f"vda={shelf}")
    assert machine.start(*argv, fault=Fault(KILL, at="end qemu-img")).wait().status == -9
    assert list(shelf.iterdir()) != []
    machine.call("heal")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 0xFF]) + whole[len(whole) // 2 + 1 :])
    assert "is damaged" in machine.call(*argv, status=1)
    assert machine.leftovers() == []
    assert (list(shelf.iterdir()), (machine.images / str(TWIN)).exists()) == ([], False)
    assert machine.daemon.virsh("list", "--all", "--name").split() == ["machine"]
    # Killed at the moment when the definition is in place: the restore is done, and stays.
    path.write_bytes(whole)
    assert machine.start(*argv, fault=Fault(KILL, at="libvirt defineXML")).wait().status == -9
    machine.call("heal")
    assert same(machine, machine.images / str(TWIN) / f"vm-{TWIN}-disk-0.qcow2", shelf / f"machine-{TWIN}-vda.raw")
    assert machine.leftovers() == []
    assert {row["vmid"] for row in json.loads(machine.call("guests", "--json"))} == {VM, TWIN}
