# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Volumes with the state of a TPM. That swtpm takes them is tested in ``tests/e2e/test_libvirt_tpm.py``."""

from __future__ import annotations

import os
import struct

import pytest
from engine.errors import IntegrityError
from engine.formats.swtpm import from_image, to_image
from engine.settings.vm_config import TPM_BYTES

STATE = os.urandom(5000)


@pytest.mark.parametrize("size", [1, 2, 4096, 5000, 1 << 21])
def test_there_and_back(size: int) -> None:
    state = os.urandom(size - 1) + b"\1"
    image = to_image(state)
    assert len(image) == TPM_BYTES
    assert from_image(image) == state


def test_as_swtpm_writes_it() -> None:
    """swtpm_setup 0.7.1 made a state of 1315 bytes with this header."""
    header = bytes.fromhex("6e696c6d70747773 0100c000 c0000000 23050000 00080000").ljust(192, b"\0")
    assert to_image(STATE[:1315]).startswith(header + STATE[:1315])


def test_what_is_no_state() -> None:
    assert from_image(bytes(TPM_BYTES)) == b""
    assert from_image(to_image(STATE)[:12].ljust(TPM_BYTES, b"\0")) == b""
    for size in (0, TPM_BYTES // 2 + 1, TPM_BYTES):
        with pytest.raises(IntegrityError, match="cannot have"):
            to_image(bytes(size))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"x" * TPM_BYTES, "what swtpm writes"),
        (to_image(STATE)[:191], "what swtpm writes"),
        (to_image(STATE)[:8] + b"\2" + to_image(STATE)[9:], "what swtpm writes"),
        (to_image(STATE)[:5191], "outside"),
        (to_image(STATE)[:12] + struct.pack("<III", 0xFFFFFFFF, 0xFFFFFFFF, 0) + to_image(STATE)[24:], "outside"),
        (to_image(STATE)[:12] + struct.pack("<III", 4, 5000, 8192) + to_image(STATE)[24:], "outside"),
    ],
)
def test_damaged(image: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why):
        from_image(image)
