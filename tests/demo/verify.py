# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a restored guest is what was backed up: files by checksum, and the writer's numbers on both volumes."""

from __future__ import annotations

import os

from tests.demo.compare import differences, tree
from tests.lab.files import SUMS
from tests.lab.inside import run_inside
from tests.lab.laboratory import Laboratory
from tests.lab.sequence import judge

RUNNING = ("dev", "proc", "sys", "run", "var/log", "tmp", "host", "data", "scratch", "srv", "etc/mtab")
"""Folders of a container that live, or that a backup leaves out; the volumes are compared by themselves."""


def verify_machine(root: str, vmid: int, twin: int) -> tuple[list[str], str]:
    """Ask both running VMs for their files, the restored one for its writer's logs.

    :returns: problems, and a summary for the table.
    """
    laboratory = Laboratory(root)
    laboratory.wait_until_writing(twin)
    sockets = {one: os.path.join(root, "run", "qemu-server", f"{one}.qga") for one in (vmid, twin)}
    problems = []
    files = 0
    for folder in ("/a", "/b"):
        texts = [run_inside(sockets[one], "/bin/cat", f"{folder}/{SUMS}") for one in (vmid, twin)]
        if texts[0] != texts[1]:
            problems.append(f"the list of files in {folder} differs from the original's")
        try:
            run_inside(sockets[twin], "/bin/sh", "-c", f"cd {folder} && sha256sum -c {SUMS}")
        except RuntimeError as exc:
            problems.append(str(exc))
        files += len(texts[0].splitlines())
    logs = [
        run_inside(sockets[twin], "/bin/cat", path).decode("ascii", "replace")
        for path in ("/a/writer.log", "/b/writer.log", "/a/boots.log")
    ]
    found, number = judge(*logs)
    return [*problems, *found], f"{files} files, sequence to {number} on both disks"


def verify_container(root: str, vmid: int, twin: int) -> tuple[list[str], str]:
    """Compare the volumes of both containers file by file, then the restored one's logs."""
    laboratory = Laboratory(root)
    laboratory.wait_until_writing(twin)
    problems = []
    files = 0
    for number, leave_out in ((0, _outside), (1, _written)):
        original, restored = (tree(laboratory.volume(one, number), leave_out) for one in (vmid, twin))
        problems.extend(differences(original, restored))
        files += len(original)
    volumes = [laboratory.volume(twin, number) for number in (0, 1)]
    paths = (f"{volumes[0]}/srv/writer.log", f"{volumes[1]}/writer.log", f"{volumes[0]}/srv/boots.log")
    found, number = judge(*map(_read, paths))
    return [*problems, *found], f"{files} files, sequence to {number} on both volumes"


def _outside(name: str) -> bool:
    return name in RUNNING


def _written(name: str) -> bool:
    return name in ("writer.log", "boots.log")


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as stream:
        return stream.read()
