# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing the VMA archive of captured disks."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

from ..formats.cluster_map import ClusterMapBuilder
from ..formats.disk_digest import DiskDigest
from ..formats.vma_layout import CLUSTER, EXTENT_BYTES
from ..formats.vma_writer import VmaWriter
from ..guests.model import ResolvedVolume
from ..settings.guest_config import GuestConfig
from ..settings.vm_config import Drive
from .model import Progress, Sink, Timings, VolumeStats, Written
from .nbd import WORKERS, NbdExport

_LEFT_OUT = ("lock", "parent")


@dataclass(frozen=True)
class CapturedDisk:
    """One disk, readable as an NBD export.

    :param name: of the device in the archive; :param socket: where it is served, if not where the other disks are;
    :param export: name of the export, if it is another.
    """

    drive: Drive
    volume: ResolvedVolume
    name: str
    size: int
    socket: str = ""
    export: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.drive.key, "volid": self.drive.volid, "format": self.volume.format, "size": self.size}


@dataclass
class CapturedMachine:
    """A VM's disks at one instant, served at ``socket``; ``blobs`` (name, content) go beside its config.

    :param check: called when all is read; it raises when that may not be the instant.
    """

    mode: str
    label: str
    config: GuestConfig
    captured: Sequence[CapturedDisk]
    socket: str
    timings: Timings
    workers: int = WORKERS
    blobs: Sequence[tuple[str, bytes]] = ()
    check: Callable[[], None] = lambda: None
    extension: str = field(default="vma", init=False)

    @property
    def size(self) -> int:
        return sum(disk.size for disk in self.captured)

    @property
    def disks(self) -> list[dict[str, Any]]:
        return [disk.to_dict() for disk in self.captured]

    def write_to(self, sink: Sink, progress: Progress) -> Written:
        """Write the archive, disk after disk.

        :raises ProtocolError: a disk cannot be read any more, for example because the fleecing image is full.
        :raises StorageError: what was read may not be the instant.
        """
        index = ClusterMapBuilder()
        config = archived_config(self.config, self.captured).encode("utf-8", "surrogateescape")
        configs = [("qemu-server.conf", config), *self.blobs]
        devices = [(disk.name, disk.size) for disk in self.captured]
        vma = VmaWriter(sink.write, os.urandom(16), int(time.time()), configs, devices, index)
        sink.add_trailer(index.frame)
        stats, digests = {}, {}
        with contextlib.ExitStack() as stack:
            for dev_id, disk in enumerate(self.captured, 1):
                label = f"{disk.drive.key} of {self.label}"
                socket, name = disk.socket or self.socket, disk.export or disk.name
                export = stack.enter_context(NbdExport(socket, name, label, self.workers))
                digest = DiskDigest(disk.size)
                stats[disk.drive.key] = _copy(export, vma, dev_id, disk, progress, digest).to_dict()
                digests[disk.drive.key] = digest.value()
        self.check()
        vma.close()
        return Written(stats, {key: value for key, value in digests.items() if value is not None})


def _copy(
    export: NbdExport, vma: VmaWriter, dev_id: int, disk: CapturedDisk, progress: Progress, digest: DiskDigest
) -> VolumeStats:
    stats = VolumeStats(disk.drive.key, disk.name, disk.size)
    with ThreadPoolExecutor(1, "digest") as beside:
        for offset, length, data in export.read_ahead(_pieces(export), release=export.can_discard):
            hashed = beside.submit(digest.add, offset, length, data)
            first = offset // CLUSTER
            if data is None:
                zero = vma.write_zero_clusters(dev_id, first, -(-length // CLUSTER))
            else:
                zero = vma.write_clusters(dev_id, first, data)
                stats.read += length
            stats.zero += zero
            hashed.result()
            progress.add(length, zero)
    return stats


def _pieces(export: NbdExport) -> Any:
    for offset, length, zero in export.extents(CLUSTER):
        if zero:
            yield offset, length, True
            continue
        for at in range(offset, offset + length, EXTENT_BYTES):
            yield at, min(EXTENT_BYTES, offset + length - at), False


def archived_config(config: GuestConfig, disks: Sequence[CapturedDisk]) -> str:
    """The config as archives carry it: without lock, snapshots and unused volumes, plus one map line per disk."""
    comments = [line for line in config.comments if not line.startswith(("qmdump#", "vzdump#"))]
    lines = [f"#{line}" for line in comments]
    lines += [
        f"{key}: {value}" for key, value in config.items() if key not in _LEFT_OUT and not key.startswith("unused")
    ]
    lines += [f"#qmdump#map:{disk.drive.key}:{disk.name}:{disk.drive.storage}:{disk.volume.format}:" for disk in disks]
    return "".join(f"{line}\n" for line in lines)
