# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading and writing exports of QEMU and its storage daemon through libnbd, in large pieces, several in flight."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Iterator

from ..errors import DependencyError, ProtocolError

WORKERS = 16
"""Reads in flight when nobody asks for another number, as vzdump's ``performance: max-workers``."""

_AHEAD = 3
_CLUSTER = 1 << 16
_STATUS_BYTES = 1 << 30
_RELEASE = 4 << 20
"""Bytes that are released at once, aligned: a multiple of what thin pools usually allocate."""
_SEND_BYTES = 4 << 20
#: Has no name in the module.
_SO_SNDBUFFORCE = 32
_ZERO_FLAG = 2
_READ_SECONDS = 600
"""How long one read may take; storages on a network come back after minutes, or never."""


class NbdExport:
    """A connection to one export.

    :param path: of the server's unix socket; :param name: of the export; :param label: for messages.
    :param workers: reads in flight.
    :raises ProtocolError: it cannot be reached; :raises DependencyError: libnbd's Python module is missing.
    """

    def __init__(self, path: str, name: str, label: str, workers: int = WORKERS) -> None:
        try:
            import nbd
        except ImportError as exc:
            raise DependencyError(
                "cannot read disks: libnbd's Python module is not installed",
                hint="install the package python3-libnbd, and run with the distribution's python3",
            ) from exc
        self._error = nbd.Error
        self._label = label
        self._workers = workers
        # Whoever waits for answers must be the only one: another thread would take them, and the wait would not end.
        self._turn = threading.Lock()
        self._handle: Any = nbd.NBD()
        self._handle.add_meta_context("base:allocation")
        self._handle.set_export_name(name)
        with self._failures("connect to"):
            self._handle.connect_socket(_connect(path))
            self.size = int(self._handle.get_size())
            self.can_discard = bool(self._handle.can_trim())
        # Before 1.14 (Ubuntu 22.04) the module could neither fill nor send memory of the caller's own.
        self._shares_memory = tuple(map(int, self._handle.get_version().split(".")[:2])) >= (1, 14)

    def extents(self, align: int) -> Iterator[tuple[int, int, bool]]:
        """Stretches of the export as ``(offset, length, zero)``, cut at multiples of ``align`` bytes.

        A stretch is zero only if all of it reads as zeros; the last one ends with the export.
        """
        start = end = 0
        for offset, length, zero in self._status():
            if zero:
                continue
            first, last = offset - offset % align, min(self.size, -(-(offset + length) // align) * align)
            if first > end:
                if end > start:
                    yield start, end - start, False
                yield end, first - end, True
                start = first
            end = last
        if end > start:
            yield start, end - start, False
        if self.size > end:
            yield end, self.size - end, True

    def read(self, offset: int, length: int) -> bytearray:
        """Read a piece by several requests at once.

        :raises ProtocolError: the server refuses, is gone, or does not answer.
        """
        if not self._shares_memory:
            with self._failures("read"):
                whole: bytearray = self._handle.pread(length, offset)
                return whole
        data = bytearray(length)
        view = memoryview(data)
        step = max(1, -(-length // (_CLUSTER * self._workers))) * _CLUSTER
        with self._failures("read"):
            waiting = deque(
                self._handle.aio_pread(view[at : min(at + step, length)], offset + at) for at in range(0, length, step)
            )
            while waiting:
                if self._handle.aio_command_completed(waiting[0]):
                    waiting.popleft()
                elif not self._handle.poll(_READ_SECONDS * 1000):
                    raise ProtocolError(f"cannot read {self._label}: no answer within {_READ_SECONDS} s")
        return data

    def read_ahead(
        self, pieces: Iterator[tuple[int, int, bool]], *, release: bool = False
    ) -> Iterator[tuple[int, int, bytearray | None]]:
        """Contents of the pieces in their order (``None``: zeros), read while the caller works on earlier ones.

        :param pieces: the whole export, from its beginning on.
        :param release: discard on the server what the caller is done with, when it asks for the next piece.
        """
        waiting: deque[tuple[int, int, Future[bytearray] | None]] = deque()
        held = 0
        with ThreadPoolExecutor(1, thread_name_prefix="nbd") as reader:

            def first() -> Iterator[tuple[int, int, bytearray | None]]:
                nonlocal held
                offset, length, job = waiting.popleft()
                yield offset, length, None if job is None else job.result()
                end = offset + length
                # Storages take back whole blocks only.
                done = end if end == self.size else end - end % _RELEASE
                if release and done > held:
                    reader.submit(self._release, held, done - held)
                    held = done

            for offset, length, zero in pieces:
                waiting.append((offset, length, None if zero else reader.submit(self.read, offset, length)))
                if len(waiting) > _AHEAD:
                    yield from first()
            while waiting:
                yield from first()

    def _release(self, offset: int, length: int) -> None:
        """Give a range back. A refusal is of no account: the range is read, and what is lost shows at the next read."""
        with self._turn, contextlib.suppress(self._error):
            for at in range(offset, offset + length, _STATUS_BYTES):
                self._handle.trim(min(_STATUS_BYTES, offset + length - at), at)

    def write(self, offset: int, data: Any) -> None:
        """:raises ProtocolError: the server refuses (storage full) or is gone."""
        with self._failures("write"):
            self._handle.pwrite(data if self._shares_memory else bytearray(data), offset)

    def zero(self, offset: int, length: int) -> None:
        """Write zeros; errors as :meth:`write`."""
        with self._failures("write"):
            for at in range(offset, offset + length, _STATUS_BYTES):
                self._handle.zero(min(_STATUS_BYTES, offset + length - at), at)

    def flush(self) -> None:
        with self._failures("flush"):
            self._handle.flush()

    def close(self) -> None:
        """Say goodbye; harmless when the server is gone."""
        with contextlib.suppress(self._error):
            self._handle.shutdown()

    def __enter__(self) -> NbdExport:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()

    def _status(self) -> Iterator[tuple[int, int, bool]]:
        found: list[tuple[int, bool]] = []

        def note(_context: str, _offset: int, entries: list[int], _error: object) -> int:
            found.extend((size, bool(flags & _ZERO_FLAG)) for size, flags in zip(entries[::2], entries[1::2]))
            return 0

        at = 0
        while at < self.size:
            found.clear()
            with self._failures("ask the block status of"):
                self._handle.block_status(min(self.size - at, _STATUS_BYTES), at, note)
            for size, zero in found:
                length = min(size, self.size - at)
                if length:
                    yield at, length, zero
                at += length

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            with self._turn:
                yield
        except (self._error, OSError) as exc:
            # QEMU answers so when it gave up the snapshot for the guest's sake.
            if getattr(exc, "errno", None) == "EINVAL":
                hint = "the fleecing image could not take what the guest overwrote: is its storage full, or slow?"
            else:
                hint = "look whether the program that serves the disk (QEMU, qemu-storage-daemon) crashed: dmesg"
            raise ProtocolError(f"cannot {what} {self._label}: {exc}", hint=hint) from exc


def _connect(path: str) -> int:
    """A connected socket with room for a whole write: both sides switch a tenth as often as with the usual 200 KiB."""
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BYTES)
        except PermissionError:
            # Only root may exceed the system's limit; it works as well without.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        link.connect(path)
        return link.detach()
