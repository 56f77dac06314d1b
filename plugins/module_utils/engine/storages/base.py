# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a storage is to the tasks, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..errors import StorageError
from ..settings.storages import StorageDef
from ..system.host import Host
from .dump import DumpFolder
from .scratch import ScratchSpace
from .volumes.space import VolumeSpace


@dataclass(frozen=True)
class Need:
    """What a caller wants to do with a storage.

    :param content: content type it must be declared for (``backup``, ``images``, ``rootdir``); empty means any.
    :param write: whether something is to be written.
    """

    content: str = ""
    write: bool = False


class Storage(ABC):
    """A place for archives and volumes.

    :ivar contents: what storages of this kind can hold; empty means anything.
    :ivar volumes: the guests' volumes on it; usable after :meth:`activate`.
    """

    contents: tuple[str, ...] = ()
    volumes: VolumeSpace

    def __init__(self, definition: StorageDef, host: Host) -> None:
        self.definition = definition
        self.name = definition.name
        self.host = host

    @property
    def archives(self) -> DumpFolder:
        """The archives on it; usable after :meth:`activate`.

        :raises StorageError: storages of this kind hold none.
        """
        raise StorageError(
            f"storage {self.name!r} holds no archives: its type is {self.definition.type}",
            hint="use a storage with the content 'backup'",
        )

    def scratch(self, vmid: int) -> ScratchSpace:
        """Where fleecing images of a guest are made; usable after :meth:`activate`.

        :raises StorageError: storages of this kind cannot have any.
        """
        raise StorageError(
            f"cannot make fleecing images on storage {self.name!r}: its type is {self.definition.type}",
            hint="use a storage of another type for fleecing",
        )

    def activate(self, need: Need) -> None:
        """Make the storage usable on this node, creating its folders where the definition allows that.

        :raises StorageError: as :meth:`check`, or it cannot be reached or written.
        """
        self.check(need)
        self._activate(need)

    def check(self, need: Need) -> None:
        """See whether the definition allows a use; nothing is touched.

        :raises StorageError: it is disabled, not for this node, or of the wrong content.
        """
        if self.definition.disable:
            raise StorageError(
                f"cannot use storage {self.name!r}: it is disabled", hint="remove 'disable' from its definition"
            )
        if self.definition.nodes and self.host.node not in self.definition.nodes:
            raise StorageError(
                f"cannot use storage {self.name!r}: it is not available on node {self.host.node!r}",
                hint=f"it is declared for: {', '.join(self.definition.nodes)}",
            )
        if need.content and need.content not in self.definition.content:
            raise StorageError(
                f"cannot use storage {self.name!r} for content {need.content!r}:"
                f" it is declared for {', '.join(self.definition.content) or 'none'}",
                hint=f"use another storage, or add {need.content!r} to its 'content'",
            )
        if need.content and self.contents and need.content not in self.contents:
            raise StorageError(
                f"cannot use storage {self.name!r} for content {need.content!r}: storages of type"
                f" {self.definition.type} hold only {', '.join(self.contents)} here",
                hint="use another storage",
            )

    @abstractmethod
    def _activate(self, need: Need) -> None:
        """What the kind does once the definition allows the use."""

    @abstractmethod
    def free_space(self) -> int:
        """Bytes that may still be written."""

    @abstractmethod
    def total_space(self) -> int:
        """Bytes that the storage can hold altogether."""

    def check_space(self, need: int, purpose: str) -> None:
        """Refuse early what cannot fit.

        :param need: bytes; :param purpose: what they are for, for the message.
        :raises StorageError: less than that is free.
        """
        free = self.free_space()
        if free < need:
            raise StorageError(
                f"storage {self.name!r} has {free} bytes free, but {purpose} needs at least {need}",
                hint="remove archives or volumes there, or use another storage",
            )
