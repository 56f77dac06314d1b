# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What callers ask of the tasks: one data class per request.

Options of vzdump travel as a mapping from their names (dashes or underscores) to plain values: numbers, booleans,
texts, lists, and mappings for the structured ones (``fleecing``, ``performance``, ``prune_backups``). A key that is
absent, or whose value is ``None``, was not given at all. The tasks check them; callers only pass them on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence


@dataclass(frozen=True)
class Selection:
    """Which guests; the rules are vzdump's.

    :param vmid: ids or names; excludes every other way.
    :param all: every guest of the node.
    :param exclude: ids or names left out; means ``all`` unless ``pool`` is given.
    :param tags: guests that have one of these; :param query: JMESPath over the list of guests.
    :param node: on a node of another name nothing is done.
    """

    vmid: Sequence[str | int] = ()
    all: bool | None = None
    exclude: Sequence[str | int] = ()
    pool: str | None = None
    node: str | None = None
    tags: Sequence[str] = ()
    query: str | None = None

    @property
    def given(self) -> bool:
        """Whether anything is selected at all."""
        return bool(self.vmid or self.all or self.exclude or self.pool or self.tags or self.query)


@dataclass(frozen=True)
class BackupRequest:
    """Back up guests now.

    :param selection: stronger than the job's selection when it selects anything.
    :param options: vzdump's options, stronger than the job's.
    :param job: id of a job of ``jobs.cfg`` that gives selection and options.
    :param max_age: a guest whose newest good archive on the target is at most this old is left alone (``20h``, ``7d``).
    :param force: back up also guests with a fresh archive; ``max_age`` is then ignored.
    """

    selection: Selection = field(default_factory=Selection)
    options: Mapping[str, Any] = field(default_factory=dict)
    job: str | None = None
    max_age: str | None = None
    force: bool = False


@dataclass(frozen=True)
class PruneRequest:
    """Apply retention to one storage.

    :param keep: retention as ``{"keep-last": 3, ...}`` (dashes or underscores) or as text ``keep-last=3,...``;
        ``None`` means what the storage defines.
    :param vmid: only archives of these guests (ids); empty means all.
    :param kind: ``qemu`` or ``lxc``; ``None`` means both.
    :param allow_empty: also remove what is the last good archive of a guest.
    """

    storage: str
    keep: Mapping[str, Any] | str | None = None
    vmid: Sequence[int] = ()
    kind: str | None = None
    allow_empty: bool = False


@dataclass(frozen=True)
class RestoreRequest:
    """Make a guest from an archive.

    :param archive: volume id (``nas:backup/vzdump-…``), absolute path, or ``STORAGE:latest/NAME-OR-VMID`` for the
        newest archive of a guest.
    :param vmid: id of the guest to be made.
    :param storage: where its volumes go; ``None`` keeps each volume's own storage where it exists here, else ``local``.
        For libvirt domains also the path of a folder; ``None`` means libvirt's own folders.
    :param kind: of a VM: ``qemu`` (managed here) or ``libvirt``; ``None`` is what the guest to be replaced is, else
        what the archive came from.
    :param volumes: of a container: what differs, by key of the archived config: ``{"storage": S, "format": F,
        "size": "8G"}``.
    :param force: replace a stopped guest of that id; its volumes stay until the new ones are complete.
    :param unique: new MAC addresses and a new system uuid.
    :param start: start it afterwards; when that fails the restore still counts, with a warning.
    :param trust_config: keep keys of the archived config that reach into the host (``args``, ``hookscript``,
        ``hostpci``, raw ``lxc.*`` lines, bind mounts).
    :param overrides: config keys that replace archived ones; ``None`` removes a key. Volumes cannot be overridden.
    :param unprivileged: containers: override the archived flag.
    :param ignore_unpack_errors: containers: keep what could be unpacked.
    :param bwlimit: KiB/s read from the archive, 0 means no limit.
    """

    archive: str
    vmid: int
    storage: str | None = None
    kind: str | None = None
    volumes: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    unique: bool = False
    start: bool = False
    trust_config: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    unprivileged: bool | None = None
    ignore_unpack_errors: bool = False
    bwlimit: int | None = None


@dataclass(frozen=True)
class ArchiveRequest:
    """What one archive shall look like; ``None`` leaves a property as it is.

    :param archive: volume id, absolute path, or ``STORAGE:latest/NAME-OR-VMID``.
    :param notes: the whole text; empty removes the notes.
    :param absent: remove the archive with its companions.
    """

    archive: str
    notes: str | None = None
    protected: bool | None = None
    absent: bool = False


@dataclass(frozen=True)
class ArchiveFilter:
    """Which archives to list. Empty members do not restrict."""

    storage: str | None = None
    vmid: int | None = None
    kind: str | None = None


@dataclass(frozen=True)
class VerifyRequest:
    """Look whether archives are what was written.

    :param archives: volume ids, absolute paths, or ``STORAGE:latest/NAME-OR-VMID``; excludes the other ways.
    :param storage: archives of this storage, ``None`` means all usable ones; :param vmid: only of these guests.
    :param newest: of each guest only the newest archive of each storage.
    :param level: ``index`` looks at the structure, ``data`` reads everything and compares digests, too.
    :param max_age: archives that passed this level more recently are left alone (``7d``).
    :param bwlimit: KiB/s of uncompressed data, 0 means no limit.
    """

    archives: Sequence[str] = ()
    storage: str | None = None
    vmid: Sequence[int] = ()
    newest: bool = False
    level: str = "data"
    max_age: str | None = None
    bwlimit: int = 0
