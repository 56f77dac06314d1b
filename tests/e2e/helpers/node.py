# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node below one folder: state directories, storages, and the command that works on them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import engine
import engine.tasks.backup
import engine.tasks.restore
import nbd  # noqa: F401  pylint: disable=unused-import
import qemu.qmp  # noqa: F401  pylint: disable=unused-import
import zstandard  # noqa: F401  pylint: disable=unused-import
from engine.cli import main
from engine.storages.mounts import mounts_below
from engine.system.host import Host, Paths

from helpers.faults import Fault
from helpers.process import Child, wait_for

STORAGES = """dir: local
\tpath {root}/local
\tcontent images,rootdir

dir: backup
\tpath {root}/backup
\tcontent backup

dir: disk
\tpath {root}/disk
\tcontent backup,images,rootdir
\tis_mountpoint 1

"""

_LEFT = (
    *("*/dump/*.dat", "*/dump/*.tmp", "*/dump/.*", "etc/**/.*", "lib/runs/*/*.journal", "lib/runs/*/.*"),
    *("lib/runs/*/vzdumptmp*", "*/images/*/*@vzdump", "*/images/*fleece*", "run/**/*.nbd*", "run/**/*.restore"),
)
"""What no run may leave below a node's root."""


class Node:
    """
    :param root: a folder with a short name, because paths of sockets are limited to 107 bytes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dump = root / "backup" / "dump"
        self.images = root / "local" / "images"
        self.host = Host("n1", Paths.under(str(root)))
        for folder in ("etc/lxc", "etc/qemu-server", "local", "disk"):
            (root / folder).mkdir(parents=True)
        Path(self.host.paths.storage_cfg).write_text(STORAGES.format(root=root), encoding="utf-8")

    def start(self, *args: str, fault: Fault | None = None) -> Child:
        """Begin one command in a process of its own."""
        argv = ["--root", str(self.root), "--node", "n1", *args]
        return Child(lambda: main(argv), fault)

    def call(self, *args: str, status: int = 0) -> str:
        """Output of a command that must end with that exit status; its complaints when that is not 0."""
        ended = self.start(*args).wait()
        assert ended.status == status, f"{args}: {ended.status}\n{ended.out}\n{ended.err}"
        return ended.err if status else ended.out

    def json(self, *args: str) -> Any:
        return json.loads(self.call(*args, "--json"))

    def refused(self, *args: str, status: int) -> str:
        """The complaint of a command that must fail; it has a remedy, and nothing may be left behind."""
        complaint = self.call(*args, status=status)
        assert "error: " in complaint, complaint
        assert complaint.splitlines()[-1].startswith("hint: "), complaint
        assert self.leftovers() == []
        return complaint

    def shell(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The same as :meth:`start`, by a Python of its own."""
        env = {**os.environ, "PYTHONPATH": str(Path(str(engine.__file__)).parents[1])}
        argv = [sys.executable, "-m", "engine", "--root", str(self.root), "--node", "n1", *args]
        return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=120)

    def archives(self) -> list[str]:
        return [archive["path"] for archive in self.json("archives")]

    def config(self, vmid: int, kind: str) -> Path:
        return self.root / "etc" / {"qemu": "qemu-server"}.get(kind, kind) / f"{vmid}.conf"

    def status(self, vmid: int) -> str:
        return next(str(guest["status"]) for guest in self.json("guests") if guest["vmid"] == vmid)

    def leftovers(self) -> list[str]:
        """Everything that no run may leave: journals, unfinished files, snapshots, sockets, mounts, processes."""
        found = [str(path) for pattern in _LEFT for path in self.root.glob(pattern)]
        own = (f"{self.root}/local", f"{self.root}/disk")
        found += [path for path in mounts_below(str(self.root)) if path not in own]
        # Programs whose run was killed need a moment to notice.
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self._helpers(), "the helpers to end", 5)
        return sorted(found + self._helpers())

    def _helpers(self) -> list[str]:
        """Programs of the engine that still work on this node."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode("utf-8", "replace").split("\0")
                helper = os.path.basename(words[0]) in ("qemu-storage-daemon", "rsync", "tar", "lxc-usernsexec")
                if helper and any(str(self.root) in word for word in words):
                    found.append(" ".join(words))
        return found

    @contextlib.contextmanager
    def mounted(self, options: str = "size=64m") -> Iterator[Path]:
        """A small file system in memory as the storage ``disk``."""
        path = self.root / "disk"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
        try:
            yield path
        finally:
            # A process that was just killed may hold it for another moment.
            wait_for(lambda: subprocess.run(["umount", str(path)], check=False).returncode == 0, f"umount {path}")
