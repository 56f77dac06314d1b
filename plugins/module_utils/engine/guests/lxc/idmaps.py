# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which ids root may map for unprivileged containers.

As soon as the package uidmap is installed, its programs decide that, for root too, by ``/etc/subuid`` and
``/etc/subgid``.
"""

from __future__ import annotations

import shutil
from typing import Sequence

from ...system.files import read_text

FILES = {"u": "/etc/subuid", "g": "/etc/subgid"}


def host_owner(maps: Sequence[str]) -> int:
    """Host id of the container's root."""
    for one in maps:
        kind, inside, outside, _count = one.split(":")
        if (kind, inside) == ("u", "0"):
            return int(outside)
    return 0


def idmap_hint(maps: Sequence[str]) -> str:
    """What to do so that root may map these ids (``u:0:100000:65536``); empty when it may, or needs no leave."""
    if shutil.which("newuidmap") is None:
        return ""
    wanted: dict[str, list[str]] = {}
    for one in maps:
        kind, _inside, first, count = one.split(":")
        if not _allowed(FILES[kind], int(first), int(count)):
            wanted.setdefault(f"root:{first}:{count}", []).append(FILES[kind])
    return "; ".join(f"add the line {line} to {' and '.join(files)}" for line, files in wanted.items())


def _allowed(path: str, first: int, count: int) -> bool:
    for line in (read_text(path) or "").splitlines():
        user, *numbers = line.split(":")
        if user in ("root", "0") and len(numbers) == 2 and all(map(str.isdigit, numbers)):
            start, size = map(int, numbers)
            if start <= first and first + count <= start + size:
                return True
    return False
