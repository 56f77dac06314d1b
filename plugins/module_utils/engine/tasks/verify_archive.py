# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The verification of one archive: companions, structure, and at the level ``data`` every byte."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..errors import IntegrityError
from ..storages.dump import Archive
from ..stream.progress import Progress
from ..stream.source import Source, open_source
from ..system.report import Reporter
from .archives import verified_dict
from .restore_config import get_key
from .restore_plan import archive_guest, read_contents
from .restore_vm import mapped_disks
from .verify_results import Finding, VerifiedArchive, VerifiedVolume

REMEDY = "keep an older archive of the guest, back it up again, and look after the disk that holds this one"


@dataclass
class _Look:
    """One archive under verification.

    :ivar disks: for VMs, the device in the archive of each drive; :ivar total: bytes of its uncompressed content, 0 if
        that is not known.
    """

    archive: Archive
    result: VerifiedArchive
    kind: str = ""
    disks: dict[str, str] = field(default_factory=dict)
    total: int = 0

    @property
    def recorded(self) -> dict[str, str]:
        return dict(self.archive.record.digests)

    def found(self, cause: str, *, remedy: str = "", volume: str | None = None, offset: int | None = None) -> None:
        self.result.findings.append(Finding(cause, remedy or REMEDY, volume, offset))

    def failed(self, exc: IntegrityError, offset: int | None = None) -> None:
        self.found(exc.message, remedy=exc.hint, offset=offset)


def begin(archive: Archive, level: str) -> VerifiedArchive:
    """What is known of an archive before it is looked at."""
    return VerifiedArchive(
        archive=archive.volid,
        path=archive.path,
        kind=archive.kind,
        vmid=archive.vmid,
        time=archive.time,
        size=archive.size,
        level=level,
        before=verified_dict(archive),
    )


def verify_archive(archive: Archive, result: VerifiedArchive, bwlimit: int, report: Reporter) -> None:
    """Verify an archive, never changing it; ``result`` gets what comes out.

    :raises StorageError: the file cannot be read; :raises DependencyError: a program to unpack it is missing.
    """
    began = time.monotonic()
    look = _Look(archive, result)
    _check_companions(look)
    try:
        _check_contents(look)
        if result.level == "data":
            _check_indexes(look)
            _check_data(look, bwlimit, report)
        elif not _check_indexes(look):
            _check_structure(look, bwlimit)
    except IntegrityError as exc:
        look.failed(exc)
    unknown = any(volume.state == "unknown" for volume in result.volumes)
    result.state = "damaged" if result.findings else "unknown" if unknown else "ok"
    result.duration = time.monotonic() - began


def _check_companions(look: _Look) -> None:
    archive = look.archive
    if archive.record.problem:
        look.result.warnings.append(f"{archive.record.problem}; what was written is not known")
    if archive.record.size not in (None, archive.size):
        look.found(f"it has {archive.size} bytes, but was written with {archive.record.size}")
    if any("\udc80" <= char <= "\udcff" for char in archive.notes):
        look.result.warnings.append("its notes are no UTF-8 text; `holdfast archive --notes` writes them anew")


def _check_contents(look: _Look) -> None:
    """What a restore reads first: the config, and for VMs whether it fits the disks in the archive."""
    look.kind = archive_guest(look.archive)
    contents = read_contents(look.archive, look.kind)
    if look.kind == "lxc":
        look.result.name = get_key(contents.config, "hostname") or ""
        if get_key(contents.config, "rootfs") is None:
            raise IntegrityError("its config has no rootfs")
        return
    look.result.name = get_key(contents.config, "name") or ""
    look.disks = {line.key: line.device for line in mapped_disks(contents.config, contents.devices)}
    look.total = sum(contents.devices.values())


def _check_indexes(look: _Look) -> bool:
    """Check seek table and cluster map; returns whether the structure is known by them."""
    from ..capture.verify import check_indexes

    try:
        return check_indexes(look.archive.path, look.kind, expected=bool(look.recorded))
    except IntegrityError as exc:
        # The data behind a wrong index may be whole, and a restore reads it without.
        look.failed(exc)
        return True


def _check_structure(look: _Look, bwlimit: int) -> None:
    from ..capture.verify import ct_structure, vm_structure

    with open_source(look.archive.path, bwlimit) as source:
        try:
            (ct_structure if look.kind == "lxc" else vm_structure)(source)
        except IntegrityError as exc:
            look.failed(exc, source.position)
        look.result.read = source.position


def _check_data(look: _Look, bwlimit: int, report: Reporter) -> None:
    with open_source(look.archive.path, bwlimit) as source:
        progress = Progress(look.total or source.total, report)
        try:
            digests = _digests(look, source, progress)
        except IntegrityError as exc:
            look.failed(exc, source.position)
            return
        finally:
            look.result.read = source.position
        progress.finish()
    for key, digest in digests.items():
        volume = VerifiedVolume(key, digest, look.recorded.get(key))
        look.result.volumes.append(volume)
        if volume.state == "damaged":
            look.found(f"the content of {key} is not what was written", volume=key)
    for key in sorted(set(look.recorded) - set(digests)):
        look.found(f"{key} is missing: it was written, but the archive does not hold it", volume=key)


def _digests(look: _Look, source: Source, progress: Progress) -> dict[str, str | None]:
    from ..capture.verify import ct_digest, vm_digests

    if look.kind == "lxc":
        return {"tar": ct_digest(source, progress)}
    by_device = vm_digests(source, progress)
    return {key: by_device[device] for key, device in look.disks.items()}
