# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What verifications hand back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .results import instant

STATES = ("ok", "unknown", "damaged", "failed", "fresh", "gone", "planned")


@dataclass(frozen=True)
class Finding:
    """What is wrong with an archive.

    :param volume: key of the volume that it is about, if it is about one; :param offset: bytes of the uncompressed
        archive that were read when it showed, ``None`` when it showed elsewhere.
    """

    cause: str
    remedy: str
    volume: str | None = None
    offset: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"cause": self.cause, "remedy": self.remedy, "volume": self.volume, "offset": self.offset}


@dataclass
class VerifiedVolume:
    """The content of one volume, or of a container's ``tar``.

    :param sha256: what was read, ``None`` if it cannot be told; :param recorded: what was written, ``None`` if nobody
        noted it.
    """

    key: str
    sha256: str | None
    recorded: str | None

    @property
    def state(self) -> str:
        if self.recorded is None:
            return "unknown"
        return "ok" if self.recorded == self.sha256 else "damaged"

    def to_dict(self) -> dict[str, Any]:
        return {"key": self.key, "state": self.state, "sha256": self.sha256, "recorded": self.recorded}


@dataclass
class VerifiedArchive:
    """What a verification says of one archive.

    :param state: ``ok``; ``unknown``: all can be read, but nobody noted what was written; ``damaged``; ``failed``: it
        could not be verified; ``fresh``: left alone, verified not long ago; ``gone``: removed meanwhile; ``planned``.
    :param name: of the guest, as the archive says; :param before: what the verification before this one said.
    :param read: bytes of uncompressed content that were read.
    """

    archive: str
    path: str
    kind: str
    vmid: int | None
    time: float
    size: int
    level: str
    before: dict[str, Any] | None = None
    state: str = "planned"
    name: str = ""
    reason: str = ""
    volumes: list[VerifiedVolume] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    read: int = 0
    duration: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "archive": self.archive,
            "path": self.path,
            "kind": self.kind,
            "vmid": self.vmid,
            "name": self.name,
            **instant("time", self.time),
            "size": self.size,
            "level": self.level,
            "before": self.before,
            "state": self.state,
            "reason": self.reason,
            "volumes": [volume.to_dict() for volume in self.volumes],
            "findings": [finding.to_dict() for finding in self.findings],
            "read": self.read,
            "duration": None if self.duration is None else round(self.duration, 3),
        }


@dataclass
class VerifyResult:
    """One verification of any number of archives."""

    id: str
    node: str
    level: str
    started: float
    archives: list[VerifiedArchive] = field(default_factory=list)
    finished: float | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether no archive is damaged or could not be verified."""
        return not self.bad

    @property
    def bad(self) -> list[VerifiedArchive]:
        return [one for one in self.archives if one.state in ("damaged", "failed")]

    @property
    def changed(self) -> bool:
        """Whether any archive was, or would be, verified."""
        return any(one.state not in ("fresh", "gone") for one in self.archives)

    @property
    def findings(self) -> list[dict[str, Any]]:
        """All findings with the archive that each is about."""
        return [
            {"archive": one.archive, "path": one.path, "kind": one.kind, "vmid": one.vmid, "name": one.name, **finding}
            for one in self.archives
            for finding in (each.to_dict() for each in one.findings)
        ]

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "node": self.node,
            "level": self.level,
            "ok": self.ok,
            "changed": self.changed,
            **instant("started", self.started),
            **instant("finished", self.finished),
            "counts": {state: sum(one.state == state for one in self.archives) for state in STATES},
            "archives": [one.to_dict() for one in self.archives],
            "findings": self.findings,
            "warnings": self.warnings,
        }
