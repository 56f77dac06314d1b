# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node with real guests below one directory: a VM with a guest agent, a container on a folder, one on btrfs.

The engine itself starts and stops the guests, by the command that nodes have.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from typing import Any

from . import container, machine
from .commands import run
from .guest import READY

ENGINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "plugins", "module_utils")
NODE = "lab"
VM, CT, CT_BTRFS = 100, 101, 102
NAMES = {VM: "machine", CT: "folder", CT_BTRFS: "subvolume"}
BTRFS_MIB = 512
READY_SECONDS = 180
_MARK = ".holdfast-lab"
_STORAGES = """\
dir: local
\tpath {storage}/local
\tcontent images,rootdir

dir: btrfs
\tpath {storage}/btrfs
\tcontent images,rootdir

dir: backup
\tpath {storage}/backup
\tcontent backup
\tprune-backups keep-last=1
"""


class Laboratory:
    """The laboratory below ``root``; what exists of it is left as it is."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self.storage = os.path.join(self.root, "storage")
        self._image = os.path.join(self.root, "btrfs.img")
        self._mounted = os.path.join(self.storage, "btrfs")

    def up(self) -> None:
        """Make what is missing, start what does not run, and wait until all guests write.

        :raises RuntimeError: something did not come up; the message says what.
        """
        os.makedirs(self.storage, exist_ok=True)
        self._write(_MARK, "")
        self._mount()
        if not os.path.exists(self._path("etc/storage.cfg")):
            for name in ("local", "backup"):
                os.makedirs(os.path.join(self.storage, name), exist_ok=True)
            self._write("etc/storage.cfg", _STORAGES.format(storage=self.storage))
        self._make_guests()
        states = {guest["vmid"]: guest["status"] for guest in self.guests()}
        for vmid in NAMES:
            if states.get(vmid) == "stopped":
                self.holdfast("guest", "start", str(vmid))
        for vmid in NAMES:
            self.wait_until_writing(vmid)

    def down(self) -> None:
        """Stop every guest and remove all; harmless when there is nothing."""
        if not os.path.exists(self._path(_MARK)):
            return
        for guest in self.guests():
            self.holdfast("guest", "stop", str(guest["vmid"]), "--force")
        if os.path.ismount(self._mounted):
            run("umount", self._mounted)
        shutil.rmtree(self.root)

    def guests(self) -> list[dict[str, Any]]:
        """Every guest with its state, as ``holdfast guests --json`` tells it."""
        found: list[dict[str, Any]] = json.loads(self.holdfast("guests", "--json"))
        return found

    def holdfast(self, *arguments: str) -> str:
        """Run the node's command from this checkout and return its output.

        :raises RuntimeError: it failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "engine", *arguments],
            env=self.environment(),
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"holdfast {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """What a process needs so that the engine works on this laboratory."""
        return {**os.environ, "HOLDFAST_ROOT": self.root, "HOLDFAST_NODE": NODE, "PYTHONPATH": ENGINE}

    def wait_until_writing(self, vmid: int) -> None:
        """Until a guest's writer is at work.

        :raises RuntimeError: it is not after :data:`READY_SECONDS`.
        """
        if os.path.exists(self._path(f"etc/qemu-server/{vmid}.conf")):
            path, wanted = self._path(f"run/qemu-server/{vmid}.serial.log"), READY
        else:
            path, wanted = os.path.join(self.volume(vmid, 1), "writer.log"), " "
        deadline = time.monotonic() + READY_SECONDS
        while not _contains(path, wanted):
            if time.monotonic() > deadline:
                raise RuntimeError(f"guest {vmid} did not get to work within {READY_SECONDS} s: see {path}")
            time.sleep(0.1)

    def volume(self, vmid: int, number: int) -> str:
        """Host path of a container's volume: 0 is its root, 1 is mounted on /data."""
        inside = os.path.join("images", str(vmid), f"subvol-{vmid}-disk-{number}.subvol")
        places = [os.path.join(self.storage, storage, inside) for storage in ("local", "btrfs")]
        return next((place for place in places if os.path.isdir(place)), places[0])

    def _make_guests(self) -> None:
        config = f"etc/qemu-server/{VM}.conf"
        if not os.path.exists(self._path(config)):
            self._write(config, machine.make(self._images("local", VM), VM, NAMES[VM]))
        for vmid, storage in ((CT, "local"), (CT_BTRFS, "btrfs")):
            config = f"etc/lxc/{vmid}.conf"
            if not os.path.exists(self._path(config)):
                folder = self._images(storage, vmid)
                self._write(config, container.make(folder, storage, vmid, NAMES[vmid], self._path("host")))

    def _images(self, storage: str, vmid: int) -> str:
        """An empty folder for a guest's volumes; what an interrupted start left there is removed."""
        folder = os.path.join(self.storage, storage, "images", str(vmid))
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        return folder

    def _mount(self) -> None:
        if os.path.ismount(self._mounted):
            return
        if not os.path.exists(self._image):
            with open(self._image, "wb") as stream:
                stream.truncate(BTRFS_MIB << 20)
            run("mkfs.btrfs", "-q", self._image)
        os.makedirs(self._mounted, exist_ok=True)
        run("mount", "-o", "loop", self._image, self._mounted)

    def _path(self, relative: str) -> str:
        return os.path.join(self.root, relative)

    def _write(self, relative: str, text: str) -> None:
        path = self._path(relative)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)


def _contains(path: str, wanted: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return wanted in stream.read()
    except FileNotFoundError:
        return False
