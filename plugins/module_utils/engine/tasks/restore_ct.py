# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container side of a restore."""

from __future__ import annotations

import contextlib
import errno
import os
import re

from ..errors import IntegrityError, UsageError
from ..guests.model import GuestInfo
from ..settings.sizes import parse_size
from ..storages.dump import Archive
from ..storages.volumes.base import flush
from ..system.host import Host
from ..system.report import Reporter
from ..system.undo import UndoStack
from .requests import RestoreRequest
from .restore_config import config_lines, get_key, split_volume, transform_ct
from .restore_plan import NewVolume, RestorePlan, check_space, choose_storage, settle, taken_macs
from .restore_wishes import Wish, choose_format, parse_wishes
from .results import PlannedVolume
from .undoing import FOLDER, MOUNT, make_folder


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
    wishes = parse_wishes(request.volumes, mounts)
    for key, value in sorted(mounts.items(), key=lambda item: int(item[0][2:]) if item[0] != "rootfs" else -1):
        recorded, options = split_volume(value)
        if recorded.startswith("/"):
            if key == "rootfs":
                raise IntegrityError(
                    f"its root file system is the host path {recorded}",
                    hint="such containers cannot be restored to a volume",
                )
            continue
        mount_point = "/" if key == "rootfs" else options.get("mp", "")
        if not _is_plain(mount_point):
            raise IntegrityError(f"{key} has the mount point {mount_point!r}")
        wish = wishes.get(key, Wish())
        storage = choose_storage(host, request, recorded.partition(":")[0], "rootdir", write=write, wanted=wish.storage)
        size = wish.size or parse_size(options.get("size", ""))
        fmt = choose_format(storage, recorded, wish, size)
        if fmt == "raw" and not size:
            raise UsageError(
                f"cannot restore {archive.volid}: unable to detect the size of {key}",
                hint=f"say it with the option volumes, for example {key}: {{size: 8G}}",
            )
        volid = storage.volumes.next_volume(request.vmid, fmt, frozenset(taken))
        taken.add(volid)
        volname = volid.partition(":")[2]
        planned = PlannedVolume(key, storage.name, fmt, size, volid, mount_point)
        volumes.append(NewVolume(planned, storage, volname, storage.volumes.locate(volname)[0], mount_point))
        if key != "rootfs" and options.get("backup") != "1":
            warnings.append(f"{key} ({mount_point}) is not part of the backup and is made empty")
    if not any(volume.planned.key == "rootfs" for volume in volumes):
        raise IntegrityError("its config has no rootfs")
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


def fill_container(host: Host, plan: RestorePlan, request: RestoreRequest, undo: UndoStack, report: Reporter) -> int:
    """Make the volumes and unpack the archive with each in its place; returns the bytes unpacked."""
    from ..capture.ct_restore import extract_ct
    from ..guests.lxc.idmaps import host_owner
    from ..guests.lxc.render import outer_first, shift
    from ..settings.ct_config import ct_mounts
    from ..settings.guest_config import GuestConfig
    from ..stream.progress import Progress
    from ..stream.source import open_source

    config = GuestConfig.parse(plan.result.config, plan.archive.volid)
    idmaps = shift(config)
    owner = host_owner(idmaps)
    folder = os.path.join(host.paths.run, "restore", str(request.vmid))
    tokens = [undo.push(FOLDER, path=folder)]
    make_folder(folder)
    root = os.path.join(folder, "root")
    os.mkdir(root)
    places: list[str] = []
    made = {volume.planned.key: volume for volume in plan.volumes}
    for mount in outer_first(ct_mounts(config)):
        if mount.key not in made:
            continue
        new = made[mount.key]
        report.info(f"{mount.key}: creating {new.planned.volid}")
        volume = new.storage.volumes.volume(new.volname)
        volume.create(new.planned.size, owner)
        place = _make_place(root, new.device, owner)
        tokens.append(undo.push(MOUNT, path=place))
        volume.mount(place)
        places.append(place)
    progress = Progress(0, report)
    with open_source(plan.archive.path, request.bwlimit or 0) as source:
        extract_ct(
            source,
            root,
            idmaps=idmaps,
            unprivileged=get_key(plan.result.config, "unprivileged") == "1",
            progress=progress,
            report=report,
            ignore_unpack_errors=request.ignore_unpack_errors,
        )
    progress.finish()
    _remove_packed_config(root)
    # After this the volumes of a replaced guest are freed: the new ones must survive a power cut by then.
    for place in places:
        flush(place)
    for token in reversed(tokens):
        undo.undo(token)
    return progress.done


def _make_place(root: str, mount_point: str, owner: int) -> str:
    """The folder in the still empty root where a volume is mounted; owned as the container's root."""
    place = root
    for part in filter(None, mount_point.split("/")):
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
        for name in ("pct.conf", "pct.fw", "lxc.conf"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        with contextlib.suppress(OSError):
            os.rmdir("vzdump", dir_fd=above)


def _is_plain(path: str) -> bool:
    return path.startswith("/") and not any(part in (".", "..") for part in path.split("/"))
