# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running other programs: argument lists, never shells; output in the C locale; errors that name the command."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

from ..errors import DependencyError, HoldfastError

_PACKAGES = {
    "btrfs": "btrfs-progs",
    "dd": "coreutils",
    "ionice": "util-linux",
    "losetup": "mount",
    "lvchange": "lvm2",
    "lvcreate": "lvm2",
    "lvremove": "lvm2",
    "lvs": "lvm2",
    "mkfs.ext4": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common or qemu-utils of your distribution",
    "qemu-system-x86_64": "qemu-system-x86",
    "sendmail": "of a mail system, for example postfix or msmtp-mta",
    "setpriv": "util-linux",
    "stat": "coreutils",
    "sync": "coreutils",
    "timeout": "coreutils",
    "umount": "mount",
    "vgchange": "lvm2",
    "zfs": "zfsutils-linux",
}
"""Debian's packages of programs, where they have other names."""

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 5.0
_DEATH_SECONDS = 2.0
_left_behind: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Completed:
    """What a finished command left: exit status and decoded output (surrogateescape, so odd names survive)."""

    returncode: int
    stdout: str
    stderr: str


def command_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The caller's environment with a fixed locale, so that output can be parsed."""
    return {**os.environ, "LC_ALL": "C.UTF-8", **(extra or {})}


def describe(argv: Sequence[str]) -> str:
    """The command as a person would type it, for messages and logs."""
    return " ".join(shlex.quote(part) for part in argv)


def bound() -> Callable[[], None]:
    """A ``preexec_fn`` that has the kernel kill the child as soon as the calling thread ends, also by ``kill -9``.

    What the child starts on its own (a daemon that goes into the background) is not killed. To be called while no other
    thread works: the child must not inherit a lock that nobody will release in it.
    """
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            # It was killed before the kernel knew.
            os._exit(1)

    return arm


def missing(program: str) -> DependencyError:
    """The error for a program that is not installed."""
    name = os.path.basename(program)
    package = "lxc" if name.startswith("lxc-") else _PACKAGES.get(name, name)
    return DependencyError(f"cannot run {name!r}: the program is not installed", hint=f"install the package {package}")


def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that does not outlive the calling thread; ``options`` are those of :class:`subprocess.Popen`.

    :raises DependencyError: the program is not installed.
    """
    try:
        return subprocess.Popen(list(argv), preexec_fn=bound(), **options)
    except FileNotFoundError as exc:
        if exc.filename != argv[0]:
            # The folder that it was to run in.
            raise
        raise missing(argv[0]) from exc


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float | None = 600,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    error: type[HoldfastError] = HoldfastError,
    hint: str = "",
    watch: Callable[[], object] | None = None,
) -> Completed:
    """Run a command to its end and collect its output; it does not outlive this process.

    :param timeout: seconds after which it is killed; ``None`` only for work without a natural bound.
    :param watch: called every few seconds meanwhile; what it raises ends the command, and is raised.
    :raises DependencyError: the program is not installed.
    :raises HoldfastError: (as ``error``) non-zero exit with ``check``, or the timeout passed.
    """
    pipe = subprocess.PIPE
    process = spawn(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=command_env(env))
    try:
        stdout, stderr = _communicate(process, stdin or b"", timeout, watch)
    except subprocess.TimeoutExpired as exc:
        raise error(f"`{describe(argv)}` did not finish within {timeout:g} s and was killed", hint=hint) from exc
    finally:
        end_process(process)
    result = Completed(
        process.returncode, stdout.decode("utf-8", "surrogateescape"), stderr.decode("utf-8", "surrogateescape")
    )
    if check and result.returncode != 0:
        detail = result.stderr.strip() or result.stdout.strip() or "no output"
        raise error(f"`{describe(argv)}` failed with exit status {result.returncode}: {detail}", hint=hint)
    return result


def _communicate(
    process: subprocess.Popen[bytes], stdin: bytes, timeout: float | None, watch: Callable[[], object] | None
) -> tuple[bytes, bytes]:
    if watch is None:
        return process.communicate(stdin, timeout=timeout)
    deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
    given: bytes | None = stdin
    while True:
        try:
            return process.communicate(given, timeout=min(_LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                raise
            given = None
            watch()


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End it now and close its pipes. What hangs in the kernel, in a dead mount, is left to its fate."""
    _left_behind[:] = [other for other in _left_behind if other.poll() is None]
    if process.poll() is None:
        process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(_DEATH_SECONDS)
    except subprocess.TimeoutExpired:
        _left_behind.append(process)
