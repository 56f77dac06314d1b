# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tasks hand back: data classes whose ``to_dict()`` is plain JSON.

Sizes are bytes, durations seconds, times RFC 3339 in UTC under ``…`` plus seconds since 1970 under ``…_epoch``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


def rfc3339(epoch: float) -> str:
    """``2026-03-09T20:00:00Z``"""
    return datetime.fromtimestamp(int(epoch), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(name: str, epoch: float | None) -> dict[str, Any]:
    """The two members of a result that tell one time."""
    return {
        name: None if epoch is None else rfc3339(epoch),
        f"{name}_epoch": None if epoch is None else int(epoch),
    }


@dataclass
class GuestOutcome:
    """What became of one guest in a backup run.

    :param status: ``ok``, ``failed``, ``skipped`` (never tried because the run was stopped) or ``fresh`` (a good
        archive is young enough).
    :param mode: mode in effect; :param requested_mode: mode asked for. They differ for stopped guests and fallbacks.
    :param archive: volume id of the archive made, or of the fresh one found.
    :param size: bytes of the guest's volumes; :param archive_size: bytes of the archive.
    :param speed: bytes of guest data per second.
    :param progress: counters in bytes: ``done`` of ``total``, ``zero`` (not stored), ``written`` to the archive.
    :param timings: ``freeze_seconds``, ``pause_seconds``, ``downtime_seconds`` (``None``: did not happen) and
        ``guest_frozen``.
    :param digests: SHA-256 of each disk by its key, or of a container's ``tar``.
    :param pruned: volume ids that retention removed after this backup.
    :param log: path of the guest's log.
    """

    vmid: int
    name: str
    kind: str
    status: str = "skipped"
    mode: str | None = None
    requested_mode: str | None = None
    archive: str | None = None
    path: str | None = None
    size: int | None = None
    archive_size: int | None = None
    started: float | None = None
    duration: float | None = None
    speed: int | None = None
    progress: dict[str, int] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    disks: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    pruned: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    log: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "vmid": self.vmid,
            "name": self.name,
            "kind": self.kind,
            "status": self.status,
            "mode": self.mode,
            "requested_mode": self.requested_mode,
            "archive": self.archive,
            "path": self.path,
            "size": self.size,
            "archive_size": self.archive_size,
            **instant("started", self.started),
            "duration": None if self.duration is None else round(self.duration, 3),
            "speed": self.speed,
            "progress": self.progress,
            "timings": self.timings,
            "disks": self.disks,
            "digests": self.digests,
            "pruned": self.pruned,
            "warnings": self.warnings,
            "error": self.error,
            "log": self.log,
        }


@dataclass
class RunResult:
    """One backup run: what was asked and what became of every guest.

    :param state: ``running``, ``finished``, ``failed`` (as a whole, see ``error``), ``aborted`` (the process died) or
        ``interrupted`` (a signal stopped it).
    :param log: path of what the run said.
    """

    id: str
    node: str
    storage: str | None
    job: str | None
    started: float
    options: dict[str, Any] = field(default_factory=dict)
    guests: list[GuestOutcome] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    state: str = "running"
    finished: float | None = None
    error: dict[str, Any] | None = None
    log: str | None = None

    @property
    def ok(self) -> bool:
        """Whether no guest failed and none was left out by an interruption."""
        return self.error is None and all(guest.status in ("ok", "fresh") for guest in self.guests)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return any(guest.status not in ("fresh", "skipped") for guest in self.guests)

    def to_dict(self) -> dict[str, Any]:
        counts = {
            status: sum(guest.status == status for guest in self.guests)
            for status in ("ok", "failed", "skipped", "fresh")
        }
        return {
            "id": self.id,
            "node": self.node,
            "storage": self.storage,
            "job": self.job,
            "state": self.state,
            "ok": self.ok,
            "changed": self.changed,
            **instant("started", self.started),
            **instant("finished", self.finished),
            "duration": None if self.finished is None else round(self.finished - self.started, 3),
            "size": sum(guest.size or 0 for guest in self.guests if guest.status == "ok"),
            "archive_size": sum(guest.archive_size or 0 for guest in self.guests if guest.status == "ok"),
            "counts": counts,
            "guests": [guest.to_dict() for guest in self.guests],
            "external": self.skipped,
            "options": self.options,
            "warnings": self.warnings,
            "error": self.error,
            "log": self.log,
        }


@dataclass
class PlannedGuest:
    """What a backup run would do with one guest.

    :param action: ``backup``, ``fresh`` (left alone: ``reason`` says which archive is young enough) or ``missing``
        (asked for, but no guest has that id or name).
    :param mode: mode that would be in effect, as far as it can be known before.
    :param archive: volume id of the archive that is young enough.
    """

    vmid: int
    name: str
    kind: str
    action: str
    mode: str
    requested_mode: str
    reason: str = ""
    archive: str | None = None
    disks: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "vmid": self.vmid,
            "name": self.name,
            "kind": self.kind,
            "action": self.action,
            "archive": self.archive,
            "mode": self.mode,
            "requested_mode": self.requested_mode,
            "reason": self.reason,
            "disks": self.disks,
            "warnings": self.warnings,
        }


@dataclass
class BackupPlan:
    """What a backup run would do.

    :param options: every option in effect; :param sources: which layer each came from.
    :param skipped: ids of guests on other nodes.
    """

    node: str
    storage: str | None
    job: str | None
    options: dict[str, Any]
    sources: dict[str, str]
    guests: list[PlannedGuest]
    skipped: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return any(guest.action != "fresh" for guest in self.guests)

    def to_dict(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "storage": self.storage,
            "job": self.job,
            "changed": self.changed,
            "options": self.options,
            "sources": self.sources,
            "guests": [guest.to_dict() for guest in self.guests],
            "external": self.skipped,
            "warnings": self.warnings,
        }


@dataclass
class MarkedArchive:
    """One archive as retention sees it.

    :param mark: ``keep``, ``remove``, ``protected`` or ``renamed``.
    :param rule: why, for people: the option that keeps it, or what removes it.
    :param removed: whether it was removed (never in a plan); :param error: why it could not be.
    """

    archive: str
    kind: str
    vmid: int | None
    time: float
    size: int
    mark: str
    rule: str
    removed: bool = False
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "archive": self.archive,
            "kind": self.kind,
            "vmid": self.vmid,
            **instant("time", self.time),
            "size": self.size,
            "mark": self.mark,
            "rule": self.rule,
            "removed": self.removed,
            "error": self.error,
        }


@dataclass
class PruneResult:
    """Every archive of a storage with mark and rule, before (plan) or after retention was applied."""

    storage: str
    keep: str
    archives: list[MarkedArchive]

    @property
    def changed(self) -> bool:
        return any(archive.mark == "remove" for archive in self.archives)

    def to_dict(self) -> dict[str, Any]:
        doomed = [archive for archive in self.archives if archive.mark == "remove"]
        return {
            "storage": self.storage,
            "keep": self.keep,
            "changed": self.changed,
            "archives": [archive.to_dict() for archive in self.archives],
            "freed": sum(archive.size for archive in doomed),
        }


@dataclass
class PlannedVolume:
    """A volume that a restore makes.

    :param key: key in the guest's config (``scsi0``, ``rootfs``); :param volid: ``None`` until it is allocated.
    :param allocated: bytes that it takes on its storage after the restore, ``None`` when that cannot be told.
    """

    key: str
    storage: str
    format: str
    size: int | None
    volid: str | None = None
    source: str | None = None
    allocated: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "storage": self.storage,
            "format": self.format,
            "size": self.size,
            "allocated": self.allocated,
            "volid": self.volid,
            "source": self.source,
        }


@dataclass
class RestoreResult:
    """What a restore would do (``state`` ``planned``), or did (``restored``, or ``exists``: nothing to do)."""

    archive: str
    vmid: int
    kind: str
    name: str
    state: str
    volumes: list[PlannedVolume] = field(default_factory=list)
    replaces: bool = False
    freed: list[str] = field(default_factory=list)
    config: str = ""
    config_path: str = ""
    started: bool = False
    dropped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    size: int | None = None
    archive_size: int | None = None
    duration: float | None = None
    speed: int | None = None

    @property
    def changed(self) -> bool:
        return self.state != "exists"

    def to_dict(self) -> dict[str, Any]:
        return {
            "archive": self.archive,
            "vmid": self.vmid,
            "kind": self.kind,
            "name": self.name,
            "state": self.state,
            "changed": self.changed,
            "volumes": [volume.to_dict() for volume in self.volumes],
            "replaces": self.replaces,
            "freed": self.freed,
            "config": self.config,
            "config_path": self.config_path,
            "started": self.started,
            "dropped": self.dropped,
            "warnings": self.warnings,
            "size": self.size,
            "archive_size": self.archive_size,
            "duration": None if self.duration is None else round(self.duration, 3),
            "speed": self.speed,
        }


@dataclass(frozen=True)
class SecretFile:
    """A file with a secret, as a change leaves it.

    :param text: its one line, ``None`` to remove it; :param existed: whether there is one before.
    """

    path: str
    text: str | None = field(repr=False)
    existed: bool


@dataclass(frozen=True)
class Change:
    """A change of a definition, planned or made.

    :param before: the definition's keys before, ``None`` when it did not exist; :param after: the same afterwards.
    :param before_text: the section as it stands in the file; :param after_text: as it will stand there.
    :param path: the file; :param text: that file's whole new content; :param base: its content when this was planned.
    :param secret: a file that is written or removed with it, where that changes.
    """

    path: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    before_text: str
    after_text: str
    text: str
    warnings: tuple[str, ...] = ()
    base: str | None = None
    secret: SecretFile | None = None

    @property
    def changed(self) -> bool:
        return self.before_text != self.after_text or self.secret is not None

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "changed": self.changed,
            "before": self.before,
            "after": self.after,
            "before_text": self.before_text,
            "after_text": self.after_text,
            "warnings": list(self.warnings),
        }
