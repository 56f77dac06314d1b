# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes with domains in a libvirtd of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import libvirt  # noqa: F401  pylint: disable=unused-import
from engine.cli import main

from helpers import guests
from helpers.faults import Fault
from helpers.guests import VM, Monitor
from helpers.libvirtd import Libvirtd
from helpers.node import Node
from helpers.process import Child, wait_for
from tests.lab.image import boot_files

DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>7cf798df-7725-443d-a246-a2aa9b6fd781</uuid>
  <metadata><holdfast:guest xmlns:holdfast='https://holdfast.virt/guest/1' vmid='{vmid}' tags='web;gold' pool='shop'/></metadata>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>{firmware}</os>
  <features><acpi/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{images}/vm-{vmid}-disk-0.qcow2'/><target dev='sda' bus='scsi'/><boot order='1'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{images}/vm-{vmid}-disk-1.raw'/><target dev='vda' bus='virtio'/><boot order='2'/>
    </disk>
    <controller type='scsi' model='virtio-scsi'/>
    <serial type='pty'><log file='{console}' append='off'/></serial>
    <interface type='user'><mac address='52:54:00:aa:00:01'/><model type='virtio'/></interface>
  </devices>
  <qemu:commandline><qemu:arg value='-qmp'/><qemu:arg value='unix:{root}/watch,server=on,wait=off'/></qemu:commandline>
</domain>
"""  # noqa: E501


class DomainNode(Node):
    """A node whose libvirt is that daemon."""

    def __init__(self, root: Path, daemon: Libvirtd) -> None:
        super().__init__(root)
        self.daemon = daemon
        # QEMU's user makes its monitor's socket here.
        root.chmod(0o777)
        Path(self.host.paths.libvirt_conf).write_text("uri: qemu:///system\n")

    def start(self, *args: str, fault: Fault | None = None) -> Child:
        argv = ["--root", str(self.root), "--node", "n1", *args]

        def work() -> int:
            self.daemon.enter()
            return main(argv)

        return Child(work, fault)

    def leftovers(self) -> list[str]:
        left = self.daemon.call("find", "/var/lib/libvirt/qemu", "-name", "holdfast*").split()
        states = self.daemon.folder / "lib" / "swtpm"
        left += [str(path) for suffix in ("restore", "old") for path in states.glob(f"*.{suffix}")]
        return super().leftovers() + left

    def domain(self, vmid: int) -> str:
        """Name of the domain of that id."""
        return str(next(guest["name"] for guest in self.json("guests") if guest["vmid"] == vmid))


def make_system(node: DomainNode, *, devices: str = "") -> None:
    """A stopped domain with an operating system, an agent, and a file system on each disk."""
    kernel, initrd = boot_files()
    for name in (kernel, initrd):
        # The cache is closed to QEMU's user.
        shutil.copy(name, node.root)
    folder = node.images / str(VM)
    folder.mkdir(parents=True)
    raw, plain = folder / f"vm-{VM}-disk-1.raw", folder / "plain"
    for path, size in ((plain, "64M"), (raw, "32M")):
        subprocess.run(["mkfs.ext4", "-q", "-F", path, size], check=True)
    target = folder / f"vm-{VM}-disk-0.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", plain, target], check=True)
    plain.unlink()
    firmware = (
        f"<kernel>{node.root}/{os.path.basename(kernel)}</kernel><initrd>{node.root}/{os.path.basename(initrd)}</initrd>"
        "<cmdline>console=ttyS0 quiet</cmdline>"
    )
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    text = (
        _xml(node, "machine", firmware)
        .replace(">32</memory>", ">128</memory>")
        .replace("<serial", f"{channel}{devices}<serial")
    )
    _define(node, text)


def make_domain(node: DomainNode, name: str = "machine", *, firmware: str = "", devices: str = "") -> None:
    """A stopped domain with the same disks and the same system as the VM of other tests."""
    guests.make_vm(node)
    node.config(VM, "qemu").unlink()
    _define(node, _xml(node, name, firmware).replace("<serial", f"{devices}<serial", 1))


def _xml(node: DomainNode, name: str, firmware: str) -> str:
    console = Path(node.host.paths.qemu_run) / f"{VM}.serial.log"
    images = node.images / str(VM)
    return DOMAIN.format(name=name, vmid=VM, root=node.root, images=images, console=console, firmware=firmware)


def _define(node: DomainNode, text: str) -> None:
    Path(node.host.paths.qemu_run).mkdir(parents=True, exist_ok=True)
    xml = node.root / "domain.xml"
    xml.write_text(text)
    node.daemon.virsh("define", str(xml))


def back_up(node: DomainNode, *options: str, status: int = 0) -> dict[str, Any]:
    """The outcome of a backup of the domain; whatever it is, nothing may be left behind."""
    ended = node.start("run", "machine", "--storage", "backup", *options, "--json").wait()
    assert ended.status == status, ended.err
    assert node.leftovers() == []
    (outcome,) = json.loads(ended.out)["guests"]
    return dict(outcome)


def goes_on(node: DomainNode, name: str = "machine") -> None:
    """The domain runs and writes, and nothing of a backup is in its QEMU."""
    assert node.daemon.virsh("domstate", name) == "running"
    assert "no domain backup job" in node.daemon.call("sh", "-c", f"virsh -q backup-dumpxml {name} 2>&1", check=False)
    with Monitor(node) as monitor:
        assert monitor.execute("query-block-exports") == []
        assert monitor.execute("query-block-jobs") == []
        before = guests.writes(monitor)
        wait_for(lambda: guests.writes(monitor) > before, "the domain to write", 10)
