# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A folder of archives in the layout of Proxmox VE's ``dump`` folder, with the companions of each archive.

Beside ``vzdump-qemu-100-2026_03_10-02_00_00.vma.zst`` stand ``….vma.zst.notes``, ``….vma.zst.protected``, our own
``….vma.zst.record`` (see :mod:`..settings.archive_record`) and, without the archive's extension, ``….log``. An archive
that is being written ends in ``.dat`` and is never listed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from typing import Any, Mapping

from ..errors import ConfigError, StorageError, UsageError
from ..rules.names import ArchiveName, KnownName, parse_name
from ..settings.archive_record import MAX_BYTES, ArchiveRecord, parse_record, write_record
from ..system.files import create_anew, fsync_dir, read_small, remove_temporaries, write_atomic
from ..system.trouble import refusal
from ..system.undo import UndoStack
from .mounts import mount_table, space

_LISTED = re.compile(r"\.(tgz|(?:tar|vma)(?:\.(?:gz|lzo|zst|bz2))?)$")
_VMID_INSIDE = re.compile(r"-([1-9][0-9]{2,8})-.+\.")

MAX_NOTES = 1 << 20
"""Bytes of notes that are read."""
PARTIAL = "storage.partial"
"""Undo kind: a partial archive and the companions that were written ahead of it."""


@dataclass(frozen=True)
class Archive:
    """One archive on a storage.

    :param name: parsed file name; ``None`` when it does not have the standard form (such files are never pruned).
    :param kind: ``qemu``, ``lxc`` or ``unknown``.
    :param time: seconds since 1970, from the name if it is standard, else of the last inode change.
    :param format: extension without the first dot (``vma.zst``).
    :param notes: the whole text, empty when there is none; :param log: path of the log, if there is one.
    """

    storage: str
    volid: str
    path: str
    filename: str
    name: ArchiveName | None
    kind: str
    vmid: int | None
    time: float
    size: int
    format: str
    notes: str
    protected: bool
    log: str | None
    record: ArchiveRecord = field(default_factory=ArchiveRecord)

    @property
    def good(self) -> bool:
        """Whether a guest could be restored from it, as far as is known: crashes of storages leave empty files."""
        return self.size > 0 and not self.record.damaged


class DumpFolder:
    """The archives of one storage.

    :param storage: name of the storage, for volume ids and messages.
    :param path: the folder.
    :param max_protected: how many archives of one guest may be protected; negative means any number.
    :param point: where the storage is mounted by this program; empty if it is not.
    """

    def __init__(self, storage: str, path: str, max_protected: int = -1, point: str = "") -> None:
        self.storage = storage
        self.path = path
        self.max_protected = max_protected
        self._point = point

    def list_archives(self, vmid: int | None = None, kind: str | None = None) -> list[Archive]:
        """Complete archives in the order of their file names.

        :raises StorageError: the folder cannot be read.
        """
        try:
            names = sorted(os.listdir(self.path))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise refusal(StorageError, f"list the archives in {self.path}", exc) from exc
        found = [archive for archive in map(self._look, names) if archive is not None]
        return [
            archive
            for archive in found
            if (vmid is None or archive.vmid == vmid) and (kind is None or archive.kind == kind)
        ]

    def find(self, filename: str) -> Archive:
        """The archive of that file name.

        :raises StorageError: there is none.
        """
        archive = self._look(filename) if os.path.basename(filename) == filename else None
        if archive is None:
            raise StorageError(
                f"there is no archive {filename!r} on storage {self.storage!r}",
                hint=f"`holdfast archives --storage {self.storage}` lists them",
            )
        return archive

    def describe(self, filename: str) -> Archive | None:
        """The archive of that file name, or ``None`` when there is no such file or it is not an archive's name."""
        return self._look(filename)

    def partial_path(self, name: ArchiveName) -> str:
        """Where an archive is written before it is complete: the last suffix replaced by ``.dat``."""
        return os.path.join(self.path, os.path.splitext(name.filename)[0] + ".dat")

    def final_path(self, name: ArchiveName) -> str:
        return os.path.join(self.path, name.filename)

    def log_path(self, name: ArchiveName) -> str:
        """The log beside an archive: its name without any archive extension."""
        return os.path.join(self.path, name.log)

    def begin(self, name: ArchiveName, undo: UndoStack) -> tuple[str, int]:
        """Reserve the partial file of a new archive.

        :returns: its path and the undo token that :meth:`commit` closes.
        :raises StorageError: an archive of that name exists already, or the file cannot be created.
        """
        partial, final = self.partial_path(name), self.final_path(name)
        if os.path.lexists(final):
            raise StorageError(
                f"cannot write archive {final}: it exists already", hint="archives are never overwritten; try again"
            )
        token = undo.push(PARTIAL, partial=partial, final=final, storage=self.storage, point=self._point)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        except OSError as exc:
            raise StorageError(
                f"cannot create {partial}: {exc.strerror}", hint=f"check the file system of {self.path}"
            ) from exc
        return partial, token

    def commit(
        self,
        name: ArchiveName,
        undo: UndoStack,
        token: int,
        *,
        notes: str = "",
        protected: bool = False,
        digests: Mapping[str, str] | None = None,
    ) -> Archive:
        """Make a complete partial file appear as archive, together with its companions.

        They are written before the archive gets its name, so that it never exists without them.

        :param digests: of its content, for its record.
        :raises StorageError: the name is taken, or the file system refused; nothing appears then.
        """
        partial, final = self.partial_path(name), self.final_path(name)
        try:
            _sync(partial)
            if notes:
                _write_companion(final + ".notes", notes)
            if protected:
                _write_companion(final + ".protected", "")
            if digests:
                record = ArchiveRecord(os.path.getsize(partial), digests)
                _write_companion(final + ".record", write_record(record))
            _publish(partial, final)
            fsync_dir(self.path)
        except FileExistsError as exc:
            raise StorageError(f"cannot name the new archive {final}: it exists already") from exc
        except OSError as exc:
            raise refusal(StorageError, f"complete the archive {final}", exc) from exc
        undo.drop(token)
        return self.find(name.filename)

    def remove(self, archive: Archive) -> None:
        """Remove an archive, its notes, its record and its log.

        :raises StorageError: it is protected, or cannot be removed.
        """
        if os.path.lexists(archive.path + ".protected"):
            raise StorageError(
                f"cannot remove archive {archive.volid}: it is protected", hint="take its protection away first"
            )
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(archive.path)
            companions = [archive.path + ".notes", archive.path + ".record"]
            if archive.name is not None:
                companions.append(self.log_path(archive.name))
            for companion in companions:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(companion)
            fsync_dir(self.path)
        except OSError as exc:
            raise refusal(StorageError, f"remove archive {archive.volid}", exc) from exc

    def set_notes(self, archive: Archive, notes: str) -> None:
        """Replace the notes; an empty text removes them."""
        path = archive.path + ".notes"
        try:
            if notes:
                write_atomic(path, notes)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        except OSError as exc:
            raise refusal(StorageError, f"change the notes of {archive.volid}", exc) from exc

    def set_record(self, archive: Archive, record: ArchiveRecord) -> None:
        """Replace the record of an archive; does nothing when the archive is gone.

        :raises StorageError: it cannot be written.
        """
        path = archive.path + ".record"
        try:
            if os.path.exists(archive.path):
                remove_temporaries(path)
                write_atomic(path, write_record(record))
        except OSError as exc:
            raise refusal(StorageError, f"write the record of {archive.volid}", exc) from exc

    def set_protected(self, archive: Archive, protected: bool) -> None:
        """Protect an archive from removal, or take the protection away.

        :raises StorageError: the guest has as many protected archives as the storage allows.
        """
        path = archive.path + ".protected"
        try:
            if not protected:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            elif not os.path.lexists(path):
                if archive.vmid is not None:
                    self.check_protected_limit(archive.kind, archive.vmid)
                write_atomic(path, b"")
        except OSError as exc:
            raise refusal(StorageError, f"change the protection of {archive.volid}", exc) from exc

    def check_protected_limit(self, kind: str, vmid: int) -> None:
        """:raises StorageError: one more protected archive of this guest would be too many."""
        if self.max_protected < 0:
            return
        count = sum(archive.protected for archive in self.list_archives(vmid, kind))
        if count >= self.max_protected:
            raise StorageError(
                f"the number of protected backups per guest is limited to {self.max_protected}"
                f" on storage {self.storage!r}, and {kind} {vmid} has {count}",
                hint="take the protection from an older archive, or raise max-protected-backups",
            )

    def put_log(self, name: ArchiveName, source: str) -> str:
        """Copy a finished log beside the archive (also when the archive failed); returns its path.

        :raises StorageError: the storage does not answer.
        """
        _check_mounted(self._point, self.storage)
        target = self.log_path(name)
        with open(source, "rb") as log, os.fdopen(create_anew(target, 0o640), "wb") as copy:
            shutil.copyfileobj(log, copy)
        return target

    def _look(self, filename: str) -> Archive | None:
        listed = _LISTED.search(filename)
        path = os.path.join(self.path, filename)
        if listed is None or filename.startswith(".") or not os.path.isfile(path):
            return None
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        known = _known_name(filename)
        name = known if isinstance(known, ArchiveName) else None
        inside = _VMID_INSIDE.search(filename)
        log = None if name is None else self.log_path(name)
        return Archive(
            storage=self.storage,
            volid=f"{self.storage}:backup/{filename}",
            path=path,
            filename=filename,
            name=name,
            kind="unknown" if known is None else known.kind,
            vmid=name.vmid if name is not None else int(inside[1]) if inside else None,
            time=name.time if name is not None else status.st_ctime,
            size=status.st_size,
            format=listed[1],
            notes=read_small(path + ".notes", MAX_NOTES) or "",
            protected=os.path.lexists(path + ".protected"),
            log=log if log is not None and os.path.exists(log) else None,
            record=_read_record(path + ".record"),
        )


def undo_partial(data: Mapping[str, Any]) -> None:
    """Remove a partial archive; its companions too, unless the archive did get its name.

    :raises StorageError: the storage is not mounted, or does not answer.
    """
    _check_mounted(str(data.get("point") or ""), str(data.get("storage")))
    final = str(data["final"])
    doomed = [str(data["partial"])]
    if not os.path.lexists(final):
        doomed += [final + ".notes", final + ".protected", final + ".record"]
    for path in doomed:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _check_mounted(point: str, storage: str) -> None:
    """Where an archive lies on another machine: one look that is bounded in time, instead of an access that may not be.

    :raises StorageError: the storage is not mounted, so that nobody can tell what is on it, or does not answer.
    """
    if not point:
        return
    if not any(one.point == point for one in mount_table()):
        raise StorageError(
            f"storage {storage!r} is not mounted on {point}", hint=f"mount it: `holdfast storage {storage} --mount`"
        )
    space(point)


def _known_name(filename: str) -> KnownName | None:
    """What the name says; containers of OpenVZ are containers like others."""
    try:
        known = parse_name(filename)
    except UsageError:
        return None
    return replace(known, kind="lxc") if known.kind == "openvz" else known


def _read_record(path: str) -> ArchiveRecord:
    """The record of an archive; an empty one when there is none."""
    try:
        text = read_small(path, MAX_BYTES)
        return ArchiveRecord() if text is None else parse_record(text)
    except OSError as exc:
        return ArchiveRecord(problem=f"the archive's record cannot be read: {exc.strerror}")
    except ConfigError as exc:
        return ArchiveRecord(problem=exc.message)


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_companion(path: str, text: str) -> None:
    """Nobody looks at it before the archive has its name, and the undo entry knows it: no temporary file is needed."""
    with os.fdopen(create_anew(path, 0o644), "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _publish(partial: str, final: str) -> None:
    """Give the file its final name without ever replacing another one."""
    try:
        os.link(partial, final)
    except FileExistsError:
        raise
    except OSError:
        # File systems without hard links (CIFS, FAT): the guest's lock keeps others from taking the name in between.
        if os.path.lexists(final):
            raise FileExistsError(final) from None
        os.rename(partial, final)
    else:
        os.unlink(partial)
