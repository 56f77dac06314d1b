# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Patterns that tar does not know are looked up in the trees, and tar is told the very names."""

from __future__ import annotations

import os
from typing import Iterator, Sequence

from ..rules.excludes import Pattern, literal, matches
from .ct_trees import Trees

FILE = "excluded"


def write_found(workdir: str, trees: Trees, patterns: Sequence[Pattern]) -> str:
    """Write what the patterns match to a file for ``--exclude-from``; returns its name in the scratch folder."""
    with open(os.path.join(workdir, FILE), "wb") as stream:
        for folder, name in [*(("root", source) for source in trees.sources), *trees.apart]:
            top = os.fsencode(os.path.join(workdir, folder))
            for path in _found(top, os.fsencode(name[2:]), patterns):
                stream.write(os.fsencode(literal(os.fsdecode(path)).for_tar()[1]) + b"\n")
    os.chmod(os.path.join(workdir, FILE), 0o644)
    return FILE


def _found(top: bytes, start: bytes, patterns: Sequence[Pattern]) -> Iterator[bytes]:
    """Names below ``start`` that match, without what is below them; other file systems are not entered."""
    device = os.lstat(os.path.join(top, start)).st_dev
    waiting = [start]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                is_folder = entry.is_dir(follow_symlinks=False)
                if matches(patterns, path, folder=is_folder):
                    yield path
                elif is_folder and entry.stat(follow_symlinks=False).st_dev == device:
                    waiting.append(path)
