# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packs the engine into an archive whose bytes depend on nothing but the engine; writes its SHA-256 to stdout.

Runs on the controller. One archive instead of a hundred files is one transfer, and the digest names the version.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile


def pack(source: str) -> bytes:
    """The Python files below ``source`` as a gzipped tar with the top directory ``holdfast``."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder, subfolders, names in os.walk(source):
            subfolders.sort()
            for name in sorted(names):
                if not name.endswith(".py"):
                    continue
                path = os.path.join(folder, name)
                entry = tarfile.TarInfo(os.path.join("holdfast", os.path.relpath(path, source)))
                entry.size = os.path.getsize(path)
                entry.mode = 0o644
                with open(path, "rb") as stream:
                    archive.addfile(entry, stream)
    return gzip.compress(plain.getvalue(), mtime=0)


def main() -> None:
    """Arguments: the engine's directory, the archive to write."""
    source, target = sys.argv[1:]
    data = pack(source)
    with open(target, "wb") as stream:
        stream.write(data)
    sys.stdout.write(hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()
