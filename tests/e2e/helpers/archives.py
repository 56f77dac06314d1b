# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives that no honest backup makes: damaged ones and hostile ones."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path
from typing import Iterable, Sequence

from helpers.node import Node

CT_CONFIG = """hostname: guest
rootfs: local:300/subvol-300-disk-0.subvol,size=1G
"""


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    """One member of a tar archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info, data


def config(text: str) -> tuple[tarfile.TarInfo, bytes]:
    """The member that says what guest it is."""
    return member("./etc/vzdump/pct.conf", data=text.encode())


def tar_archive(node: Node, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> str:
    """A container archive on the storage ``backup``; returns its volume id."""
    node.dump.mkdir(parents=True, exist_ok=True)
    name = "vzdump-lxc-300-2026_01_01-00_00_00.tar"
    with tarfile.open(node.dump / name, "w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return f"backup:backup/{name}"


def header_size(vma: bytes) -> int:
    """Where the first extent of a VMA archive begins."""
    (size,) = struct.unpack_from(">I", vma, 56)
    return int(size)


def renamed(vma: bytes, old: bytes, new: bytes) -> bytes:
    """A VMA archive with another name in its header, whose checksum is right."""
    return replaced(vma, old + b"\0", new + b"\0")


def replaced(vma: bytes, old: bytes, new: bytes) -> bytes:
    """A VMA archive with other bytes in its header, whose checksum is right."""
    assert len(old) == len(new)
    head = bytearray(vma[: header_size(vma)])
    assert head.count(old) == 1
    head[:] = head.replace(old, new)
    head[32:48] = bytes(16)
    head[32:48] = hashlib.md5(head).digest()
    return bytes(head) + vma[len(head) :]


def flipped(data: bytes, at: int) -> bytes:
    """One bit is wrong."""
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def outside(node: Node) -> Path:
    """A folder that no restore may touch."""
    path = node.root / "outside"
    path.mkdir()
    (path / "witness").write_text("untouched")
    return path


def untouched(path: Path, names: Sequence[str] = ("witness",)) -> None:
    assert sorted(item.name for item in path.iterdir()) == sorted(names)
    assert (path / "witness").read_text() == "untouched"
