# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every kind of storage that the engine can use. Add a kind by one entry here."""

from __future__ import annotations

from ..errors import StorageError
from ..settings.storages import StorageDef
from ..system.host import Host
from ..system.undo import Handler
from .base import Storage
from .dir import DirStorage
from .dump import PARTIAL, undo_partial
from .images import VOLUME, undo_volume
from .lvmthin import LvmThinStorage
from .network import NetworkStorage
from .scratch import MARKED, undo_marked
from .volumes.registry import UNDO as VOLUME_UNDO
from .zfspool import ZfsPoolStorage

KINDS: dict[str, type[Storage]] = {
    "dir": DirStorage,
    "nfs": NetworkStorage,
    "cifs": NetworkStorage,
    "lvmthin": LvmThinStorage,
    "zfspool": ZfsPoolStorage,
}

UNDO: dict[str, Handler] = {PARTIAL: undo_partial, VOLUME: undo_volume, MARKED: undo_marked, **VOLUME_UNDO}


def open_storage(definition: StorageDef, host: Host) -> Storage:
    """The storage behind a definition; nothing is touched until it is activated.

    :raises StorageError: this kind cannot be used by this version.
    """
    kind = KINDS.get(definition.type)
    if kind is None:
        raise StorageError(
            f"cannot use storage {definition.name!r}: its type {definition.type!r} is not supported by this version",
            hint=f"supported types: {', '.join(sorted(KINDS))}",
        )
    return kind(definition, host)
