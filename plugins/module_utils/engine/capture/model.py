# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a capture is to the tasks above it: a consistent point in time that can be written to an archive once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, ContextManager, Mapping, Protocol

from ..storages.scratch import FolderScratch, ScratchSpace


@dataclass
class Timings:
    """What the backup cost the guest; seconds, ``None`` when that kind of interruption did not take place.

    :param freeze_seconds: file systems frozen by the guest agent (VM), or processes frozen (container).
    :param pause_seconds: virtual CPUs stopped.
    :param downtime_seconds: guest shut down, until it was started again.
    :param guest_frozen: whether the file systems were frozen at the captured instant.
    """

    freeze_seconds: float | None = None
    pause_seconds: float | None = None
    downtime_seconds: float | None = None
    guest_frozen: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "freeze_seconds": self.freeze_seconds,
            "pause_seconds": self.pause_seconds,
            "downtime_seconds": self.downtime_seconds,
            "guest_frozen": self.guest_frozen,
        }


class Phases(Protocol):
    """Is told how far a capture has come. What it does then may take long, or fail."""

    def begin(self, mode: str) -> None:
        """The mode is settled, and nothing is changed yet.

        :raises HoldfastError: the guest shall be left alone.
        """

    def interruption(self) -> ContextManager[Callable[[], None]]:
        """The guest is frozen, paused or shut down in the block, and goes on before the block ends.

        What this yields is to be called when a guest that is shut down is about to be started; it does not take long.

        :raises HoldfastError: at the begin: the guest shall be left alone; at the end: the backup shall fail.
        """


@dataclass(frozen=True)
class CaptureOptions:
    """What the tasks ask of a capture, already resolved to this node's terms.

    :param workdir: existing folder for this guest's scratch files (copies of ``suspend`` mode, rendered configs).
    :param phases: who is told how far it has come.
    :param fleecing: where a running VM's overwritten blocks go; for VMs only.
    :param workers: reads of a VM's disk in flight.
    :param stopwait: seconds to wait for an orderly shutdown in ``stop`` mode.
    :param exclude_path: patterns of files to leave out of containers, as vzdump's ``exclude-path``.
    :param stdexcludes: leave out ``/tmp``, ``/var/tmp`` and pid files of containers.
    """

    workdir: str
    phases: Phases
    fleecing: ScratchSpace | None = None
    workers: int = 16
    stopwait: float = 600
    exclude_path: tuple[str, ...] = ()
    stdexcludes: bool = True

    def fleecing_space(self, vmid: int) -> ScratchSpace:
        """Where the blocks that a running VM overwrites are kept, in the work folder if nothing else is said."""
        return self.fleecing or FolderScratch(f"the folder {self.workdir}", vmid, self.workdir, "raw")


class Sink(Protocol):
    """Where archive bytes go."""

    def write(self, buf: Any) -> Any:
        """Take all of ``buf`` (bytes-like); the buffer may be reused after the call."""

    def add_trailer(self, build: Callable[[], bytes]) -> None:
        """Where the container format has room for it, put what ``build`` returns behind the archive."""


class Progress(Protocol):
    """Counts guest bytes; called from any thread."""

    def add(self, done: int, zero: int = 0) -> None:
        """``done`` more bytes of the guest are handled, ``zero`` of them were zero or unallocated."""


@dataclass
class VolumeStats:
    """One volume in the archive.

    :param size: bytes the guest sees; :param read: bytes actually read; :param zero: bytes not stored.
    """

    key: str
    name: str
    size: int
    read: int = 0
    zero: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "name": self.name,
            "size": self.size,
            "read": self.read,
            "zero": self.zero,
            **self.extra,
        }


@dataclass(frozen=True)
class Written:
    """An archive that is written.

    :param volumes: statistics by key; :param digests: SHA-256 of each disk by key, or of a container's ``tar``.
    """

    volumes: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


class Captured(Protocol):
    """A guest's state at one instant, readable until the capture's context ends.

    ``mode`` is what was really done (``snapshot``, ``suspend``, ``stop``); ``size`` is the sum of the volumes in bytes;
    ``extension`` is ``vma`` or ``tar``; ``disks`` describes the included volumes (key, name, volid, size, ...).
    """

    mode: str
    timings: Timings
    extension: str

    @property
    def size(self) -> int: ...

    @property
    def disks(self) -> list[dict[str, Any]]: ...

    def write_to(self, sink: Sink, progress: Progress) -> Written:
        """Write the archive."""
