# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laboratory's containers: a static busybox as root file system, mount points of all kinds, and a writer."""

from __future__ import annotations

import os
import shutil

from .commands import run
from .files import awkward, plain
from .guest import WRITER

CONFIG = """\
arch: amd64
hostname: {name}
memory: 64
mp0: {storage}:{vmid}/subvol-{vmid}-disk-1.subvol,mp=/data,backup=1,size=1G
mp1: {storage}:{vmid}/subvol-{vmid}-disk-2.subvol,mp=/scratch,backup=0,size=1G
mp2: {bind},mp=/host
ostype: unmanaged
rootfs: {storage}:{vmid}/subvol-{vmid}-disk-0.subvol,size=1G
"""
INITTAB = """\
::sysinit:/bin/mkdir -p /var/log
::once:/bin/writer /srv /data
"""
FOLDERS = (
    "bin",
    "sbin",
    "dev",
    "proc",
    "sys",
    "etc",
    "root",
    "run",
    "tmp",
    "var/tmp",
    "srv",
    "data",
    "scratch",
    "host",
)


def make(folder: str, storage: str, vmid: int, name: str, bind: str) -> str:
    """Make the volumes in the guest's folder on a storage, and the host folder ``bind``; returns the config."""
    root, data, scratch = (_volume(folder, vmid, number) for number in range(3))
    for name_inside in FOLDERS:
        os.makedirs(os.path.join(root, name_inside))
    busybox = os.path.join(root, "bin", "busybox")
    shutil.copy(shutil.which("busybox") or "/bin/busybox", busybox)
    for applet in run(busybox, "--list").split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(root, "bin", applet))
    os.symlink("../bin/busybox", os.path.join(root, "sbin", "init"))
    for path, text, mode in (
        ("bin/writer", WRITER, 0o755),
        ("etc/inittab", INITTAB, 0o644),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
        ("tmp/left out", "temporary files are not part of a backup\n", 0o644),
    ):
        target = os.path.join(root, path)
        if os.path.islink(target):
            os.unlink(target)
        with open(target, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(target, mode)
    for volume, noise in ((root, 8 << 20), (data, 4 << 20)):
        plain(os.path.join(volume, "things"), noise)
        awkward(os.path.join(volume, "awkward"))
    with open(os.path.join(scratch, "not in a backup"), "w", encoding="ascii"):
        pass
    os.makedirs(bind, exist_ok=True)
    with open(os.path.join(bind, "of the host"), "w", encoding="ascii") as stream:
        stream.write("never in a backup\n")
    return CONFIG.format(storage=storage, vmid=vmid, name=name, bind=bind)


def _volume(folder: str, vmid: int, number: int) -> str:
    path = os.path.join(folder, f"subvol-{vmid}-disk-{number}.subvol")
    if run("stat", "-f", "-c", "%T", folder).strip() == "btrfs":
        run("btrfs", "-q", "subvolume", "create", path)
    else:
        os.mkdir(path)
    return path
