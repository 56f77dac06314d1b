# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the disks of a VM are restored to, and what else an archive may hold."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from engine.formats.vma_writer import VmaWriter
from engine.stream.sink import open_sink
from helpers import guests
from helpers.guests import VM
from helpers.node import Node
from helpers.vms import TWIN, back_up, restored, set_config

CLUSTER = 65536
DISK = os.urandom(3 * CLUSTER) + bytes(70 * CLUSTER) + os.urandom(CLUSTER + 512)
NAME = "vzdump-qemu-300-2026_01_01-00_00_00.vma"
CONFIG = """#qmdump#map:scsi0:drive-scsi0:local:raw:
memory: 32
name: saved
scsi0: local:300/vm-300-disk-0.raw,size=5M
vmstate: local:300/vm-300-state-suspend.raw
lock: suspended
"""
RULES = "[OPTIONS]\nenable: 1\n[RULES]\nIN SSH(ACCEPT) -i net0\n"


def saved_machine(node: Node, compression: str = "zst") -> str:
    """An archive as old versions of Proxmox VE made it of a machine with its memory, with more files than known."""
    node.dump.mkdir(parents=True, exist_ok=True)
    name = f"{NAME}.{compression}" if compression else NAME
    files = [("qemu-server.conf", CONFIG), ("qemu-server.fw", RULES), ("notes.txt", "who knows")]
    with open_sink(str(node.dump / name), compression) as sink:
        configs = [(file, text.encode()) for file, text in files]
        devices = [("drive-scsi0", len(DISK)), ("vmstate", 2 * CLUSTER)]
        vma = VmaWriter(sink.write, bytes(16), 1_770_000_000, configs, devices)
        vma.write_clusters(2, 0, b"\7" * CLUSTER)
        vma.write_clusters(1, 0, DISK)
        vma.write_clusters(2, 1, b"\7" * CLUSTER)
        vma.close()
    return f"backup:backup/{name}"


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A block device full of something else, larger than a disk."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xee" * (len(DISK) // 4096 + 16) * 4096)
    done = subprocess.run(["losetup", "-f", "--show", backing], check=True, capture_output=True, text=True)
    yield Path(done.stdout.strip())
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)


@pytest.mark.parametrize("compression", ["", "zst", "gz", "lzo"])
def test_memory_and_unknown_files_are_left_out_and_the_firewall_kept(compression: str, node: Node) -> None:
    archive = saved_machine(node, compression)
    result = node.json("restore", archive, str(TWIN))
    assert (node.images / str(TWIN) / "vm-200-disk-0.raw").read_bytes() == DISK
    assert sorted(path.name for path in (node.images / str(TWIN)).iterdir()) == ["vm-200-disk-0.raw"]
    warnings = "\n".join(result["warnings"])
    assert "the memory of the machine in the archive is left out" in warnings
    assert "notes.txt in the archive is of no use here" in warnings
    assert result["size"] == len(DISK)
    text = node.config(TWIN, "qemu").read_text(encoding="utf-8")
    assert "vmstate" not in text and "lock" not in text
    rules = node.root / "etc" / "firewall" / "200.fw"
    assert rules.read_text(encoding="utf-8") == RULES
    (verified,) = node.json("verify", archive)["archives"]
    assert (verified["state"], [volume["key"] for volume in verified["volumes"]]) == ("unknown", ["scsi0"])
    # They travel on with the next backup.
    (guest,) = node.json("run", str(TWIN), "--storage", "backup")["guests"]
    assert [config["name"] for config in node.json("vma", "info", guest["path"])["configs"]] == [
        "qemu-server.conf",
        "qemu-server.fw",
    ]
    rules.write_text("others", encoding="utf-8")
    node.call("restore", guest["archive"], str(TWIN), "--force")
    assert rules.read_text(encoding="utf-8") == RULES


def test_a_failed_restore_leaves_the_firewall_as_it_was(node: Node) -> None:
    archive = saved_machine(node, "")
    rules = node.root / "etc" / "firewall" / "200.fw"
    rules.parent.mkdir()
    rules.write_text("others", encoding="utf-8")
    path = node.dump / NAME
    path.write_bytes(path.read_bytes()[:-CLUSTER])
    node.refused("restore", archive, str(TWIN), status=1)
    assert rules.read_text(encoding="utf-8") == "others"
    assert not node.config(TWIN, "qemu").exists()


def test_the_firewall_of_a_container(box: Node) -> None:
    rules = box.root / "etc" / "firewall"
    rules.mkdir()
    (rules / f"{guests.CT}.fw").write_text(RULES, encoding="utf-8")
    box.call("run", str(guests.CT), "--storage", "backup", "--compress", "zstd")
    box.call("restore", "backup:latest/box", "201")
    assert (rules / "201.fw").read_text(encoding="utf-8") == RULES
    assert not list((box.images / "201").glob("*/etc/vzdump"))


def compared(one: Path, other: Path) -> None:
    subprocess.run(["qemu-img", "compare", str(one), str(other)], check=True, capture_output=True)


def test_each_disk_in_a_place_of_its_own(machine: Node) -> None:
    guest = back_up(machine, "--compress", "zstd")
    with machine.mounted() as disk:
        places = ["--volume", "scsi0=disk,format=raw", "--volume", "virtio0=local,format=qcow2"]
        plan = machine.json("restore", guest["archive"], str(TWIN), *places, "--check")
        wanted = ["disk:200/vm-200-disk-0.raw", "local:200/vm-200-disk-1.qcow2"]
        assert [volume["volid"] for volume in plan["volumes"]] == wanted
        result = machine.json("restore", guest["archive"], str(TWIN), *places)
        assert [volume["volid"] for volume in result["volumes"]] == wanted
        old = machine.images / str(VM)
        compared(old / "vm-100-disk-0.qcow2", disk / "images" / "200" / "vm-200-disk-0.raw")
        compared(old / "vm-100-disk-1.raw", machine.images / "200" / "vm-200-disk-1.qcow2")
        # Only what the guest wrote takes room.
        for volume in result["volumes"]:
            assert 0 < volume["allocated"] < volume["size"]
        log = (machine.root / "log" / "restore-200.log").read_text(encoding="utf-8")
        assert "scsi0: takes " in log
        machine.call("guest", "start", str(TWIN))
        machine.call("guest", "stop", str(TWIN), "--force")
    for wish, why in (
        ("sata3=local", "the archived config does not have it"),
        ("scsi0=local,format=subvol", "no disks of VMs of the form 'subvol'"),
        ("scsi0=local,size=1G", "the size of a VM's disk is that of the archive"),
        ("scsi0=nowhere", "storage 'nowhere' does not exist"),
    ):
        assert why in machine.refused("restore", guest["archive"], "201", "--volume", wish, status=2)


def test_a_block_device(machine: Node, loop: Path) -> None:
    archive = saved_machine(machine)
    before = loop.read_bytes()
    result = machine.json("restore", archive, str(TWIN), "--volume", f"scsi0={loop}")
    assert f"{loop} is overwritten in place" in "\n".join(result["warnings"])
    after = loop.read_bytes()
    assert after[: len(DISK)] == DISK
    assert after[len(DISK) :] == before[len(DISK) :]
    assert f"scsi0: {loop},size=" in machine.config(TWIN, "qemu").read_text(encoding="utf-8")
    assert not (machine.images / str(TWIN)).exists()
    assert f"{loop}: it is a disk of guest 200" in machine.refused(
        "restore", archive, "201", "--volume", f"scsi0={loop}", status=2
    )
    # A backup of it, and the way back over itself.
    (guest,) = machine.json("run", str(TWIN), "--storage", "backup", "--compress", "zstd")["guests"]
    loop.write_bytes(before)
    machine.call("restore", guest["archive"], str(TWIN), "--force", "--volume", f"scsi0={loop}")
    assert loop.read_bytes() == after


def test_block_devices_that_are_refused(node: Node, loop: Path, tmp_path: Path) -> None:
    archive = saved_machine(node)
    untouched = loop.read_bytes()
    plain = tmp_path / "file"
    plain.write_bytes(b"x")
    for path, why in (
        (plain, "it is no block device"),
        (tmp_path / "none", "No such file or directory"),
        (Path("/dev/null"), "it is no block device"),
    ):
        assert why in node.refused("restore", archive, str(TWIN), "--volume", f"scsi0={path}", status=1)
    small = tmp_path / "small"
    small.write_bytes(bytes(1 << 20))
    done = subprocess.run(["losetup", "-f", "--show", small], check=True, capture_output=True, text=True)
    try:
        complaint = node.refused("restore", archive, str(TWIN), "--volume", f"scsi0={done.stdout.strip()}", status=1)
        assert "the disk needs at least" in complaint
        subprocess.run(["mkfs.ext4", "-q", done.stdout.strip()], check=True)
        with node.mounted():
            subprocess.run(["mount", done.stdout.strip(), node.root / "local"], check=True)
            complaint = node.refused(
                "restore", archive, str(TWIN), "--volume", f"scsi0={done.stdout.strip()}", status=1
            )
            subprocess.run(["umount", node.root / "local"], check=True)
        assert "Device or resource busy" in complaint
    finally:
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)
    path = node.dump / f"{NAME}.zst"
    path.write_bytes(path.read_bytes()[:5000])
    node.refused("restore", archive, str(TWIN), "--volume", f"scsi0={loop}", status=1)
    assert loop.read_bytes() == untouched
    assert not node.config(TWIN, "qemu").exists()


def test_btrfs_and_sparse(btrfs_box: Node) -> None:
    archive = saved_machine(btrfs_box)
    (volume,) = btrfs_box.json("restore", archive, str(TWIN))["volumes"]
    path = btrfs_box.images / str(TWIN) / "vm-200-disk-0.raw"
    assert path.read_bytes() == DISK
    assert volume["allocated"] == path.stat().st_blocks * 512 < len(DISK) // 2


def test_slower_than_it_could_be(node: Node) -> None:
    archive = saved_machine(node)
    began = time.monotonic()
    node.call("restore", archive, str(TWIN), "--bwlimit", "200")
    # What is stored of the disk and the memory are some 420 KiB.
    assert time.monotonic() - began > 1.5


def test_unique_and_overrides(machine: Node) -> None:
    identity, mac = "11111111-1111-1111-1111-111111111111", "BC:24:11:00:00:01"
    set_config(machine, f"net0: virtio={mac},bridge=none0", f"smbios1: uuid={identity}")
    guest = back_up(machine)
    restored(machine, guest)
    same = machine.config(TWIN, "qemu").read_text(encoding="utf-8")
    assert mac in same and identity in same and "66666666-2222" not in same
    machine.call("restore", guest["archive"], "201", "--unique", "--set", "memory=48", "--delete", "boot")
    other = machine.config(201, "qemu").read_text(encoding="utf-8")
    assert "virtio=BC:24:11:" in other and mac not in other and identity not in other
    assert "memory: 48" in other and "boot:" not in other
