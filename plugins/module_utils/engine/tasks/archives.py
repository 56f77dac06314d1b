# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives: finding, listing, notes, protection, removal."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace
from typing import Any

from ..errors import StorageError, UsageError
from ..guests.model import archive_kind
from ..rules.selection import GuestRef
from ..storages.base import Need, Storage
from ..storages.dump import Archive, DumpFolder
from ..system.host import Host
from ..system.report import Reporter
from .requests import ArchiveFilter, ArchiveRequest
from .results import instant
from .stores import get_storage, load_storages, open_storages

SKEW_SECONDS = 300
"""An archive that is dated this far into the future is none of a wrong clock; those of nodes differ a little."""


@dataclass(frozen=True)
class ArchiveEntry:
    """One archive, for callers outside the engine."""

    archive: Archive

    @property
    def volid(self) -> str:
        return self.archive.volid

    def to_dict(self) -> dict[str, Any]:
        return {
            "volid": self.archive.volid,
            "path": self.archive.path,
            "storage": self.archive.storage,
            "kind": self.archive.kind,
            "vmid": self.archive.vmid,
            **instant("time", self.archive.time),
            "size": self.archive.size,
            "format": self.archive.format,
            "notes": self.archive.notes,
            "protected": self.archive.protected,
            "log": self.archive.log,
            "verified": verified_dict(self.archive),
        }


def verified_dict(archive: Archive) -> dict[str, Any] | None:
    """What the last verification said of an archive; ``None`` when there was none."""
    last = archive.record.last
    if last is None:
        return None
    return {"state": last.state, "level": last.level, **instant("time", last.time), "causes": list(last.causes)}


def dated_ahead(archive: Archive) -> bool:
    """Whether a wrong clock dated it into the future."""
    return archive.time > time.time() + SKEW_SECONDS


def list_archives(host: Host, wanted: ArchiveFilter) -> list[ArchiveEntry]:
    """Archives of one storage, or of every usable storage for backups; oldest first within a guest.

    :raises StorageError: the named storage cannot be used.
    """
    if wanted.storage is not None:
        storages = [get_storage(host, wanted.storage)]
        storages[0].activate(Need("backup"))
    else:
        storages = open_storages(host, Need("backup"))
    return [
        ArchiveEntry(archive)
        for storage in storages
        for archive in storage.archives.list_archives(wanted.vmid, wanted.kind)
    ]


def find_archive(host: Host, text: str) -> ArchiveEntry:
    """The archive that ``text`` names: a volume id, an absolute path, or ``STORAGE:latest/GUEST``.

    :raises UsageError: this is none of these; :raises StorageError: there is no such archive.
    """
    return ArchiveEntry(locate(host, text)[1])


def locate(host: Host, text: str) -> tuple[Storage | None, Archive]:
    """The archive and its storage (``None`` for a path outside all storages)."""
    if os.path.isabs(text):
        return None, _by_path(text)
    name, colon, rest = text.partition(":")
    folder, slash, filename = rest.partition("/")
    if not colon or not slash or folder not in ("backup", "latest"):
        raise UsageError(
            f"{text!r} does not name an archive",
            hint="give STORAGE:backup/FILE, STORAGE:latest/GUEST or an absolute path",
        )
    storage = get_storage(host, name)
    storage.activate(Need("backup"))
    if folder == "backup":
        return storage, storage.archives.find(filename)
    return storage, _latest(host, storage, filename)


def plan_archive(host: Host, request: ArchiveRequest) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The archive before and after what is asked; ``None`` when it does not exist then."""
    archive = _existing(host, request)
    if archive is None:
        return None, None
    return ArchiveEntry(archive).to_dict(), _after(archive, request)


def apply_archive(
    host: Host, request: ArchiveRequest, report: Reporter
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Change notes and protection, or remove the archive; returns it before and afterwards.

    :raises StorageError: it is protected and shall be removed, or the protection limit is reached.
    """
    archive = _existing(host, request)
    if archive is None:
        return None, None
    storage, _same = locate(host, request.archive)
    folder = _folder(storage, archive)
    if storage is not None:
        storage.activate(Need("backup", write=True))
    if request.absent:
        report.info(f"removing archive {archive.volid}")
        folder.remove(archive)
    else:
        if request.protected is not None and request.protected != archive.protected:
            report.info(f"{'protecting' if request.protected else 'no longer protecting'} archive {archive.volid}")
            folder.set_protected(archive, request.protected)
        if request.notes is not None and request.notes != archive.notes:
            report.info(f"changing the notes of archive {archive.volid}")
            folder.set_notes(archive, request.notes)
    return ArchiveEntry(archive).to_dict(), _after(archive, request)


def _existing(host: Host, request: ArchiveRequest) -> Archive | None:
    """The archive; ``None`` when it is missing and shall be."""
    try:
        return locate(host, request.archive)[1]
    except StorageError:
        name, _colon, rest = request.archive.partition(":")
        known = os.path.isabs(request.archive) or name in load_storages(host)
        if request.absent and known and "latest/" not in rest:
            if not os.path.isabs(request.archive):
                get_storage(host, name).activate(Need("backup"))
            return None
        raise


def _after(archive: Archive, request: ArchiveRequest) -> dict[str, Any] | None:
    if request.absent:
        return None
    changed = replace(
        archive,
        notes=archive.notes if request.notes is None else request.notes,
        protected=archive.protected if request.protected is None else request.protected,
    )
    return ArchiveEntry(changed).to_dict()


def _folder(storage: Storage | None, archive: Archive) -> DumpFolder:
    return storage.archives if storage is not None else DumpFolder("", os.path.dirname(archive.path))


def _by_path(path: str) -> Archive:
    if not os.path.isfile(path):
        raise StorageError(
            f"there is no archive {path}: the file does not exist or is no regular file", hint="check the path"
        )
    archive = DumpFolder("", os.path.dirname(path)).describe(os.path.basename(path))
    if archive is None:
        raise UsageError(
            f"{path} is not named like an archive",
            hint="archives end in .vma or .tar, with .zst, .gz or .lzo when they are compressed",
        )
    return replace(archive, volid=path)


def _latest(host: Host, storage: Storage, guest: str) -> Archive:
    archives = [archive for archive in storage.archives.list_archives() if archive.name is not None]
    if re.fullmatch(r"[0-9]{1,9}", guest):
        found = [archive for archive in archives if archive.vmid == int(guest)]
    else:
        refs = [ref for ref in _refs(host) if ref.name == guest]
        ids = {(archive_kind(ref.kind), ref.vmid) for ref in refs}
        found = [archive for archive in archives if (archive.kind, archive.vmid) in ids]
    if not found:
        raise StorageError(
            f"there is no archive of guest {guest!r} on storage {storage.name!r}",
            hint=f"`holdfast archives --storage {storage.name}` lists what there is",
        )
    return max(found, key=lambda archive: (not dated_ahead(archive), archive.time))


def _refs(host: Host) -> list[GuestRef]:
    from .guests import guest_refs

    return guest_refs(host)
