# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the steps of the tasks themselves are taken back, and the union of all undo handlers.

Handlers get only what their journal entry holds, because the run that wrote it may be long dead.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from typing import Any, Mapping

from ..errors import GuestError
from ..storages.mounts import mounts_below, unmount
from ..storages.registry import UNDO as STORAGE_UNDO
from ..storages.volumes.registry import open_volume
from ..system.files import fsync_dir, read_text, remove_temporaries, write_atomic
from ..system.report import Reporter
from ..system.trouble import tried
from ..system.undo import Handler, UndoStack
from .signals import uninterrupted

FOLDER = "task.folder"
"""A scratch folder: ``path``."""
MOUNT = "task.mount"
"""A mount made for a restore: ``path``."""
UNNAMED = "task.unnamed"
"""Volumes of a guest that are of no use unless its config names them: ``volumes`` (id, kind, source),
``config``."""
BESIDE = "task.beside"
"""A file that goes with a guest's config: ``path``, ``content``, ``config``, ``digest`` (SHA-256 of the config)."""

_WRITERS_SECONDS = 5.0


def handlers() -> dict[str, Handler]:
    """Every undo handler of the engine."""
    from ..capture.registry import UNDO as CAPTURE_UNDO
    from .restore_domain_disks import UNDO as DOMAIN_UNDO

    return {**CAPTURE_UNDO, **STORAGE_UNDO, **OWN, **DOMAIN_UNDO}


def storage_handlers() -> dict[str, Handler]:
    """The handlers that need no guest code, for tasks that touch no guest."""
    return {**STORAGE_UNDO, **OWN}


def _undo_folder(data: Mapping[str, Any]) -> None:
    path = str(data["path"])
    mounted = mounts_below(path)
    if mounted:
        # Removing the tree would reach through the mount into whatever is mounted there.
        raise GuestError(f"cannot remove {path}: {mounted[0]} is still mounted", hint=f"umount {mounted[0]}")
    deadline = time.monotonic() + _WRITERS_SECONDS
    while os.path.lexists(path):
        try:
            shutil.rmtree(path)
        except OSError as exc:
            # A program of a killed run may need a moment to end, and still write there.
            if exc.errno not in (errno.ENOTEMPTY, errno.ENOENT) or time.monotonic() > deadline:
                raise


def _undo_unnamed(data: Mapping[str, Any]) -> None:
    """A guest's config names its volumes in one step; before that step nobody needs the new ones, after it the old."""
    remove_temporaries(str(data["config"]))
    text = read_text(str(data["config"])) or ""
    named = set(re.findall(r"^[^#\[:]+: ?(?:file=|volume=)?([^,\s]+)", text, re.MULTILINE))
    for volid, kind, source in data["volumes"]:
        if volid not in named:
            open_volume(str(kind), str(source)).free()


def _undo_beside(data: Mapping[str, Any]) -> None:
    """Before the config is in place nothing happened; afterwards the file belongs there, too."""
    text = read_text(str(data["config"]))
    if text is not None and hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest() == data["digest"]:
        write_atomic(str(data["path"]), str(data["content"]), 0o640)


OWN: dict[str, Handler] = {
    FOLDER: _undo_folder,
    MOUNT: lambda data: unmount(str(data["path"])),
    UNNAMED: _undo_unnamed,
    BESIDE: _undo_beside,
}


def unwind(undo: UndoStack, report: Reporter) -> None:
    """Take back what is still open at the end of a task; a signal stops the run when that is done."""
    with uninterrupted():
        for problem in undo.unwind():
            report.warn(f"clean-up is not complete, the next run tries again: {problem}")


def make_folder(path: str, mode: int = 0o700) -> None:
    """Create a scratch folder afresh; a stale one of a dead run is removed first."""
    _undo_folder({"path": path})
    with tried("create the folder", path):
        os.makedirs(path, mode=mode)
        fsync_dir(os.path.dirname(path))
