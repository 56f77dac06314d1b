# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guests' file systems hold: real programs, noise, text, and everything that a backup of a tree can lose."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket

from .commands import run

PROGRAMS = ("qemu-img", "python3", "tar", "bash")
SUMS = "files.sha256"
"""List of the plain files below a folder with their checksums, as ``sha256sum -c`` reads it."""


def plain(folder: str, noise: int) -> None:
    """Programs of this machine, text, and ``noise`` bytes that do not compress, with their checksums beside them."""
    inside = os.path.join(folder, "files")
    os.makedirs(inside)
    for name in PROGRAMS:
        shutil.copy(shutil.which(name) or "/bin/sh", os.path.join(inside, name))
    with open(os.path.join(inside, "noise"), "wb") as stream:
        stream.write(os.urandom(noise))
    with open(os.path.join(inside, "text"), "w", encoding="ascii") as text:
        text.writelines(f"line {number} of a text that repeats itself\n" for number in range(50000))
    with open(os.path.join(folder, SUMS), "w", encoding="ascii") as sums:
        for name in sorted(os.listdir(inside)):
            with open(os.path.join(inside, name), "rb") as stream:
                sums.write(f"{hashlib.sha256(stream.read()).hexdigest()}  files/{name}\n")


def awkward(folder: str) -> None:
    """Owners, modes, links, holes, names, attributes and special files."""
    os.makedirs(folder)
    path = os.path.join(folder, "plain")
    _write(path, b"plain\n")
    os.chown(path, 1000, 1001)
    os.chmod(path, 0o4751)
    os.utime(path, ns=(1_000_000_000_123_456_789, 1_000_000_000_987_654_321))
    os.setxattr(path, "user.note", b"kept")
    run("setfacl", "-m", "u:1234:rw,m::rw", path)
    os.link(path, os.path.join(folder, "hard"))
    below = os.path.join(folder, "below")
    os.mkdir(below)
    os.link(path, os.path.join(below, "hard across folders"))
    run("setfacl", "-d", "-m", "g:4321:rx", below)
    os.symlink("/etc/passwd", os.path.join(folder, "absolute"))
    os.symlink("../../nowhere", os.path.join(folder, "dangling"))
    capable = os.path.join(folder, "capable")
    _write(capable, b"\x7fELF")
    run("setcap", "cap_net_raw+ep", capable)
    with open(os.path.join(folder, "sparse"), "wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(32 << 20)
        stream.write(b"middle")
    os.mkfifo(os.path.join(folder, "fifo"))
    with socket.socket(socket.AF_UNIX) as server:
        # A relative name, because the whole path may be longer than a socket's may be.
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            server.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    for name in (b"new\nline", b"odd-\xff\xfe", b"-dash", b" blank ", b"long" * 60, "grüße".encode()):
        with open(os.path.join(os.fsencode(folder), name), "wb") as stream:
            stream.write(name)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(data)
