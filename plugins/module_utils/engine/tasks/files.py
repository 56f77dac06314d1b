# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking into VM archives by path, without any guest or storage."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator

from ..errors import StorageError
from ..formats.vma_layout import Header
from ..formats.vma_reader import VmaReader
from ..stream.progress import Progress
from ..stream.source import open_source
from ..system.report import Reporter
from .results import instant


@contextlib.contextmanager
def _open(path: str) -> Iterator[VmaReader]:
    with open_source(path) as source:
        yield VmaReader(source)


def _describe(path: str, header: Header) -> dict[str, Any]:
    uuid = header.uuid.hex()
    return {
        "path": path,
        "uuid": "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:])),
        **instant("time", header.ctime),
        "configs": [{"name": name, "size": len(data)} for name, data in header.configs],
        "devices": [{"id": device.dev_id, "name": device.name, "size": device.size} for device in header.devices],
    }


def vma_info(path: str) -> dict[str, Any]:
    """What the archive's header says.

    :raises IntegrityError: this is not a VMA archive, or its header is damaged.
    """
    with _open(path) as reader:
        return _describe(path, reader.header)


def verify_vma(path: str, report: Reporter) -> dict[str, Any]:
    """Read the archive to its end and check its structure (and the checksums of zstd frames, when it has any).

    :raises IntegrityError: it is damaged or cut short.
    """
    with _open(path) as reader:
        progress = Progress(sum(device.size for device in reader.header.devices), report)
        for piece in reader.pieces():
            progress.add(piece.length, 0 if piece.data is not None else piece.length)
        progress.finish()
        return _describe(path, reader.header)


def extract_vma_file(path: str, folder: str, report: Reporter) -> dict[str, Any]:
    """Write config files and raw disk images (sparse, named ``disk-<device>.raw``) to a new folder.

    :raises StorageError: the folder exists and is not empty, or cannot be written.
    """
    with _open(path) as reader:
        try:
            os.makedirs(folder, exist_ok=True)
            if os.listdir(folder):
                raise StorageError(f"cannot extract {path} to {folder}: the folder is not empty")
            _extract(reader, folder, report)
        except OSError as exc:
            raise StorageError(f"cannot extract {path} to {folder}: {exc}") from exc
        return {**_describe(path, reader.header), "folder": folder}


def _extract(reader: VmaReader, folder: str, report: Reporter) -> None:
    header = reader.header
    for name, data in header.configs:
        # A config may hold passwords.
        path = os.path.join(folder, os.path.basename(name))
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(data)
    progress = Progress(sum(device.size for device in header.devices), report)
    with contextlib.ExitStack() as stack:
        files: dict[int, int] = {}
        for device in header.devices:
            target = os.path.join(folder, f"disk-{os.path.basename(device.name)}.raw")
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, fd)
            os.ftruncate(fd, device.size)
            files[device.dev_id] = fd
        for piece in reader.pieces():
            if piece.data is not None:
                _put(files[piece.device.dev_id], piece.data, piece.offset)
            progress.add(piece.length, 0 if piece.data is not None else piece.length)
        for fd in files.values():
            os.fsync(fd)
    progress.finish()


def _put(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
