# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing a restored directory tree with its original: content by checksum, and everything a file system keeps."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Callable, Iterator

CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What makes one file the same as another."""

    kind: int
    mode: int
    uid: int
    gid: int
    links: int
    detail: str
    xattrs: tuple[tuple[str, bytes], ...]


def _digest(path: bytes) -> str:
    sha = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(CHUNK):
            sha.update(block)
    return sha.hexdigest()


def _entry(path: bytes) -> Entry:
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFREG:
        detail = f"{info.st_size} {int(info.st_mtime)} {_digest(path)}"
    elif kind == stat.S_IFLNK:
        detail = repr(os.readlink(path))
    elif kind in (stat.S_IFBLK, stat.S_IFCHR):
        detail = str(info.st_rdev)
    else:
        detail = ""
    xattrs = tuple(
        sorted(
            (name, os.getxattr(path, name, follow_symlinks=False)) for name in os.listxattr(path, follow_symlinks=False)
        )
    )
    return Entry(
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_nlink if kind == stat.S_IFREG else 0,
        detail,
        xattrs,
    )


def tree(root: str, leave_out: Callable[[str], bool]) -> dict[bytes, Entry]:
    """Every file below ``root`` by its relative name; ``leave_out`` gets that name and drops it with all below."""
    return dict(_walk(os.fsencode(root), b"", leave_out))


def _walk(root: bytes, inside: bytes, leave_out: Callable[[str], bool]) -> Iterator[tuple[bytes, Entry]]:
    for name in sorted(os.listdir(os.path.join(root, inside))):
        relative = os.path.join(inside, name)
        if leave_out(os.fsdecode(relative)):
            continue
        path = os.path.join(root, relative)
        entry = _entry(path)
        if entry.kind == stat.S_IFSOCK:
            # tar keeps no sockets, here and in Proxmox VE: whoever listens on one makes it anew.
            continue
        yield relative, entry
        if entry.kind == stat.S_IFDIR:
            yield from _walk(root, relative, leave_out)


def differences(original: dict[bytes, Entry], restored: dict[bytes, Entry]) -> list[str]:
    """One line per file that is missing, added or different."""
    lines = []
    for name in sorted(set(original) | set(restored)):
        if name not in restored:
            lines.append(f"{os.fsdecode(name)!r} is missing")
        elif name not in original:
            lines.append(f"{os.fsdecode(name)!r} was not there")
        elif original[name] != restored[name]:
            lines.append(f"{os.fsdecode(name)!r} differs: {original[name]} became {restored[name]}")
    return lines
