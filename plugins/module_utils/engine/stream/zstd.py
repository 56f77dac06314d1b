# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd compression and decompression of whole frames, one context per thread."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Callable

from ..errors import DependencyError, IntegrityError
from .files import Buffer


class WrongTable(IntegrityError):
    """A seek table does not fit the frames; they are complete without it."""


def library() -> ModuleType:
    """The ``zstandard`` module.

    :raises DependencyError: it is not installed.
    """
    try:
        import zstandard
    except ImportError as exc:
        raise DependencyError(
            "cannot handle zstd archives: the Python library zstandard is missing",
            hint="install the package python3-zstandard",
        ) from exc
    module: ModuleType = zstandard
    return module


def frame_compressor(level: int) -> Callable[[Buffer], bytes]:
    """A function for any number of threads: data to one frame with content size and checksum."""
    zstandard = library()
    local = threading.local()

    def compress(data: Buffer) -> bytes:
        context = getattr(local, "context", None)
        if context is None:
            context = local.context = zstandard.ZstdCompressor(
                level=level, write_checksum=True, write_content_size=True
            )
        return context.compress(data)  # type: ignore[no-any-return]

    return compress


def frame_decompressor() -> Callable[[bytes, int, str], bytes]:
    """A function for any number of threads: one frame, its length when decompressed, and its name in errors.

    The function raises :class:`WrongTable` for another length, :class:`IntegrityError` for a damaged frame.
    """
    zstandard = library()
    local = threading.local()

    def decompress(frame: bytes, length: int, what: str) -> bytes:
        context = getattr(local, "context", None)
        if context is None:
            context = local.context = zstandard.ZstdDecompressor()
        try:
            claimed = zstandard.frame_content_size(frame)
            # -1: the frame does not say; then the limit below bounds what is allocated.
            if claimed not in (-1, length):
                raise WrongTable(f"{what} holds {claimed} bytes, but the seek table says {length}")
            data: bytes = context.decompress(frame, max_output_size=length)
        except zstandard.ZstdError as exc:
            raise IntegrityError(f"{what} is damaged: {exc}") from exc
        if len(data) != length:
            raise WrongTable(f"{what} holds {len(data)} bytes, but the seek table says {length}")
        return data

    return decompress
