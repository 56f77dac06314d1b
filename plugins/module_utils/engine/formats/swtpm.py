# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The permanent state of a software TPM in a volume, as Proxmox VE has it in ``tpmstate0``.

swtpm keeps its states either as files of their own in a folder (libvirt) or behind a header in one file (Proxmox VE);
what they hold is the same. The header is ``struct nvram_linear_hdr`` of swtpm's ``swtpm_nvstore_linear.h``, little
endian: a magic number, a version, the header's size, and for 15 states their offset (0: there is none), their length
and the room they have, all in bytes. The first of them is the permanent state.
"""

from __future__ import annotations

import struct

from ..errors import IntegrityError
from ..settings.vm_config import TPM_BYTES

_MAGIC = 0x737774706D6C696E
_VERSION = 1
_STATES = 15
_HEADER = struct.Struct("<QBxH")
_STATE = struct.Struct("<III")
_HEADER_BYTES = _HEADER.size + _STATES * _STATE.size


def to_image(state: bytes) -> bytes:
    """The volume that holds a permanent state.

    :raises IntegrityError: that is no state, because it is empty or larger than the volume.
    """
    # swtpm takes the next power of two, so that a state that grows a little stays where it is.
    room = 1 << (len(state) - 1).bit_length() if state else 0
    if not state or _HEADER_BYTES + room > TPM_BYTES:
        raise IntegrityError(f"the state of a TPM cannot have {len(state)} bytes")
    header = _HEADER.pack(_MAGIC, _VERSION, _HEADER_BYTES) + _STATE.pack(_HEADER_BYTES, len(state), room)
    return (header.ljust(_HEADER_BYTES, b"\0") + state).ljust(TPM_BYTES, b"\0")


def from_image(image: bytes) -> bytes:
    """The permanent state in a volume, empty when it holds none.

    :raises IntegrityError: it is not written by swtpm, or damaged.
    """
    if not image.strip(b"\0"):
        return b""
    if len(image) < _HEADER_BYTES or _HEADER.unpack_from(image)[:2] != (_MAGIC, _VERSION):
        raise IntegrityError("the volume of the TPM does not hold what swtpm writes")
    offset, length, _room = _STATE.unpack_from(image, _HEADER.size)
    if offset and (offset < _HEADER_BYTES or offset + length > len(image)):
        raise IntegrityError("the volume of the TPM is damaged: its state lies outside of it")
    return image[offset : offset + length] if offset else b""
