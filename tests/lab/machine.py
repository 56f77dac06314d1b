# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laboratory's VM: a kernel that boots in seconds, a guest agent, and two disks of different kinds."""

from __future__ import annotations

import os
import tempfile

from . import kvm
from .commands import run
from .files import plain
from .image import boot_files

CONFIG = """\
agent: 1
args: -kernel {kernel} -initrd {initrd} -append "console=ttyS0 quiet"
cores: 1
kvm: {kvm}
memory: 128
name: {name}
net0: virtio=BC:24:11:00:01:00
scsi0: local:{vmid}/vm-{vmid}-disk-0.qcow2,size={size0}M
scsihw: virtio-scsi-pci
serial0: socket
smbios1: uuid=5c2f0e8e-9f0c-4a6e-8a53-2f7b1c4d0{vmid}
vga: none
virtio0: local:{vmid}/vm-{vmid}-disk-1.raw,size={size1}M
vmgenid: 0b9fd2c4-5d2e-4c0c-9a38-6a1c9c0a1{vmid}
"""
SIZES = (256, 96)
"""MiB of the two disks."""


def make(folder: str, vmid: int, name: str) -> str:
    """Make the disks in the VM's folder on the storage ``local``; returns its config."""
    kernel, initrd = boot_files()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for number, noise in enumerate((24 << 20, 4 << 20)):
            plain(os.path.join(scratch, str(number)), noise)
        raw = os.path.join(folder, f"vm-{vmid}-disk-1.raw")
        _file_system(os.path.join(scratch, "0"), os.path.join(scratch, "raw"), SIZES[0])
        _file_system(os.path.join(scratch, "1"), raw, SIZES[1])
        qcow2 = os.path.join(folder, f"vm-{vmid}-disk-0.qcow2")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", os.path.join(scratch, "raw"), qcow2)
    return CONFIG.format(
        kernel=kernel, initrd=initrd, kvm=int(kvm.usable()), name=name, vmid=vmid, size0=SIZES[0], size1=SIZES[1]
    )


def _file_system(folder: str, target: str, mib: int) -> None:
    """A raw image with an ext4 file system that holds what the folder holds."""
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", "-d", folder, target, f"{mib}M")
