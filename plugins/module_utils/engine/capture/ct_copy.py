# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mode ``suspend``: a copy of a container's tree in a temporary folder, made by two rsync passes."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from functools import partial
from typing import Sequence

from ..errors import GuestError
from ..guests.lxc.guest import LxcGuest
from ..rules.excludes import Pattern, literal, rsync_options
from ..settings.ct_config import Mount
from ..storages.mounts import filesystem_type, space
from ..system.process import run
from ..system.report import Reporter
from ..system.undo import UndoStack
from .ct_freeze import frozen
from .ct_room import check_room
from .model import CaptureOptions, Timings

_VANISHED = 24
_REMOTE = ("nfs", "cifs", "smb", "9p", "ceph", "fuse", "gluster")
_PLAIN_ACL = struct.pack("<I6HiHHi", 2, 1, 7, 0xFFFF, 0xFFFF, 4, 5, -1, 0x20, 5, -1)


def copy_tree(
    guest: LxcGuest,
    mounts: Sequence[Mount],
    included: Sequence[Mount],
    patterns: Sequence[Pattern],
    options: CaptureOptions,
    undo: UndoStack,
    report: Reporter,
    timings: Timings,
) -> None:
    """Fill ``root`` in the temporary folder with the container's files, as they are at one instant."""
    target = os.path.join(options.workdir, "root")
    os.makedirs(target, mode=0o755, exist_ok=True)
    root = f"/proc/{guest.init_pid()}/root"
    points = [mount.mountpoint for mount in mounts]
    check_room(root, points, [mount.mountpoint for mount in included], patterns, target, guest.info.label)
    kind = filesystem_type(target)
    remote = kind.startswith(_REMOTE)
    argv = [
        *("rsync", "--stats", "-h", *_extended(target, kind, report)),
        *("--numeric-ids", "-aH", "--delete", "--no-whole-file"),
        *("--sparse", "--one-file-system", "--relative"),
        *rsync_options(patterns),
        *_others(mounts, included),
        *(f"{root}/.{mount.mountpoint}" for mount in included),
        target,
    ]
    _rsync(guest, argv, "first", report, tolerated=(_VANISHED,), remote=remote)
    with options.phases.interruption(), frozen(guest, undo, report, timings):
        _rsync(guest, argv, "final", report, tolerated=(), remote=remote)


def _others(mounts: Sequence[Mount], included: Sequence[Mount]) -> list[str]:
    """Leave out what is below mount points that are not included, but not the included ones that lie in them."""
    options = []
    for mount in mounts:
        if mount in included:
            continue
        outer = mount.mountpoint.rstrip("/")
        for inner in included:
            names = inner.mountpoint.rstrip("/")[len(outer) + 1 :].split("/")
            if inner.mountpoint.startswith(outer + "/"):
                folders = ["/".join([outer, *names[:depth]]) for depth in range(1, len(names) + 1)]
                options += [f"--filter=+ {literal(folder).for_rsync()[0]}" for folder in folders]
                options += [f"--filter=+ {literal(folders[-1]).below().for_rsync()[0]}"]
        # The folder itself stays, as in the other modes.
        options += rsync_options([literal(outer).below()])
    return options


def _extended(target: str, kind: str, report: Reporter) -> list[str]:
    """Options for what the temporary folder's file system can keep; people are told what is lost."""
    if kind.startswith(_REMOTE):
        report.warn(
            f"the temporary directory is on {kind}: everything is copied over the network and back, consider a local"
            " tmpdir"
        )
    if kind.startswith("nfs"):
        report.warn("the temporary directory is on NFS: ACLs and extended attributes are not kept")
        return []
    options = []
    for option, name, value, what in (
        ("-X", "user.holdfast", b"1", "extended attributes"),
        ("-A", "system.posix_acl_access", _PLAIN_ACL, "ACLs"),
    ):
        try:
            os.setxattr(target, name, value)
            with contextlib.suppress(OSError):
                os.removexattr(target, name)
            options.append(option)
        except OSError:
            report.warn(f"the temporary directory is on {kind}: {what} are not kept")
    return options


def _rsync(
    guest: LxcGuest, argv: list[str], name: str, report: Reporter, *, tolerated: tuple[int, ...], remote: bool
) -> None:
    report.info(f"starting {name} sync")
    began = time.monotonic()
    # A frozen container does not wait for a server that is gone: rsync would try each file in turn.
    watch = partial(space, argv[-1]) if remote else None
    done = run(argv, check=False, timeout=None, error=GuestError, watch=watch)
    if done.returncode and done.returncode not in tolerated:
        detail = "\n".join(done.stderr.strip().splitlines()[-5:]) or "no message"
        raise GuestError(
            f"cannot copy container {guest.info.vmid} ({name} pass): rsync ended with {done.returncode}: {detail}",
            hint=f"the copy needs as much space in {argv[-1]} as the container has data; set tmpdir if it is too small",
        )
    told = next((line for line in done.stdout.splitlines() if line.startswith("Total transferred file size")), "")
    moved = told.partition(": ")[2] or "nothing"
    report.info(f"{name} sync finished - transferred {moved} in {time.monotonic() - began:.1f} s")
