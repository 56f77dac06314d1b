# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Packs the engine into an archive, and writes the SHA-256 of what is in it to standard output.

Runs on the controller. One archive instead of a hundred files is one transfer, and the digest names the version. The
digest is that of the plain tar: compressed bytes differ between versions of zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile

LAST = "__init__.py"
"""The package itself comes last in the archive: while it is missing on a node, unpacking did not end."""


def sources(folder: str) -> list[str]:
    """The Python files below ``folder``, in the order of the archive."""
    found = [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _folders, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    ]
    return sorted(found, key=lambda path: (path == LAST, path))


def pack(folder: str) -> bytes:
    """The Python files below ``folder`` as a tar with the top directory ``holdfast``."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sources(folder):
            entry = tarfile.TarInfo(os.path.join("holdfast", path))
            entry.size = os.path.getsize(os.path.join(folder, path))
            entry.mode = 0o644
            with open(os.path.join(folder, path), "rb") as stream:
                archive.addfile(entry, stream)
    return plain.getvalue()


def main() -> None:
    """Arguments: the engine's directory, the archive to write."""
    folder, target = sys.argv[1:]
    data = pack(folder)
    with open(target, "wb") as stream:
        stream.write(gzip.compress(data))
    sys.stdout.write(hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()
