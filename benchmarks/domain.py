# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup of a running libvirt domain: the engine against Debian's virtnbdbackup, both by libvirt's backup job.

Both are whole programs, started anew each time. virtnbdbackup compresses with LZ4, or not at all: zstd is
compared with the first, and no compression with the second.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from data import MIB, image
from measure import Step, apart, compare, remove, say, shell

REPOSITORY = Path(__file__).resolve().parent.parent
NAME = "bench"
XML = """<domain type='qemu'>
  <name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


def main(folder: str, mib: int, threads: int, rounds: int) -> None:
    sys.path[:0] = [str(REPOSITORY / "tests" / "e2e"), str(REPOSITORY)]
    from helpers.libvirtd import Libvirtd

    root = Path(folder)
    root.chmod(0o755)
    raw, disk = root / "disk.raw", root / "disk.qcow2"
    apart(lambda: image(str(raw), mib * MIB))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    raw.unlink()
    (root / "etc").mkdir()
    (root / "etc" / "libvirt.conf").write_text("uri: qemu:///system\n")
    (root / "etc" / "storage.cfg").write_text(f"dir: backup\n\tpath {root}/backup\n\tcontent backup\n")
    (root / "domain.xml").write_text(XML.format(name=NAME, disk=disk))
    theirs, dump = root / "theirs", root / "backup" / "dump"
    daemon = Libvirtd(root / "libvirt")
    try:
        daemon.virsh("define", str(root / "domain.xml"))
        daemon.virsh("start", NAME)
        inside = shlex.join(["nsenter", f"--mount={daemon.space}", "env"])
        engine = (
            f"{inside} PYTHONPATH={REPOSITORY}/plugins/module_utils {sys.executable} -m engine --root {root} --node n"
            f" run {NAME} --storage backup --zstd {threads} --quiet"
        )
        for compress, what, option in (("zstd", "LZ4", "-z"), ("0", "no compression", "")):
            line = f"{engine} --compress {compress} >/dev/null && sync -f {dump}"
            ours = _step(f"engine, {compress if option else what}", line, dump)
            program = (
                f"{inside} virtnbdbackup -d {NAME} -l copy {option} -o {theirs} >/dev/null 2>&1 && sync -f {theirs}"
            )
            other = _step(f"virtnbdbackup, {what}", program, theirs)
            compare(f"backup of a domain, virtnbdbackup with {what}", rounds, 0.7, ours, other)
            say(f"   archives of {_size(dump) / MIB:.0f} and {_size(theirs) / MIB:.0f} MiB")
    finally:
        daemon.close()


def _step(name: str, line: str, made: Path) -> Step:
    return Step(name, lambda: shell(line), lambda: remove(str(made)))


def _size(folder: Path) -> int:
    return sum(os.stat(path).st_blocks * 512 for path in folder.rglob("*") if path.is_file())
