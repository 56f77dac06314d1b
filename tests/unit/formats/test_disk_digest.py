# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The digest of a disk depends on nothing but its content."""

from __future__ import annotations

import hashlib
import random
import time

from engine.formats.disk_digest import PIECE, DiskDigest
from hypothesis import given, settings
from hypothesis import strategies as st


def plainly(data: bytes) -> str:
    """As the definition says."""
    pieces = (data[at : at + PIECE] for at in range(0, len(data), PIECE))
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([1, 512, 4096, 65535, 65536, 131072, 200000])), max_size=12),
    st.integers(0, 1 << 32).map(random.Random),
)
def test_it_is_the_same_however_the_content_comes(shapes: list[tuple[bool, int]], rng: random.Random) -> None:
    parts = [bytes(size) if zero else rng.randbytes(size) for zero, size in shapes]
    digest = DiskDigest(sum(map(len, parts)))
    offset = 0
    for part, (zero, size) in zip(parts, shapes):
        digest.add(offset, size, None if zero and rng.random() < 0.7 else part)
        offset += size
    assert digest.value() == plainly(b"".join(parts))
    assert digest.value() == plainly(b"".join(parts))


def test_an_empty_disk_of_a_tebibyte_takes_moments() -> None:
    began = time.monotonic()
    digest = DiskDigest(1 << 40)
    digest.add(0, 1 << 40, None)
    assert digest.value() == "f4ea2d5472d98d18baf47cc86e9f64696f1e2d118b6974ed0e2816df3a9d8623"
    assert time.monotonic() - began < 20


def test_a_longer_buffer_counts_only_as_far_as_it_is_said() -> None:
    digest = DiskDigest(3)
    digest.add(0, 3, b"abcdef")
    assert digest.value() == plainly(b"abc")


def test_content_in_another_order_or_cut_short_has_none() -> None:
    digest = DiskDigest(2 * PIECE)
    digest.add(0, PIECE, None)
    assert digest.value() is None
    digest.add(0, PIECE, None)
    digest.add(PIECE, PIECE, None)
    assert digest.value() is None
