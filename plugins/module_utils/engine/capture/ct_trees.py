# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The volumes of a container, or their snapshots, mounted read-only as the trees that its archive is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Sequence

from ..errors import GuestError
from ..guests.lxc.guest import LxcGuest
from ..settings.ct_config import Mount
from ..storages.mounts import unmount
from ..storages.volumes.base import Volume, flush
from ..storages.volumes.registry import SNAPSHOT
from ..system.report import Reporter
from ..system.undo import Handler, UndoStack
from .ct_freeze import frozen
from .model import Phases, Timings

MOUNT = "capture.ct.mount"
"""Undo kind: a volume mounted for reading: ``path``."""

UNDO: dict[str, Handler] = {MOUNT: lambda data: unmount(str(data["path"]))}

Volumes = Sequence[tuple[Mount, Volume]]


@dataclass
class Trees:
    """What to archive, as folders in the scratch folder.

    :param sources: names below ``root``. :param apart: more folders, each with the one name below it.
    """

    sources: list[str]
    apart: list[tuple[str, str]] = field(default_factory=list)


class Mounter:
    """Mounts volumes below a scratch folder, and unmounts them at the end of its context."""

    def __init__(self, workdir: str, vmid: int, undo: UndoStack) -> None:
        # Places are compared with where they really are.
        self._workdir = os.path.realpath(workdir)
        self._vmid = vmid
        self.undo = undo
        self._tokens: list[int] = []

    def __enter__(self) -> Mounter:
        return self

    def __exit__(self, *_error: object) -> None:
        for token in reversed(self._tokens):
            self.undo.undo(token)

    def undo_at_end(self, token: int) -> None:
        """Undo that entry when the context ends."""
        self._tokens.append(token)

    def mount_all(self, volumes: Volumes, *, snapshots: bool = False) -> Trees:
        """Mount all volumes in their places, outer ones first.

        :raises GuestError: a mount point is no plain folder in the container.
        """
        trees = Trees([])
        places: dict[str, str] = {}
        for mount, volume in sorted(volumes, key=lambda one: len(_parts(one[0].mountpoint))):
            inside = "/".join(_parts(mount.mountpoint))
            place = self._place(mount, inside, places)
            if place is None:
                # The folder lies in a mount point that is not part of the backup.
                place = os.path.join(self._workdir, f"apart-{mount.key}", inside)
                os.makedirs(place)
            folder = os.path.relpath(place, self._workdir).split("/")[0]
            if folder == "root":
                trees.sources.append(f"./{inside}")
            else:
                trees.apart.append((folder, f"./{inside}"))
            self.undo_at_end(self.undo.push(MOUNT, path=place))
            if snapshots:
                volume.mount_snapshot(place)
            else:
                volume.mount(place, read_only=True)
            places[inside] = place
        return trees

    def _place(self, mount: Mount, inside: str, places: dict[str, str]) -> str | None:
        """Folder in what is mounted already; ``None`` when it is not there."""
        if not inside:
            root = os.path.join(self._workdir, "root")
            os.makedirs(root, exist_ok=True)
            return root
        outer = max((one for one in places if not one or inside.startswith(one + "/")), key=len)
        base = os.path.realpath(places[outer])
        wanted = os.path.join(base, inside[len(outer) :].lstrip("/"))
        # A guest could have put a symbolic link there that leads out of its tree; it cannot change any more now.
        if os.path.realpath(wanted) == wanted:
            if os.path.isdir(wanted):
                return wanted
            if not os.path.lexists(wanted):
                return None
        raise GuestError(
            f"cannot read {mount.key} of container {self._vmid}: {mount.mountpoint} is not a plain folder in it",
            hint="make it a folder in the container, or remove the mount point",
        )


def mount_snapshots(
    guest: LxcGuest, mounter: Mounter, volumes: Volumes, phases: Phases, report: Reporter, timings: Timings
) -> Trees:
    """Snapshot all volumes at one instant and mount the snapshots."""
    with phases.interruption():
        for mount, volume in volumes:
            mounter.undo_at_end(mounter.undo.push(SNAPSHOT, volume=volume.kind, source=volume.source))
            flush(guest.place(mount))
        with frozen(guest, mounter.undo, report, timings):
            report.info("creating storage snapshot 'vzdump'")
            for _mount, volume in volumes:
                volume.take_snapshot()
    return mounter.mount_all(volumes, snapshots=True)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
