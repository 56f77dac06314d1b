# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of a VM's disks go into its archive, whatever they are, and what happens when one changes meanwhile."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from helpers import guests
from helpers.guests import VM, Monitor
from helpers.node import Node
from helpers.process import wait_for
from helpers.vms import TWIN, back_up, restored, set_config

ODD = (5 << 20) + 3 * 512
"""No multiple of 64 KiB, nor of 4 KiB."""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[str]:
    """A block device."""
    backing = tmp_path / "backing"
    backing.write_bytes(os.urandom(1 << 20) + bytes(7 << 20))
    device = subprocess.run(["losetup", "-f", "--show", backing], check=True, capture_output=True, text=True)
    yield device.stdout.strip()
    subprocess.run(["losetup", "-d", device.stdout.strip()], check=True)


def raw(node: Node, name: str, data: bytes) -> str:
    path = node.images / str(VM) / name
    path.write_bytes(data)
    return f"local:{VM}/{name}"


def still(path: Path) -> bytes:
    """The content of a disk without the sectors that the system of the VM writes."""
    data = bytearray(path.read_bytes())
    for offset in guests.SECTORS:
        data[offset : offset + 512] = bytes(len(data[offset : offset + 512]))
    return bytes(data)


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_every_kind_of_disk(machine: Node, loop: str, running: bool) -> None:
    odd = raw(machine, "vm-100-disk-2.raw", os.urandom(ODD))
    qcow2 = machine.images / str(VM) / "vm-100-disk-3.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, str(ODD)], check=True)
    iso = machine.root / "local" / "template" / "iso"
    iso.mkdir(parents=True)
    (iso / "cd.iso").write_bytes(bytes(4096))
    set_config(
        machine,
        "ide0: none,media=cdrom",
        "ide2: local:100/vm-100-cloudinit.qcow2,media=cdrom",
        f"sata0: {odd}",
        f"sata1: local:{VM}/vm-100-disk-3.qcow2",
        "sata5: local:iso/cd.iso,media=cdrom",
        f"scsi1: {raw(machine, 'vm-100-disk-4.raw', bytes(1 << 20))},backup=0",
        f"scsi10: {loop}",
        f"scsi2: {raw(machine, 'vm-100-disk-5.raw', b'x' * 4096)}",
        f"unused0: local:{VM}/vm-100-disk-6.raw",
        f"efidisk0: {raw(machine, 'vm-100-disk-7.raw', bytes(4096))}",
    )
    if running:
        guests.start(machine, VM)
    guest = back_up(machine, "--compress", "zstd")
    assert guest["status"] == "ok", guest["error"]
    assert [disk["key"] for disk in guest["disks"]] == ["sata0", "sata1", "scsi0", "scsi10", "scsi2", "virtio0"]
    folder = restored(machine, guest)
    new = {path.stat().st_size: path for path in folder.iterdir()}
    assert still(new[ODD]) == still(machine.images / str(VM) / "vm-100-disk-2.raw")
    assert still(new[8 << 20]) == still(Path(loop))
    log = Path(guest["log"]).read_text()
    assert "include disk scsi10" in log
    for key in ("scsi1", "efidisk0", "unused0"):
        assert f"exclude disk {key} " in log
    assert "ide2" not in log
    config = machine.config(TWIN, "qemu").read_text()
    assert "unused0" not in config


def test_controllers_with_and_without_iothreads(machine: Node) -> None:
    set_config(
        machine,
        "scsihw: virtio-scsi-single",
        f"scsi30: {raw(machine, 'vm-100-disk-2.raw', bytes(1 << 20))}",
        f"virtio15: {raw(machine, 'vm-100-disk-3.raw', bytes(1 << 20))}",
    )
    guests.start(machine, VM)
    with Monitor(machine) as monitor:
        monitor.execute("stop")
    guest = back_up(machine)
    assert guest["mode"] == "snapshot"
    machine.call("guest", "stop", str(VM), "--force")
    new = sorted(restored(machine, guest).iterdir())
    old = [
        machine.images / str(VM) / name
        for name in ("vm-100-disk-0.qcow2", *(f"vm-100-disk-{n}.raw" for n in (2, 1, 3)))
    ]
    for pair in zip(old, new):
        subprocess.run(["qemu-img", "compare", *pair], check=True, capture_output=True)
    for key, line in (("scsi0", "vm-100-disk-0.qcow2,iothread=1"), ("virtio0", "vm-100-disk-1.raw,iothread=1")):
        set_config(machine, f"{key}: local:{VM}/{line}")
        guests.start(machine, VM)
        pid = guests.qemu_pid(machine)
        for mode in ("snapshot", "stop"):
            guest = back_up(machine, "--mode", mode, status=3)
            assert f"{key} has an iothread" in guest["error"]["message"]
            guests.goes_on(machine, VM)
            assert guests.qemu_pid(machine) == pid
        machine.call("guest", "stop", str(VM), "--force")
        set_config(machine, f"{key}: local:{VM}/{line.partition(',')[0]}")


def test_uefi_and_tpm(machine: Node) -> None:
    variables = Path("/usr/share/OVMF/OVMF_VARS_4M.fd").read_bytes()
    efi = raw(machine, "vm-100-disk-2.raw", variables.ljust(1 << 20, b"\0"))
    set_config(
        machine,
        "machine: q35",
        "bios: ovmf",
        f"efidisk0: {efi},efitype=4m,size=1M",
        f"tpmstate0: {raw(machine, 'vm-100-disk-3.raw', bytes(4 << 20))},version=v2.0,size=4M",
    )
    stopped = back_up(machine)
    sizes = {disk["key"]: disk["size"] for disk in stopped["disks"]}
    assert list(sizes) == ["efidisk0", "scsi0", "tpmstate0", "virtio0"]
    assert (sizes["efidisk0"], sizes["tpmstate0"]) == (540672, 4 << 20)
    machine.call("guest", "start", str(VM))
    for guest in (stopped, back_up(machine)):
        folder = restored(machine, guest)
        copy = folder / "vm-200-disk-0.raw"
        assert copy.stat().st_size == 540672
        assert copy.read_bytes()[:32] == variables[:32]
    # The firmware and the TPM take what was restored.
    machine.call("guest", "stop", str(VM), "--force")
    set_config(machine, without=("args",))
    machine.call("guest", "start", str(TWIN))
    assert machine.status(TWIN) == "running"
    machine.call("guest", "stop", str(TWIN), "--force")


def test_a_tpm_starts_again_with_its_guest(machine: Node) -> None:
    state = raw(machine, "vm-100-disk-2.raw", bytes(4 << 20))
    set_config(machine, f"tpmstate0: {state},version=v2.0,size=4M")
    guests.start(machine, VM)
    for _number in range(3):
        guest = back_up(machine, "--mode", "stop")
        assert guest["status"] == "ok", guest["error"]
        guests.goes_on(machine, VM)
        wait_for(lambda: "up" in guests.console(machine), "the VM to boot again")


def test_a_disk_that_changes_during_the_copy(machine: Node) -> None:
    guests.start(machine, VM)
    child = machine.start("run", str(VM), "--storage", "backup", "--compress", "0", "--bwlimit", "2048")
    wait_for(lambda: any(path.stat().st_size for path in machine.dump.glob("*.dat")), "the archive to grow")
    with Monitor(machine) as monitor:
        refusal = monitor.refused("block_resize", **{"node-name": "drive-scsi0", "size": 48 << 20})
        assert "bk-cbw-drive-scsi0" in refusal
        monitor.execute("device_del", id="scsi0")
        ended = child.wait()
        assert ended.status == 0, ended.err
        # What was unplugged was captured before; nothing of the backup stays with it.
        names = [node["node-name"] for node in monitor.execute("query-named-block-nodes", flat=True)]
        assert [name for name in names if name.startswith("bk-")] == []
    assert machine.leftovers() == []
    assert "has no disk scsi0" in back_up(machine, status=3)["error"]["message"]
