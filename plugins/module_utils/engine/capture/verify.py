# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading archives without restoring them: is all there, and is it what was written?

The structure of an archive with indexes is seen without reading all of it; where there are none, it has to be read.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from ..errors import IntegrityError
from ..formats.cluster_map import MAGIC, MAX_BYTES, check_map
from ..formats.disk_digest import DiskDigest
from ..formats.tarscan import TarGuard, TarScanner
from ..formats.vma_layout import VMSTATE
from ..formats.vma_reader import VmaReader
from ..stream.files import CHUNK
from ..stream.frames import FrameFile
from ..stream.source import open_source
from .model import Progress

_END_MARK = 1024


class Source(Protocol):
    """Reads the uncompressed archive."""

    position: int

    def readinto(self, buffer: bytearray | memoryview) -> int: ...

    def skip(self, size: int) -> int: ...


def check_indexes(path: str, kind: str, *, expected: bool) -> bool:
    """Check what makes an archive seekable, and of a container's archive that it has an end.

    :param expected: it was written with a seek table.
    :returns: whether this tells all of the archive's structure; without indexes it has to be followed.
    :raises IntegrityError: the indexes do not fit the archive or each other.
    """
    if not path.endswith(".zst"):
        return False
    with FrameFile(path) as frames:
        if frames.table is None and expected:
            raise IntegrityError("the seek table at the end of the archive, which it was written with, is gone")
        if frames.table is None:
            return False
        frames.check_heads()
        if kind == "lxc":
            if frames.last()[-_END_MARK:].strip(b"\0"):
                raise IntegrityError("the tar archive is cut short: its last frame has no end mark")
            return True
        index = frames.index(MAGIC, MAX_BYTES)
        if index is None:
            return False
        with open_source(path) as source:
            header = VmaReader(source).header
        check_map(index, header, frames.table.stream_bytes)
    return True


def vm_structure(source: Source) -> None:
    """Follow the extents of a VM archive to its end, passing over the data where that is possible.

    :raises IntegrityError: see :meth:`VmaReader.pieces`.
    """
    VmaReader(source).verify(source.skip)


def ct_structure(source: Source) -> None:
    """Follow the headers of a container archive to its end, passing over the data where that is possible.

    :raises IntegrityError: it is damaged or cut short.
    """
    scanner = TarScanner()
    buffer = bytearray(CHUNK)
    while not scanner.ended:
        if scanner.ahead > CHUNK:
            got = source.skip(scanner.ahead)
            scanner.passed(got)
        else:
            got = source.readinto(buffer)
            for _member in scanner.feed(memoryview(buffer)[:got]):
                pass
        if not got:
            break
    scanner.finish()
    # What decompresses the archive tells only at its end whether all of it was right.
    while source.skip(CHUNK):
        pass


def vm_digests(source: Source, progress: Progress) -> dict[str, str | None]:
    """Read all of a VM archive; returns the digest of each disk by the name of its device.

    The digest is ``None`` when the clusters come in another order than on the disk, as Proxmox VE writes them.

    :raises IntegrityError: see :meth:`VmaReader.pieces`.
    """
    reader = VmaReader(source)
    devices = [device for device in reader.header.devices if device.name != VMSTATE]
    digests = {device.name: DiskDigest(device.size) for device in devices}
    for piece in reader.pieces():
        if piece.device.name in digests:
            digests[piece.device.name].add(piece.offset, piece.length, piece.data)
        progress.add(piece.length, piece.length if piece.data is None else 0)
    return {name: digest.value() for name, digest in digests.items()}


def ct_digest(source: Source, progress: Progress) -> str:
    """Read all of a container archive, and look at every member as a restore does; returns the digest of the tar.

    :raises IntegrityError: it is damaged, cut short, or a restore would refuse a member.
    """
    guard = TarGuard(allow_devices=True)
    digest = hashlib.sha256()
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    while True:
        got = source.readinto(buffer)
        if not got:
            break
        guard.inspect(view[:got])
        digest.update(view[:got])
        progress.add(got)
    guard.finish()
    return digest.hexdigest()
