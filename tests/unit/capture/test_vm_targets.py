# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where zeros have to be written because something else may be there."""

from __future__ import annotations

import random

import pytest
from engine.capture.vm_restore import Target

CHUNK = 1 << 18


@pytest.mark.parametrize(
    ("stale", "offset", "length", "parts"),
    [
        (0, 0, 1 << 30, []),
        (CHUNK, 0, 4 * CHUNK, []),
        (CHUNK, CHUNK, CHUNK, []),
        (CHUNK, 65536, 65536, [(65536, 65536)]),
        (CHUNK, 65536, CHUNK, [(65536, CHUNK)]),
        (CHUNK, 65536, 4 * CHUNK, [(65536, CHUNK - 65536), (4 * CHUNK, 65536)]),
        (CHUNK, 0, CHUNK + 512, [(CHUNK, 512)]),
        (1 << 62, 0, 1 << 30, [(0, 1 << 30)]),
        (1 << 62, 4096, 512, [(4096, 512)]),
    ],
)
def test_stretches(stale: int, offset: int, length: int, parts: list[tuple[int, int]]) -> None:
    assert Target("x", "raw", stale).old_parts(offset, length) == parts


def test_every_chunk_that_gets_data_has_nothing_old_left() -> None:
    rng = random.Random(3)
    size, chunk = 200, 8
    for _round in range(300):
        disk = ["free"] * size
        target = Target("x", "raw", chunk)
        at = 0
        while at < size:
            length = min(rng.randint(1, 30), size - at)
            if rng.random() < 0.5:
                disk[at : at + length] = ["data"] * length
            else:
                for begin, count in target.old_parts(at, length):
                    assert at <= begin and begin + count <= at + length
                    disk[begin : begin + count] = ["zero"] * count
            at += length
        for begin in range(0, size, chunk):
            # A chunk that is not written at all is not handed out, and reads as zeros.
            assert len({what == "free" for what in disk[begin : begin + chunk]}) == 1
