# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real guests that start in a moment: a container of busybox, and a VM whose whole system is a boot sector."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from engine.guests.registry import Guest
from engine.tasks.guests import find_guest, guest_table, open_by_info

from helpers.node import Node
from helpers.process import wait_for

CT, VM = 101, 100

_CT_CONFIG = """arch: amd64
hostname: box
memory: 64
rootfs: local:101/subvol-101-disk-0.subvol,size=1G
mp0: local:101/subvol-101-disk-1.subvol,mp=/data,backup=1,size=1G
mp1: local:101/subvol-101-disk-2.subvol,mp=/scratch,size=1G
"""
_INIT = """#!/bin/sh
trap 'exit 0' PWR
n=0
while :; do
    n=$((n+1))
    echo $n >>/log
    echo $n >>/data/log
    sleep 0.05 &
    wait $! || exit 1
done
"""
_VM_CONFIG = """args: -qmp unix:{watch},server=on,wait=off
boot: order=scsi0
kvm: 0
memory: 32
name: machine
scsi0: local:{vmid}/vm-{vmid}-disk-0.qcow2,size=24M
scsihw: virtio-scsi-pci
serial0: socket
vga: none
virtio0: local:{vmid}/vm-{vmid}-disk-1.raw,size=16M
vmgenid: 66666666-2222-3333-4444-555555555555
"""

# The system of the VM. With each tick of the timer (18 a second) it writes the next number into one sector of the first
# disk, then into the same sector of the second; 128 sectors take turns, 64 KiB apart. It says "up" on the serial port
# when it begins, and switches itself off when the power button is pressed.
#
#   cli; xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov sp, 0x7c00
#   mov dword [0x8004], 'HFST'                                  ; the sector: number, mark
#   mov dx, 0x602; in ax, dx; or ah, 1; out dx, ax              ; enable the power button
#   mov si, text; mov dx, 0x3f8
#   say:  lodsb; test al, al; jz tick; out dx, al; jmp say
#   tick: sti; hlt; mov dx, 0x600; in ax, dx; test ah, 1; jnz off
#   mov eax, [0x8000]; inc eax; mov [0x8000], eax
#   and eax, 127; shl eax, 7; add eax, 2048; mov [packet + 8], eax
#   mov dl, 0x80; call write; mov dl, 0x81; call write; jmp tick
#   write: mov si, packet; mov ax, 0x4300; int 0x13; ret
#   off:  mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt; jmp off
#   packet: db 16, 0; dw 1, 0x8000, 0; dq 0                     ; one sector from 0x8000
#   text: db "up", 10, 0
_BOOT_SECTOR = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007c66c706048048465354ba0206ed80cc01efbe817cbaf803ac84c07403eeebf8fbf4ba0006"
    "edf6c401753166a10080664066a300806683e07f66c1e00766050008000066a3797cb280e80700b281e80200ebcdbe717c"
    "b80043cd13c3ba0406b80020eff4ebf61000010000800000000000000000000075700a00"
)
SECTORS = [(2048 + slot * 128) * 512 for slot in range(128)]


def make_container(node: Node, *, subvolumes: bool = False, owner: int = 0) -> None:
    """A stopped container whose root and ``/data`` belong into backups, and whose ``/scratch`` does not."""
    volumes = [node.images / str(CT) / f"subvol-{CT}-disk-{number}.subvol" for number in range(3)]
    volumes[0].parent.mkdir(parents=True)
    for volume in volumes:
        if subvolumes:
            subprocess.run(["btrfs", "-q", "subvolume", "create", str(volume)], check=True)
        else:
            volume.mkdir()
    root, data, scratch = volumes
    for folder in ("bin", "dev", "proc", "sys", "etc", "data", "scratch", "tmp", "sbin"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in ("sh", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin" / "init").write_text(_INIT, encoding="utf-8")
    (root / "sbin" / "init").chmod(0o755)
    (data / "random").write_bytes(os.urandom(4 << 20))
    (data / "odd\nname").write_text("x", encoding="utf-8")
    os.chown(data / "odd\nname", 1000, 1001)
    (scratch / "temporary").write_text("not in backups", encoding="utf-8")
    if owner:
        for volume in volumes:
            for path in [volume, *volume.rglob("*")]:
                info = path.lstat()
                os.lchown(path, info.st_uid + owner, info.st_gid + owner)
    node.config(CT, "lxc").write_text(_CT_CONFIG + ("unprivileged: 1\n" if owner else ""), encoding="utf-8")


def btrfs(node: Node, *, owner: int = 0) -> Iterator[Node]:
    """The node with a stopped container on btrfs, as a fixture yields it."""
    image, mounted = node.root / "btrfs.img", node.root / "local"
    with image.open("wb") as stream:
        stream.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        make_container(node, subvolumes=True, owner=owner)
        yield node
        switch_off(node, CT)
    finally:
        subprocess.run(["umount", mounted], check=True)


def switch_off(node: Node, vmid: int) -> None:
    """Nothing of the guest runs any more."""
    node.call("heal")
    node.call("guest", "stop", str(vmid), "--force")


def end_all(node: Node) -> None:
    """Nothing of any guest runs any more, also of those that a failed test left running."""
    for row in guest_table(node.host):
        if row["status"] not in ("stopped", "unknown"):
            switch_off(node, row["vmid"])


def make_vm(node: Node, vmid: int = VM) -> None:
    """A stopped VM with a qcow2 and a raw disk."""
    folder = node.images / str(vmid)
    folder.mkdir(parents=True)
    blank = bytes(1 << 20)
    boot = _BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa"
    (folder / f"vm-{vmid}-disk-1.raw").write_bytes(blank * 10 + os.urandom(4 << 20) + blank * 2)
    source = folder / "source"
    source.write_bytes(boot.ljust(10 << 20, b"\0") + os.urandom(8 << 20) + blank * 6)
    target = folder / f"vm-{vmid}-disk-0.qcow2"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(target)]
    subprocess.run(command, check=True)
    source.unlink()
    node.config(vmid, "qemu").write_text(_VM_CONFIG.format(watch=node.root / "watch", vmid=vmid), encoding="utf-8")


def start(node: Node, vmid: int) -> None:
    """Start a guest and wait until it writes."""
    node.call("guest", "start", str(vmid))
    if vmid == VM:
        wait_for(lambda: "up" in console(node), "the VM to boot")
    else:
        wait_for(lambda: written(node) > 0, "the container to write")


def console(node: Node) -> str:
    path = Path(node.host.paths.qemu_run) / f"{VM}.serial.log"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def written(node: Node) -> int:
    """How far the container's writer came."""
    path = node.images / str(CT) / f"subvol-{CT}-disk-1.subvol" / "log"
    return path.stat().st_size if path.exists() else 0


def handle(node: Node, vmid: int) -> Guest:
    """The engine's own view of a guest."""
    return open_by_info(node.host, find_guest(node.host, vmid))


class Monitor:
    """The VM's second monitor, for looking and meddling beside the engine."""

    def __init__(self, node: Node) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(20)
        self._socket.connect(str(node.root / "watch"))
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._answer()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        answer = self._answer()
        assert "return" in answer, answer
        return answer["return"]

    def refused(self, command: str, **arguments: Any) -> str:
        """What QEMU says to a command that it must not carry out."""
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        answer = self._answer()
        assert "error" in answer, answer
        return str(answer["error"]["desc"])

    def running(self) -> bool:
        return bool(self.execute("query-status")["running"])

    def traces(self) -> list[str]:
        """What a backup put into this QEMU and did not take away."""
        nodes = [node["node-name"] for node in self.execute("query-named-block-nodes", flat=True)]
        found = [name for name in nodes if name.startswith("bk-")]
        found += [export["id"] for export in self.execute("query-block-exports")]
        for key in ("scsi0", "virtio0"):
            drive = self.execute("qom-get", path=f"/machine/peripheral/{key}", property="drive")
            found += [drive] if drive != f"drive-{key}" else []
        return found

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        while True:
            line = self._stream.readline()
            assert line, "the monitor hung up"
            answer: dict[str, Any] = json.loads(line)
            if "event" not in answer:
                return answer


@dataclass(frozen=True)
class Numbers:
    """The last number in each disk of an image of the VM."""

    first: int
    second: int

    @property
    def one_instant(self) -> bool:
        """The system writes to the first disk, then to the second: at any instant they differ by one at most."""
        return self.first > 0 and self.first - self.second in (0, 1)


def numbers(node: Node, vmid: int) -> Numbers:
    """What the system of a stopped VM wrote last."""
    folder = node.images / str(vmid)
    raw = node.root / f"{vmid}.raw"
    argv = ["qemu-img", "convert", "-O", "raw", str(folder / f"vm-{vmid}-disk-0.qcow2"), str(raw)]
    subprocess.run(argv, check=True)
    found = [_last(raw), _last(folder / f"vm-{vmid}-disk-1.raw")]
    raw.unlink()
    return Numbers(*found)


def _last(path: Path) -> int:
    best = 0
    with path.open("rb") as stream:
        for offset in SECTORS:
            stream.seek(offset)
            number, mark = struct.unpack("<I4s", stream.read(8))
            best = max(best, number if mark == b"HFST" else 0)
    return best


def qemu_pid(node: Node) -> int:
    return int((Path(node.host.paths.qemu_run) / f"{VM}.pid").read_text())


def tree(path: Path) -> dict[str, tuple[Any, ...]]:
    """Names, kinds, owners, modes and contents below a folder."""
    found = {}
    for item in sorted(path.rglob("*")):
        info = item.lstat()
        content = item.read_bytes() if item.is_file() and not item.is_symlink() else b""
        link = os.readlink(item) if item.is_symlink() else ""
        found[str(item.relative_to(path))] = (info.st_mode, info.st_uid, info.st_gid, content, link)
    return found


def goes_on(node: Node, vmid: int) -> None:
    """The guest runs and writes: nothing froze, paused or stopped it."""
    assert handle(node, vmid).status() == "running"
    if vmid == CT:
        before = written(node)
        wait_for(lambda: written(node) > before, "the container to write again", 10)
        return
    with Monitor(node) as monitor:
        assert monitor.running()
        assert monitor.traces() == []
        before_ops = writes(monitor)
        deadline = time.monotonic() + 10
        while writes(monitor) == before_ops:
            assert time.monotonic() < deadline, "the VM does not write any more"
            time.sleep(0.02)


def writes(monitor: Monitor) -> int:
    """How many times the VM has written to its disks."""
    return sum(int(device["stats"]["wr_operations"]) for device in monitor.execute("query-blockstats"))
