# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the volumes of a restored guest go: the caller's wishes, and what the storages can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

from ..errors import UsageError
from ..settings.sizes import parse_size
from ..storages.base import Storage

FORMATS = ("raw", "qcow2", "subvol")


@dataclass(frozen=True)
class Wish:
    """What the caller asked for one volume; ``None`` leaves it to the archive and the request.

    :param size: bytes.
    """

    storage: str | None = None
    format: str | None = None
    size: int | None = None


def parse_wishes(volumes: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Wish]:
    """The request's wishes by key.

    :param known: keys of the volumes in the archive.
    :raises UsageError: a key that is not in the archive, or a value that makes no sense.
    """
    wishes = {}
    for key, given in volumes.items():
        if key not in known:
            raise UsageError(
                f"cannot place volume {key!r}: the archived config does not have it",
                hint=f"it has {', '.join(known)}",
            )
        values = {"storage": given} if isinstance(given, str) else dict(given)
        unknown = sorted(set(values) - {"storage", "format", "size"})
        if unknown:
            raise UsageError(f"volume {key!r}: {', '.join(unknown)} is unknown", hint="known: storage, format, size")
        size = values.get("size")
        wish = Wish(values.get("storage"), values.get("format"), None if size is None else parse_size(str(size)))
        if wish.format not in (None, *FORMATS) or (size is not None and not wish.size):
            raise UsageError(f"volume {key!r}: {values} makes no sense", hint="for example format=raw,size=8G")
        wishes[key] = wish
    return wishes


def choose_image_format(storage: Storage, recorded: str, wish: Wish) -> str:
    """The form of a VM's disk: the one asked for, else the recorded one where the storage has it.

    :raises UsageError: a wish that the storage cannot fulfil.
    """
    formats = storage.volumes.image_formats
    if wish.size is not None:
        raise UsageError("the size of a VM's disk is that of the archive", hint="resize the disk after the restore")
    if not formats or (wish.format is not None and wish.format not in formats):
        raise UsageError(
            f"storage {storage.name!r} has no disks of VMs{f' of the form {wish.format!r}' if formats else ''}",
            hint=f"it has {', '.join(formats)}" if formats else "use another storage",
        )
    return wish.format or (recorded if recorded in formats else formats[0])


def choose_format(storage: Storage, recorded: str, wish: Wish, size: int | None) -> str:
    """The form of a container's volume: the one asked for, else the recorded one where the storage has it.

    :param recorded: volume id in the archived config. :param size: bytes, ``None`` when nobody knows.
    :raises UsageError: the storage does not have the form that was asked for.
    """
    formats = storage.volumes.formats
    if wish.format is not None:
        if wish.format not in formats:
            raise UsageError(
                f"storage {storage.name!r} has no containers' volumes of the form {wish.format!r}",
                hint=f"it has {', '.join(formats)}",
            )
        return wish.format
    name = recorded.rpartition("/")[2].rpartition(":")[2]
    wanted = "subvol" if name.startswith(("subvol-", "basevol-")) or not size else "raw"
    return wanted if wanted in formats else formats[0]
