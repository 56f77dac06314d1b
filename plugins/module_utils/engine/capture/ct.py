# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capturing containers: ``stop``, ``suspend`` (two rsync passes, the second one frozen) and ``snapshot``."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator

from ..guests.lxc.guest import LxcGuest
from ..guests.lxc.tools import START
from ..rules.excludes import STANDARD, Pattern, is_excluded, parse_pattern
from ..settings.ct_config import Mount
from ..storages.volumes.base import Volume
from ..storages.volumes.registry import volume_at
from ..system.report import Reporter
from ..system.undo import UndoStack
from .ct_archive import CapturedContainer, write_config
from .ct_copy import copy_tree
from .ct_trees import UNDO, Mounter, Trees, mount_snapshots
from .model import CaptureOptions, Timings

__all__ = ["UNDO", "capture_ct"]


@contextlib.contextmanager
def capture_ct(
    guest: LxcGuest, mode: str, options: CaptureOptions, undo: UndoStack, report: Reporter
) -> Iterator[CapturedContainer]:
    """Hold a consistent state of a container while the block runs.

    :param mode: ``snapshot`` falls back to ``suspend`` where a volume cannot be snapshotted; a container that does not
        run is read as it is (``stop``).
    :raises GuestError: the container cannot be brought into that state; it runs again as before.
    """
    patterns = [parse_pattern(text) for text in (*options.exclude_path, *(STANDARD if options.stdexcludes else ()))]
    mounts = guest.mounts()
    included = [mount for mount in mounts if mount.included and not _left_out(mount, patterns)]
    _tell(mounts, included, report)
    running = guest.status() != "stopped"
    volumes = [(mount, volume_at(guest.source(mount))) for mount in included]
    _remove_stale(volumes, report)
    _warn_of_others(volumes, patterns, report)
    mode = _effective(mode, running, volumes, report)
    options.phases.begin(mode)
    captured = CapturedContainer(
        mode=mode,
        vmid=guest.info.vmid,
        timings=Timings(),
        disks=[_describe(mount, mount in included) for mount in mounts],
        workdir=options.workdir,
        members=write_config(guest, options.workdir),
        patterns=patterns,
        idmaps=guest.shift(),
    )
    with contextlib.ExitStack() as stack:
        if mode == "suspend":
            copy_tree(guest, mounts, included, patterns, options, undo, report, captured.timings)
            captured.trees, captured.patterns = Trees(["."]), []
            # The copy has the owners that a process outside the container sees, whatever maps them.
            captured.idmaps = guest.idmaps()
        elif mode == "snapshot":
            mounter = stack.enter_context(Mounter(options.workdir, guest.info.vmid, undo))
            captured.trees = mount_snapshots(guest, mounter, volumes, options.phases, report, captured.timings)
        else:
            if running:
                stack.enter_context(_stopped(guest, options, undo, report, captured.timings))
            mounter = stack.enter_context(Mounter(options.workdir, guest.info.vmid, undo))
            captured.trees = mounter.mount_all(volumes)
        yield captured


def _effective(mode: str, running: bool, volumes: list[tuple[Mount, Volume]], report: Reporter) -> str:
    if not running:
        return "stop"
    if mode == "snapshot":
        incapable = [f"{mount.key} ({mount.volume})" for mount, volume in volumes if not volume.can_snapshot()]
        if incapable:
            report.warn(
                f"mode failure - some volumes do not support snapshots: {', '.join(incapable)};"
                " trying 'suspend' mode instead"
            )
            return "suspend"
    return mode


def _left_out(mount: Mount, patterns: list[Pattern]) -> bool:
    inside = mount.mountpoint.strip("/").encode("utf-8", "surrogateescape")
    return bool(inside) and is_excluded(patterns, inside, folder=True)


def _tell(mounts: list[Mount], included: list[Mount], report: Reporter) -> None:
    for mount in mounts:
        word = "including" if mount in included else "excluding"
        reason = mount.reason if mount in included or not mount.included else "exclude_path matches it"
        report.info(f"{word} {mount.type} mount point {mount.key} ({mount.mountpoint!r}): {reason}")


def _describe(mount: Mount, included: bool) -> dict[str, object]:
    return {
        "key": mount.key,
        "volid": mount.volume,
        "mountpoint": mount.mountpoint,
        "size": mount.options.get("size"),
        "included": included,
        "reason": mount.reason if included or not mount.included else "exclude_path matches it",
    }


def _remove_stale(volumes: list[tuple[Mount, Volume]], report: Reporter) -> None:
    """What has the name of our snapshots and is in no journal; made by another tool, or its journal was lost."""
    for mount, volume in volumes:
        if volume.has_snapshot():
            report.warn(f"found old vzdump snapshot of {mount.key} ({volume.source}), removing it")
            volume.remove_snapshot()


def _warn_of_others(volumes: list[tuple[Mount, Volume]], patterns: list[Pattern], report: Reporter) -> None:
    """Subvolumes that the container made in its own: no snapshot has what is in them, and other modes stay outside."""
    for mount, volume in volumes:
        for name in volume.apart():
            path = os.path.join(mount.mountpoint.strip("/"), name)
            if not is_excluded(patterns, os.fsencode(path), folder=True):
                report.warn(
                    f"/{path} is a btrfs subvolume of its own inside {mount.key}: the backup has it as an empty folder;"
                    " make it a plain folder or a mount point, or leave it out by exclude_path"
                )


@contextlib.contextmanager
def _stopped(
    guest: LxcGuest, options: CaptureOptions, undo: UndoStack, report: Reporter, timings: Timings
) -> Iterator[None]:
    """The container is down while the block runs."""
    with options.phases.interruption() as restarting:
        began = time.monotonic()
        token = undo.push(START, **guest.undo_data, was=guest.init_pid())
        try:
            report.info("stopping container")
            guest.shutdown(options.stopwait)
            yield
        finally:
            try:
                restarting()
            finally:
                report.info("starting container")
                undo.undo(token)
            timings.downtime_seconds = time.monotonic() - began
            report.info(f"container is online again after {timings.downtime_seconds:.1f} s")
