# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archive file names: ``vzdump-<kind>-<vmid>-YYYY_MM_DD-HH_MM_SS.<ext>`` in the node's local time.

A name can be known without being standard: somebody renamed the archive. Its kind and format are still clear, but it
belongs to no guest any more as far as retention is concerned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo

from ..errors import UsageError

_KNOWN = re.compile(r"vzdump-(lxc|openvz|qemu)-(.+)\.(?:(tgz)|(tar|vma)(?:\.(gz|lzo|zst|bz2))?)", re.ASCII)
_STANDARD = re.compile(r"([1-9][0-9]{2,8})-(\d{4})_(\d{2})_(\d{2})-(\d{2})_(\d{2})_(\d{2})", re.ASCII)
_EXTENSION = {"qemu": "vma", "lxc": "tar"}


@dataclass(frozen=True)
class KnownName:
    """What every archive's name says.

    :param filename: the name itself, without folders.
    :param kind: ``qemu``, ``lxc``, or ``openvz`` (old containers, only read).
    :param ext: ``vma`` or ``tar``; :param compression: ``zst``, ``gz``, ``lzo``, ``bz2`` or empty.
    """

    filename: str
    kind: str
    ext: str
    compression: str

    @property
    def notes(self) -> str:
        """Name of the file with the notes."""
        return f"{self.filename}.notes"


@dataclass(frozen=True)
class ArchiveName(KnownName):
    """What a standard name says besides.

    :param time: seconds since 1970. The name holds local time: a repeated local time means the first instant.
    """

    vmid: int
    time: int

    @property
    def stem(self) -> str:
        """The name without any extension."""
        return self.filename.partition(".")[0]

    @property
    def log(self) -> str:
        """Name of the log."""
        return f"{self.stem}.log"


def parse_name(name: str, tz: tzinfo | None = None) -> KnownName:
    """Parse an archive's name; leading folders are ignored.

    :param tz: zone of the time in it; ``None`` is the node's.
    :returns: an :class:`ArchiveName` for a standard name.
    :raises UsageError: it is no archive's name, or of the standard form with a date that does not exist.
    """
    filename = name.rpartition("/")[2]
    match = _KNOWN.fullmatch(filename)
    if match is None:
        raise UsageError(
            f"{filename!r} is no archive's name", hint="the form is vzdump-qemu-100-2026_03_10-02_00_00.vma.zst"
        )
    kind, middle, tgz, ext, compression = match.groups()
    known = KnownName(filename, kind, "tar" if tgz else ext, "gz" if tgz else compression or "")
    standard = _STANDARD.fullmatch(middle)
    if standard is None:
        return known
    vmid, year, month, day, hour, minute, second = map(int, standard.groups())
    try:
        # A repeated local time is its first instant; a skipped one is read with the offset valid before the change.
        time = int(datetime(year, month, day, hour, minute, second, tzinfo=tz).timestamp())
        datetime.fromtimestamp(time, tz)
    except (ValueError, OverflowError, OSError) as exc:
        raise UsageError(f"{filename!r} is no archive's name: its date does not exist: {exc}") from exc
    return ArchiveName(known.filename, known.kind, known.ext, known.compression, vmid, time)


def parse_archive_name(name: str, tz: tzinfo | None = None) -> ArchiveName:
    """Parse a standard name.

    :raises UsageError: it has another form, or a date that does not exist.
    """
    known = parse_name(name, tz)
    if not isinstance(known, ArchiveName):
        raise UsageError(
            f"{known.filename!r} is not a standard archive name",
            hint="the form is vzdump-qemu-100-2026_03_10-02_00_00.vma.zst",
        )
    return known


def make_archive_name(kind: str, vmid: int, epoch: int, compression: str, tz: tzinfo | None = None) -> ArchiveName:
    """The name of an archive begun at ``epoch``.

    :param compression: file suffix: ``zst``, ``gz``, ``lzo`` or empty.
    """
    local = datetime.fromtimestamp(epoch, tz)
    ext = _EXTENSION[kind]
    suffix = f".{compression}" if compression else ""
    filename = f"vzdump-{kind}-{vmid}-{local:%Y_%m_%d-%H_%M_%S}.{ext}{suffix}"
    return ArchiveName(filename, kind, ext, compression, vmid, epoch)
