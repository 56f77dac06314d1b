# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Locks that name their owner and die with it.

The kernel's ``flock`` decides who holds a lock, so a killed owner never blocks anybody; the JSON text inside the file
only tells people who it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from typing import Iterator

from ..errors import LockError
from .trouble import tried


def process_start_time(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot (field 22 of ``/proc/PID/stat``), ``None`` if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def identity(owner: str) -> dict[str, object]:
    """Who this process is, in a form that :func:`is_alive` can check later (pid reuse included)."""
    return {"owner": owner, "pid": os.getpid(), "start": process_start_time(os.getpid()), "since": int(time.time())}


def is_alive(who: dict[str, object]) -> bool:
    """Whether the process that wrote ``who`` still exists."""
    pid, start = who.get("pid"), who.get("start")
    return isinstance(pid, int) and start is not None and process_start_time(pid) == start


@contextlib.contextmanager
def hold(path: str, owner: str, *, wait: float = 0) -> Iterator[None]:
    """Hold an exclusive lock while the block runs.

    :param owner: what the lock is taken for, shown to whoever has to wait (for example ``backup of VM 100``).
    :param wait: seconds to wait for a living owner; 0 means do not wait.
    :raises LockError: somebody else holds it after that time; the message names the owner.
    """
    with tried("open the lock", path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Whoever can open the file can lock it, so nobody else may.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
        _acquire(fd, path, wait)
        # Only people miss a name that finds no room.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(identity(owner)).encode(), 0)
        yield
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def _acquire(fd: int, path: str, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                raise LockError(
                    f"cannot take the lock {path} within {wait:g} s: it is held by {_holder(fd)}",
                    hint="wait for that run to end, or raise lockwait",
                ) from exc
        time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))


def _holder(fd: int) -> str:
    try:
        who = json.loads(os.pread(fd, 4096, 0).decode())
        return f"{who['owner']} (pid {who['pid']}, since {time.strftime('%F %T', time.localtime(who['since']))})"
    except (ValueError, KeyError, TypeError):
        return "another process"
