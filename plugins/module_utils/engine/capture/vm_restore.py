# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VM archives back into disk images: images are made by qemu-img and filled through qemu-storage-daemon."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Protocol

from ..errors import IntegrityError, ProtocolError, StorageError
from ..formats.vma_layout import VMSTATE
from ..formats.vma_reader import VmaReader
from ..stream.files import Flusher
from ..system.process import run
from ..system.report import Reporter
from .model import Progress
from .nbd import NbdExport
from .storage_daemon import serve


class Source(Protocol):
    """Reads the uncompressed archive."""

    def readinto(self, buffer: Any) -> int: ...


@dataclass(frozen=True)
class Target:
    """Where one device of the archive goes: a file to be made (an empty one may be there), or a block device.

    :param format: ``raw`` or ``qcow2``.
    :param stale: how far around what is written there may be old data: there zeros are written, too; 0 for none.
    """

    path: str
    format: str
    stale: int = 0

    def old_parts(self, offset: int, length: int) -> list[tuple[int, int]]:
        """The stretches (offset, length) of a zero stretch that may hold old data."""
        if not self.stale:
            return []
        end = offset + length
        first, last = -(-offset // self.stale) * self.stale, end // self.stale * self.stale
        if first >= last:
            return [(offset, length)]
        return [(begin, stop - begin) for begin, stop in ((offset, first), (last, end)) if stop > begin]


def inspect(source: Source) -> tuple[list[tuple[str, bytes]], list[tuple[str, int]]]:
    """Configs (name, content) and devices (name, size in bytes) of an archive, from its header alone.

    The memory of a machine that was saved while it ran is such a device, too: :data:`VMSTATE`.

    :raises IntegrityError: it is no VMA archive.
    """
    header = VmaReader(source).header
    return list(header.configs), [(device.name, device.size) for device in header.devices]


def extract_vma(
    source: Source, targets: Mapping[str, Target], progress: Progress, report: Reporter, *, workdir: str
) -> dict[str, int]:
    """Write the disks of an archive to new images, holes where the archive has zeros; a machine's memory is left out.

    :param targets: by device name; each device of the archive has one.
    :param workdir: existing folder for a socket, so its name must be short.
    :returns: bytes written per device.
    :raises IntegrityError: the archive is damaged, incomplete, or has a device without target.
    :raises StorageError: an image cannot be made or written.
    """
    reader = VmaReader(source)
    devices = {device.name: device for device in reader.header.devices if device.name != VMSTATE}
    missing = sorted(set(devices) - set(targets))
    if missing:
        raise IntegrityError(f"the archive holds {', '.join(missing)}, for which no place was prepared")
    written = dict.fromkeys(devices, 0)
    if not devices:
        reader.verify()
        return written
    images = []
    for name, device in devices.items():
        target = targets[name]
        if not Path(target.path).is_block_device():
            argv = ["qemu-img", "create", "-q", "-f", target.format, target.path, str(device.size)]
            run(argv, timeout=120, error=StorageError, hint="check space and permissions there")
        images.append((name, target.path, target.format))
        report.info(f"restoring {name} ({device.size} bytes) to {target.path}")
    with contextlib.ExitStack() as files:
        flushers = {name: files.enter_context(_flushing(targets[name].path)) for name in devices}
        with contextlib.ExitStack() as stack:
            socket = os.path.join(workdir, "nbd")
            stack.enter_context(serve(images, socket, writable=True))
            exports = {name: stack.enter_context(NbdExport(socket, name, targets[name].path)) for name in devices}
            try:
                for piece in reader.pieces():
                    name = piece.device.name
                    if name not in exports:
                        continue
                    if piece.data is not None:
                        exports[name].write(piece.offset, piece.data)
                        written[name] += piece.length
                        flushers[name].wrote(written[name])
                    else:
                        for offset, length in targets[name].old_parts(piece.offset, piece.length):
                            exports[name].zero(offset, length)
                    progress.add(piece.length, 0 if piece.data is not None else piece.length)
                for export in exports.values():
                    export.flush()
            except ProtocolError as exc:
                raise StorageError(
                    f"cannot write the restored disks: {exc.message}", hint="is the storage of the volumes full?"
                ) from exc
    return written


@contextlib.contextmanager
def _flushing(path: str) -> Iterator[Flusher]:
    """Have an image that others fill written to disk on the way, and be all there when the block has ended."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    flusher = Flusher(fd, path)
    try:
        yield flusher
        flusher.finish()
    finally:
        flusher.stop()
        os.close(fd)
