# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that data goes through: compressors, decompressors."""

from __future__ import annotations

import fcntl
import os
import shutil
from typing import IO, Sequence

from ..system.process import command_env, end_process, spawn
from .files import cpu_count


def compress_argv(compression: str, threads: int) -> list[str]:
    """The command that compresses its input: ``lzo``, or ``gz`` by gzip, by pigz for more than one thread.

    :param threads: 0 for as many as half of the processors.
    """
    if compression == "lzo":
        return ["lzop"]
    wanted = threads or (cpu_count() + 1) // 2
    if wanted > 1:
        return ["pigz", "-p", str(wanted), "--rsyncable"]
    return ["gzip", "--rsyncable"]


def decompress_argv(compression: str) -> list[str]:
    """The command that decompresses its input and fails on anything damaged, cut short or left over."""
    if compression == "gz":
        return ["pigz" if shutil.which("pigz") else "gzip", "-d", "-c"]
    return {"zst": ["zstd", "-q", "-d", "-c"], "lzo": ["lzop", "-d", "-c"]}[compression]


class Child:
    """A running filter program; what it says on standard error is kept for the error message.

    :raises DependencyError: the program is not installed.
    """

    def __init__(self, argv: Sequence[str], *, stdin: int, stdout: int) -> None:
        self.name = argv[0]
        self._messages = os.fdopen(os.memfd_create("messages"), "w+b")
        try:
            self.process = spawn(argv, stdin=stdin, stdout=stdout, stderr=self._messages, env=command_env(), bufsize=0)
        except BaseException:
            self._messages.close()
            raise

    def wait(self, timeout: float | None = None) -> str:
        """Wait for its end; returns an empty string for success, else what it complained about.

        :raises subprocess.TimeoutExpired: it has not ended within ``timeout`` seconds.
        """
        status = self.process.wait(timeout)
        self._messages.seek(0)
        said = self._messages.read(4096).decode("utf-8", "replace").strip()
        return "" if status == 0 else said or f"exit status {status}"

    def kill(self) -> None:
        """End it now; does nothing if it already ended."""
        end_process(self.process)
        self._messages.close()


def close_input(child: Child) -> None:
    """Tell a compressor that there is nothing more."""
    if child.process.stdin is not None:
        child.process.stdin.close()


def pipe_size(fd: int, size: int) -> None:
    """Make a pipe hold more, so that both ends switch less often. Refused by the kernel beyond a user's share."""
    # F_SETPIPE_SZ has a name in the module only since Python 3.10.
    try:
        fcntl.fcntl(fd, 1031, size)
    except OSError:
        return


def stream_fd(stream: IO[bytes] | None) -> int:
    """The descriptor of a child's pipe."""
    return -1 if stream is None else stream.fileno()
