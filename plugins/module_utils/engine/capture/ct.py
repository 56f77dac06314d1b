# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Capturing containers: ``stop``, ``suspend`` (two rsync passes, the second one frozen) and ``snapshot`` (btrfs)."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Iterator, Mapping

from ..errors import GuestError
from ..formats.cttar import STANDARD_EXCLUDES, exclude_warnings
from ..guests.lxc.guest import START, THAW, LxcGuest
from ..settings.ct_config import Mount
from ..storages.images import free_path
from ..storages.mounts import filesystem_type, is_mount_point
from ..system.process import run
from ..system.report import Reporter
from ..system.undo import Handler, UndoStack
from .ct_archive import CapturedContainer, write_config
from .model import CaptureOptions, Timings

SNAPSHOT = "capture.ct.snapshot"
"""Undo kind: a snapshot taken for a backup: ``path``."""
MOUNT = "capture.ct.mount"
"""Undo kind: a volume mounted for reading: ``path``."""

SUFFIX = "@vzdump"
"""Snapshots stand beside their volume under its name with this suffix; whatever has that name is ours to remove."""

_BTRFS_SUBVOLUME_INODE = 256
_VANISHED = 24


def _undo_mount(data: Mapping[str, Any]) -> None:
    path = str(data["path"])
    if is_mount_point(path):
        run(["umount", "--", path], timeout=60, error=GuestError, hint=f"umount {path}")


UNDO: dict[str, Handler] = {SNAPSHOT: lambda data: free_path(str(data["path"])), MOUNT: _undo_mount}


@contextlib.contextmanager
def capture_ct(
    guest: LxcGuest, mode: str, options: CaptureOptions, undo: UndoStack, report: Reporter
) -> Iterator[CapturedContainer]:
    """Hold a consistent state of a container while the block runs.

    :param mode: ``snapshot`` falls back to ``suspend`` where a volume cannot be snapshotted; a container that does not
        run is read as it is (``stop``).
    :raises GuestError: the container cannot be brought into that state; it runs again as before.
    """
    mounts = guest.mounts()
    for mount in mounts:
        word = "include" if mount.included else "exclude"
        report.info(f"{word} mount point {mount.key} ({mount.mountpoint!r}): {mount.reason}")
    included = [mount for mount in mounts if mount.included]
    excludes = [*options.exclude_path, *(STANDARD_EXCLUDES if options.stdexcludes else ())]
    for warning in exclude_warnings(excludes):
        report.warn(warning)
    timings = Timings()
    running = guest.status() != "stopped"
    if not running:
        mode = "stop"
    elif mode == "snapshot":
        incapable = [mount for mount in included if not _can_snapshot(guest.place(mount))]
        if incapable:
            names = ", ".join(f"{mount.key} ({mount.volume})" for mount in incapable)
            report.warn(f"mode snapshot is not possible, volumes cannot be snapshotted: {names}; using suspend")
            mode = "suspend"
    config_dir = write_config(guest, options.workdir)
    if mode == "suspend":
        data_root, sources = _copy(guest, mounts, excludes, options, undo, report, timings), ["."]
        yield _captured(guest, mode, timings, included, config_dir, data_root, sources, excludes)
        return
    began = time.monotonic()
    started_again: int | None = None
    if mode == "stop" and running:
        report.info("stopping container")
        started_again = undo.push(START, **guest.undo_data, was=guest.init_pid())
        guest.shutdown(options.stopwait)
    tokens: list[int] = []
    places = {mount.key: guest.place(mount) for mount in included}
    try:
        if mode == "snapshot":
            places = _snapshot(guest, places, undo, report, timings, tokens)
        data_root = _assemble(guest, included, places, options.workdir, undo, tokens)
        sources = ["./", *(f".{mount.mountpoint}" for mount in included if mount.key != "rootfs")]
        yield _captured(guest, mode, timings, included, config_dir, data_root, sources, excludes)
    finally:
        for token in reversed(tokens):
            undo.undo(token)
        if started_again is not None:
            report.info("starting container")
            undo.undo(started_again)
            timings.downtime_seconds = time.monotonic() - began


def _captured(
    guest: LxcGuest,
    mode: str,
    timings: Timings,
    included: list[Mount],
    config_dir: str,
    data_root: str,
    sources: list[str],
    excludes: list[str],
) -> CapturedContainer:
    disks = [
        {"key": mount.key, "volid": mount.volume, "mountpoint": mount.mountpoint, "size": mount.options.get("size")}
        for mount in included
    ]
    return CapturedContainer(
        mode, guest.info.vmid, timings, disks, config_dir, data_root, sources, excludes, guest.idmaps()
    )


def _can_snapshot(path: str) -> bool:
    return os.stat(path).st_ino == _BTRFS_SUBVOLUME_INODE and filesystem_type(path) == "btrfs"


def _snapshot(
    guest: LxcGuest,
    places: Mapping[str, str],
    undo: UndoStack,
    report: Reporter,
    timings: Timings,
    tokens: list[int],
) -> dict[str, str]:
    """Snapshots of all volumes at one instant; their paths by key."""
    snapshots = {key: path + SUFFIX for key, path in places.items()}
    for key, path in snapshots.items():
        if os.path.lexists(path):
            report.warn(f"found an old backup snapshot of {key}, removing it: {path}")
            free_path(path)
        tokens.append(undo.push(SNAPSHOT, path=path))
    with _frozen(guest, undo, report, timings):
        for key, path in snapshots.items():
            argv = ["btrfs", "-q", "subvolume", "snapshot", "-r", "--", places[key], path]
            run(argv, timeout=120, error=GuestError, hint="the container runs on; nothing was kept")
    return snapshots


@contextlib.contextmanager
def _frozen(guest: LxcGuest, undo: UndoStack, report: Reporter, timings: Timings) -> Iterator[None]:
    token = undo.push(THAW, **guest.undo_data)
    report.info("freezing container")
    began = time.monotonic()
    try:
        guest.freeze()
        yield
    finally:
        undo.undo(token)
        timings.freeze_seconds = time.monotonic() - began
        timings.guest_frozen = True
    report.info(f"container runs again after {timings.freeze_seconds:.2f} s")


def _assemble(
    guest: LxcGuest,
    included: list[Mount],
    places: Mapping[str, str],
    workdir: str,
    undo: UndoStack,
    tokens: list[int],
) -> str:
    """Mount the volumes read-only as one tree; returns its root."""
    root = os.path.join(workdir, "root")
    os.makedirs(root, mode=0o755, exist_ok=True)
    for mount in included:
        place = root if mount.key == "rootfs" else os.path.join(root, mount.mountpoint.strip("/"))
        # A guest could have put a symbolic link there that leads out of its tree; it cannot change any more now.
        if os.path.realpath(place) != os.path.realpath(root) + place[len(root) :] or not os.path.isdir(place):
            raise GuestError(
                f"cannot read {mount.key} of container {guest.info.vmid}: {mount.mountpoint} is not a plain folder"
                " in its root file system",
                hint="make it a folder in the container, or remove the mount point",
            )
        tokens.append(undo.push(MOUNT, path=place))
        run(["mount", "--bind", "--", places[mount.key], place], timeout=60, error=GuestError)
        run(["mount", "-o", "remount,bind,ro", "--", place], timeout=60, error=GuestError)
    return root


def _copy(
    guest: LxcGuest,
    mounts: list[Mount],
    excludes: list[str],
    options: CaptureOptions,
    undo: UndoStack,
    report: Reporter,
    timings: Timings,
) -> str:
    """Two rsync passes, the second one with the container frozen; returns the copy's root."""
    target = os.path.join(options.workdir, "root")
    os.makedirs(target, mode=0o755, exist_ok=True)
    root = f"/proc/{guest.init_pid()}/root"
    extended = [] if filesystem_type(target).startswith("nfs") else ["-X", "-A"]
    if not extended:
        report.warn("the temporary directory is on NFS: ACLs and extended attributes are not kept")
    left_out = [mount.mountpoint for mount in mounts if not mount.included]
    argv = [
        *("rsync", "--stats", "-h", *extended, "--numeric-ids", "-aH", "--delete", "--no-whole-file"),
        *("--sparse", "--one-file-system", "--relative"),
        *(f"--exclude={pattern}" for pattern in [*excludes, *left_out]),
        *(f"{root}/.{mount.mountpoint}" for mount in mounts if mount.included),
        target,
    ]
    _rsync(guest, argv, "first", report, tolerated=(_VANISHED,))
    with _frozen(guest, undo, report, timings):
        _rsync(guest, argv, "final", report, tolerated=())
    return target


def _rsync(guest: LxcGuest, argv: list[str], name: str, report: Reporter, tolerated: tuple[int, ...]) -> None:
    report.info(f"starting {name} sync")
    began = time.monotonic()
    done = run(argv, check=False, timeout=None, error=GuestError)
    if done.returncode and done.returncode not in tolerated:
        detail = "\n".join(done.stderr.strip().splitlines()[-5:]) or "no message"
        raise GuestError(
            f"cannot copy container {guest.info.vmid} ({name} pass): rsync ended with {done.returncode}: {detail}",
            hint=f"the copy needs as much space in {argv[-1]} as the container has data; set tmpdir if it is too small",
        )
    moved = next((line for line in done.stdout.splitlines() if line.startswith("Total transferred file size")), "")
    report.info(f"{name} sync finished in {time.monotonic() - began:.1f} s: {moved.partition(': ')[2] or 'nothing'}")
