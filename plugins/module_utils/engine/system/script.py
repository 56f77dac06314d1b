# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the operator gives us to run: whether only root can have written them, and running them."""

from __future__ import annotations

import os
import select
import stat
import subprocess
from typing import Callable, Mapping, Sequence

from ..errors import HookError
from .process import missing
from .trouble import os_error_hint

GRACE_SECONDS = 5
"""What is asked to end is killed after this time."""

_CHUNK = 65536
_POLL_SECONDS = 0.1
_LAST_LINES = 3


def check_script(path: str) -> None:
    """Refuse a script that cannot be run, or that somebody else than root could change.

    :raises HookError: the message says what to do.
    """
    if not os.path.isabs(path):
        raise HookError(f"cannot use the hook script {path!r}: it is no absolute path", hint="give the whole path")
    if not os.path.isfile(path):
        what = "it is no file" if os.path.lexists(path) else "it does not exist"
        raise HookError(f"cannot use the hook script {path}: {what}", hint="create it, or leave the option script out")
    if not os.access(path, os.X_OK):
        raise HookError(
            f"cannot use the hook script {path}: it is not executable",
            hint=f"chmod 755 {path}; if it is that already, its file system is mounted with noexec",
        )
    for place in [*_way(path), *_way(os.path.realpath(path))]:
        _check_owner(path, place)


def run_script(
    path: str, args: Sequence[str], *, env: Mapping[str, str], tell: Callable[[str], None], limit: int = 0
) -> None:
    """Run a script with nothing but ``env`` as its environment; it does not outlive this process.

    It has a session of its own. What it starts ends with it when it is interrupted, but not when it ends by itself.

    :param tell: is given each line that it writes; :param limit: seconds after which it is ended, 0 means none.
    :raises HookError: it cannot be run, did not end in time, or ended with an error; the message has its last lines.
    """
    check_script(path)
    called = " ".join([path, *args])
    # timeout passes a signal on to everything that the script started, and gets one when this process is killed.
    argv = ["setpriv", "--pdeathsig", "TERM", "timeout", f"--kill-after={GRACE_SECONDS}", str(limit), path, *args]
    lines: list[str] = []

    def hear(line: str) -> None:
        tell(line)
        lines[:] = [*lines, line][-_LAST_LINES:]

    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        lacking = missing(argv[0])
        raise HookError(f"cannot run the hook script {path}: {lacking.message}", hint=lacking.hint) from exc
    except OSError as exc:
        raise HookError(f"cannot run the hook script {path}: {exc.strerror}", hint=os_error_hint(exc)) from exc
    try:
        _relay(child, hear)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
    said = f": {' / '.join(lines)}" if lines else ""
    if limit and child.returncode in (124, 128 + 9, -9):
        raise HookError(
            f"hook script `{called}` did not end within {limit} s and was ended{said}",
            hint="let it do less in this phase: something waits for it",
        )
    if child.returncode:
        how = f"exit status {child.returncode}" if child.returncode > 0 else f"signal {-child.returncode}"
        raise HookError(f"hook script `{called}` failed with {how}{said}", hint="its output is in the log")


def _relay(child: subprocess.Popen[bytes], hear: Callable[[str], None]) -> None:
    """Pass lines on until the script has ended; a daemon that it left may keep its output open."""
    if child.stdout is None:
        return
    out, rest = child.stdout.fileno(), b""
    while True:
        ended = child.poll() is not None
        ready = select.select([out], [], [], 0 if ended else _POLL_SECONDS)[0]
        chunk = os.read(out, _CHUNK) if ready else b""
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _CHUNK:
            whole, rest = [*whole, rest], b""
        for line in whole:
            hear(line.decode("utf-8", "backslashreplace").rstrip())
        if not chunk and (ended or ready):
            break
    if rest:
        hear(rest.decode("utf-8", "backslashreplace").rstrip())
    child.wait()


def _way(path: str) -> list[str]:
    """A path and every folder above it."""
    places = [path]
    while places[-1] != "/":
        places.append(os.path.dirname(places[-1]))
    return places


def _check_owner(path: str, place: str) -> None:
    """:raises HookError: others than root, and the user of this process, can change what is at this place."""
    for status in (os.lstat(place), os.stat(place)):
        if status.st_uid not in (0, os.geteuid()):
            raise HookError(
                f"cannot use the hook script {path}, which runs as root: {place} belongs to user {status.st_uid}",
                hint=f"chown root {place}, or put the script elsewhere",
            )
        others = stat.S_IWOTH
        if stat.S_ISREG(status.st_mode):
            others |= stat.S_IWGRP
        elif stat.S_ISLNK(status.st_mode) or status.st_mode & stat.S_ISVTX:
            continue
        if status.st_mode & others:
            raise HookError(
                f"cannot use the hook script {path}, which runs as root: others can write to {place}",
                hint=f"chmod {'go-w' if stat.S_ISREG(status.st_mode) else 'o-w'} {place}, or put the script elsewhere",
            )
