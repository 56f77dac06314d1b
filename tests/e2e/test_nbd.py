# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading disks from a real storage daemon."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Callable

from engine.capture.nbd import NbdExport
from engine.capture.storage_daemon import serve

GIB = 1 << 30
PIECE = 1 << 20


class Watched:
    """A handle of libnbd that notes when a thread uses it while another one waits for answers."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._waiting: dict[int, int] = {}
        self.disturbed = 0
        self.reads = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._handle, name)

        def call(*args: Any) -> Any:
            me = threading.get_ident()
            self.disturbed += any(count for thread, count in self._waiting.items() if thread != me)
            result = method(*args)
            if name == "aio_pread":
                self.reads += 1
                self._waiting[me] = self._waiting.get(me, 0) + 1
            elif name == "aio_command_completed" and result:
                self._waiting[me] -= 1
            return result

        return call


def test_nobody_takes_the_answers_of_a_read(tmp_path: Path) -> None:
    """The block status of the next gibibyte is asked while earlier ones are read."""
    disk, socket = tmp_path / "disk.raw", str(tmp_path / "socket")
    content = os.urandom(PIECE)
    count = 64
    with disk.open("wb") as stream:
        stream.truncate(count * GIB)
        for number in range(count):
            os.pwrite(stream.fileno(), content, number * GIB)
    with serve([("disk", str(disk), "raw")], socket, writable=False), NbdExport(socket, "disk", "the disk") as export:
        watched = export._handle = Watched(export._handle)
        found = [(offset, bytes(data)) for offset, _length, data in export.read_ahead(export.extents(PIECE)) if data]
    assert found == [(number * GIB, content) for number in range(count)]
    assert watched.reads >= count
    assert watched.disturbed == 0
