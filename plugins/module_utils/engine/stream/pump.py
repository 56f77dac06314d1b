# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moving bytes between pipes of other programs and archives."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Protocol

from .children import pipe_size
from .files import CHUNK, Buffer, write_all


class Writer(Protocol):
    def write(self, buf: Buffer) -> object: ...


class Counter(Protocol):
    def add(self, done: int, zero: int = 0) -> None: ...


class Reader(Protocol):
    def readinto(self, buffer: bytearray) -> int: ...


def pump_fd(
    fd: int,
    sink: Writer,
    progress: Counter | None = None,
    inspect: Callable[[memoryview], None] | None = None,
) -> int:
    """Copy what a program writes (``fd`` is our end of its standard output) into a sink, until it closes the pipe.

    :param inspect: sees each part, too.
    :returns: bytes copied.
    """
    pipe_size(fd, CHUNK)
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    total = 0
    with ThreadPoolExecutor(1, "inspect") as beside:
        while True:
            got = os.readv(fd, [buffer])
            if not got:
                return total
            inspected = None if inspect is None else beside.submit(inspect, view[:got])
            sink.write(view[:got])
            if inspected is not None:
                inspected.result()
            total += got
            if progress is not None:
                progress.add(got)


def feed(
    source: Reader,
    fd: int,
    progress: Counter | None = None,
    inspect: Callable[[memoryview], None] | None = None,
) -> int:
    """Copy an archive to a program's standard input (``fd`` is our end), until either of them ends.

    :param inspect: sees each part before the program does, and raises to keep it from the program.
    :returns: bytes copied. A program that stops reading is no error here: its exit status tells why.
    """
    pipe_size(fd, CHUNK)
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    total = 0
    while True:
        got = source.readinto(buffer)
        if not got:
            return total
        if inspect is not None:
            inspect(view[:got])
        try:
            write_all(fd, view[:got])
        except BrokenPipeError:
            return total
        total += got
        if progress is not None:
            progress.add(got)
