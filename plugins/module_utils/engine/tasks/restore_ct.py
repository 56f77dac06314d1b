# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container side of a restore."""

from __future__ import annotations

import contextlib
import errno
import os
import re

from ..errors import GuestError, IntegrityError
from ..guests.model import GuestInfo
from ..settings.sizes import parse_size
from ..storages.dump import Archive
from ..system.host import Host
from ..system.process import run
from ..system.report import Reporter
from ..system.undo import UndoStack
from .requests import RestoreRequest
from .restore_config import config_lines, get_key, split_volume, transform_ct
from .restore_plan import NewVolume, RestorePlan, check_space, choose_storage, settle, taken_macs
from .results import PlannedVolume
from .undoing import MOUNT


def plan_container(
    host: Host, request: RestoreRequest, archive: Archive, text: str, existing: GuestInfo | None, *, write: bool
) -> RestorePlan:
    """Which volumes to make for the mount points of the archived config, and the config that names them.

    :raises IntegrityError: the archived config has no usable root file system.
    """
    volumes: list[NewVolume] = []
    taken: set[str] = set()
    warnings: list[str] = []
    mounts = {key: value for key, value in config_lines(text)[1] if re.fullmatch(r"rootfs|mp\d+", key)}
    for key, value in sorted(mounts.items(), key=lambda item: int(item[0][2:]) if item[0] != "rootfs" else -1):
        recorded, options = split_volume(value)
        if recorded.startswith("/"):
            if key == "rootfs":
                raise IntegrityError(
                    f"cannot restore {archive.volid}: its root file system is the host path {recorded}",
                    hint="such containers cannot be restored to a volume",
                )
            continue
        mount_point = "/" if key == "rootfs" else options.get("mp", "")
        if not _is_plain(mount_point):
            raise IntegrityError(f"cannot restore {archive.volid}: {key} has the mount point {mount_point!r}")
        storage = choose_storage(host, request, recorded.partition(":")[0], "rootdir", write=write)
        volid = storage.volumes.next_volume(request.vmid, "subvol", frozenset(taken))
        taken.add(volid)
        volname = volid.partition(":")[2]
        size = parse_size(options.get("size", ""))
        planned = PlannedVolume(key, storage.name, "subvol", size, volid, mount_point)
        volumes.append(NewVolume(planned, storage, volname, storage.volumes.locate(volname)[0], mount_point))
        if key != "rootfs" and options.get("backup") != "1":
            warnings.append(f"{key} ({mount_point}) is not part of the backup and is made empty")
    if not any(volume.planned.key == "rootfs" for volume in volumes):
        raise IntegrityError(f"cannot restore {archive.volid}: its config has no rootfs")
    done = transform_ct(
        text,
        {volume.planned.key: (volume.planned.volid or "", volume.planned.size) for volume in volumes},
        unique=request.unique,
        trust=request.trust_config,
        overrides=request.overrides,
        unprivileged=request.unprivileged,
        taken_macs=taken_macs(host) if request.unique else (),
    )
    done.warnings.extend(warnings)
    check_space(archive, volumes)
    return settle(host, request, archive, "lxc", done, volumes, existing)


def fill_container(plan: RestorePlan, request: RestoreRequest, undo: UndoStack, report: Reporter) -> int:
    """Unpack the archive with every new volume mounted in its place; returns the bytes unpacked."""
    from ..capture.ct_restore import extract_ct
    from ..guests.lxc.render import DEFAULT_IDMAPS
    from ..stream.progress import Progress
    from ..stream.source import open_source

    root = next(volume.path for volume in plan.volumes if volume.planned.key == "rootfs")
    unprivileged = get_key(plan.result.config, "unprivileged") == "1"
    owner = int(DEFAULT_IDMAPS[0].split(":")[2]) if unprivileged else 0
    mounted = []
    for volume in sorted(plan.volumes, key=lambda volume: volume.device):
        os.chown(volume.path, owner, owner)
        if volume.planned.key != "rootfs":
            place = _make_place(root, volume.device, owner)
            mounted.append(undo.push(MOUNT, path=place))
            run(["mount", "--bind", "--", volume.path, place], timeout=60, error=GuestError)
    progress = Progress(0, report)
    with open_source(plan.archive.path, request.bwlimit or 0) as source:
        extract_ct(
            source,
            root,
            unprivileged=unprivileged,
            progress=progress,
            report=report,
            ignore_unpack_errors=request.ignore_unpack_errors,
        )
    progress.finish()
    for token in reversed(mounted):
        undo.undo(token)
    _remove_packed_config(root)
    return progress.done


def _make_place(root: str, mount_point: str, owner: int) -> str:
    """The folder in the still empty root where a volume is mounted; owned as the container's root."""
    place = root
    for part in mount_point.strip("/").split("/"):
        place = os.path.join(place, part)
        if not os.path.isdir(place):
            os.mkdir(place, 0o755)
            os.chown(place, owner, owner)
    return place


def _remove_packed_config(root: str) -> None:
    """Take the archive's own config out of the container, never through links that the archive may have planted."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack, contextlib.suppress(FileNotFoundError, NotADirectoryError):
        folder = -1
        above = -1
        for part in (root, "etc", "vzdump"):
            above = folder
            try:
                folder = os.open(part, flags, dir_fd=None if folder < 0 else folder)
            except OSError as exc:
                if exc.errno == errno.ELOOP:
                    return
                raise
            stack.callback(os.close, folder)
        for name in ("pct.conf", "pct.fw"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        with contextlib.suppress(OSError):
            os.rmdir("vzdump", dir_fd=above)


def _is_plain(path: str) -> bool:
    return path.startswith("/") and not any(part in (".", "..") for part in path.split("/"))
