# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs one job in a node with a kernel of its own: a virtual machine, without KVM so that it runs anywhere.

A node sees the repository read-only and a folder to exchange files; it has no network and ends with its job.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass

from tests.nodes.images import image

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DISK = 2 << 30
"""Bytes of the empty disk that a node gets beside its root."""


@dataclass(frozen=True)
class Ended:
    """:param status: exit status of the job, ``None`` if the node did not get that far."""

    status: int | None
    log: str
    console: str


def run_job(script: str, *, timeout: float) -> Ended:
    """Boot a node, let it run a shell script, and wait until it has switched itself off."""
    root = image()
    with tempfile.TemporaryDirectory(prefix="holdfast-node-") as scratch:
        exchange = os.path.join(scratch, "exchange")
        os.mkdir(exchange)
        with open(os.path.join(exchange, "job"), "w", encoding="utf-8") as stream:
            stream.write(script)
        console = os.path.join(scratch, "console")
        with open(console, "wb") as output, contextlib.suppress(subprocess.TimeoutExpired):
            argv = _command(root, scratch, exchange)
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=timeout, check=False)
        status = _read(os.path.join(exchange, "status")).strip()
        return Ended(int(status) if status else None, _read(os.path.join(exchange, "log")), _read(console)[-4000:])


def _command(root: str, scratch: str, exchange: str) -> list[str]:
    layer, disk = os.path.join(scratch, "root.qcow2"), os.path.join(scratch, "disk")
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{root}/root.img", "-F", "raw", layer]
    subprocess.run(argv, check=True, capture_output=True)
    with open(disk, "wb") as empty:
        empty.truncate(DISK)
    return [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", "1536", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", f"{root}/vmlinuz", "-initrd", f"{root}/initrd"),
        *("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 init=/node-init quiet apparmor=0 DISK=/dev/vdb"),
        *("-drive", f"file={layer},if=virtio,cache=unsafe", "-drive", f"file={disk},if=virtio,format=raw,cache=unsafe"),
        *_shared("repository", REPOSITORY, ",readonly=on"),
        *_shared("exchange", exchange, ""),
    ]


def _shared(tag: str, path: str, options: str) -> list[str]:
    return ["-virtfs", f"local,path={path},mount_tag={tag},security_model=none{options}"]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""
