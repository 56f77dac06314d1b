# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archive file names: ``vzdump-<kind>-<vmid>-YYYY_MM_DD-HH_MM_SS.<ext>`` in the node's local time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo

from ..errors import UsageError

_NAME = re.compile(
    r"vzdump-(lxc|openvz|qemu)-([1-9][0-9]{2,8})-(\d{4})_(\d{2})_(\d{2})-(\d{2})_(\d{2})_(\d{2})"
    r"\.(?:(tgz)|(tar|vma)(?:\.(gz|lzo|zst|bz2))?)",
    re.ASCII,
)
_EXTENSION = {"qemu": "vma", "lxc": "tar"}


@dataclass(frozen=True)
class ArchiveName:
    """What the name of an archive says.

    :param kind: ``qemu``, ``lxc``, or ``openvz`` (old containers, only read).
    :param time: seconds since 1970. The name holds local time: a repeated local time means the first instant.
    :param ext: ``vma`` or ``tar``; :param compression: ``zst``, ``gz``, ``lzo``, ``bz2`` or empty.
    :param filename: the name itself, without folders.
    """

    kind: str
    vmid: int
    time: int
    ext: str
    compression: str
    filename: str


def parse_archive_name(name: str, tz: tzinfo | None = None) -> ArchiveName:
    """Parse a standard archive name; leading folders are ignored.

    :raises UsageError: it has another form, or a date that does not exist.
    """
    filename = name.rpartition("/")[2]
    match = _NAME.fullmatch(filename)
    if match is None:
        raise UsageError(
            f"{filename!r} is not a standard archive name",
            hint="the form is vzdump-qemu-100-2026_03_10-02_00_00.vma.zst",
        )
    kind, vmid, *when = match.groups()[:8]
    try:
        year, month, day, hour, minute, second = (int(part) for part in when)
        # A repeated local time is its first instant; a skipped one is read with the offset valid before the change.
        time = int(datetime(year, month, day, hour, minute, second, tzinfo=tz).timestamp())
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{filename!r} is not a standard archive name: {exc}") from exc
    tgz, ext, compression = match.groups()[8:]
    return ArchiveName(kind, int(vmid), time, "tar" if tgz else ext, "gz" if tgz else compression or "", filename)


def make_archive_name(kind: str, vmid: int, epoch: int, compression: str, tz: tzinfo | None = None) -> ArchiveName:
    """The name of an archive begun at ``epoch``.

    :param compression: file suffix: ``zst``, ``gz``, ``lzo`` or empty.
    """
    local = datetime.fromtimestamp(epoch, tz)
    ext = _EXTENSION[kind]
    suffix = f".{compression}" if compression else ""
    filename = f"vzdump-{kind}-{vmid}-{local:%Y_%m_%d-%H_%M_%S}.{ext}{suffix}"
    return ArchiveName(kind, vmid, epoch, ext, compression, filename)
