# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Data like that of real disks and trees: zeros, text, program-like bytes and noise, the same in every run."""

from __future__ import annotations

import os
import random

MIB = 1024 * 1024
_WORDS = (
    *("backup", "restore", "volume", "guest", "cluster", "the", "a", "of", "and", "snapshot", "service"),
    *("started", "failed", "info", "warning", "user", "session", "kernel"),
)


def text(rng: random.Random, size: int) -> bytes:
    """Log-like lines; compresses about three to five times."""
    lines: list[str] = []
    length = 0
    while length < size:
        line = f"{rng.randrange(10**9):010d} {' '.join(rng.choices(_WORDS, k=9))} id={rng.getrandbits(48):x}\n"
        lines.append(line)
        length += len(line)
    return "".join(lines).encode()[:size]


def binary(rng: random.Random, size: int) -> bytes:
    """Small numbers with repetition; compresses about two times."""
    words = [rng.randbytes(rng.choice((4, 8, 12))) for _word in range(3000)]
    out = bytearray()
    while len(out) < size:
        out += rng.choice(words) if rng.random() < 0.6 else rng.randbytes(3)
    return bytes(out[:size])


def patterns() -> list[bytes]:
    """Four MiB pieces to build images from: zeros, text, binary, noise, and a half-empty one."""
    rng = random.Random(20)
    size = 4 * MIB
    mixed = b"".join(bytes(8192) if n % 2 else rng.randbytes(8192) for n in range(size // 8192))
    return [bytes(size), text(rng, size), binary(rng, size), rng.randbytes(size), mixed]


def image(path: str, size: int) -> None:
    """A raw disk image of ``size`` bytes: a third holes, the rest a mix, in long and short stretches."""
    rng = random.Random(7)
    zero, *others = patterns()
    with open(path, "wb") as file:
        while file.tell() < size:
            kind = rng.random()
            if kind < 0.33:
                file.seek(len(zero) * rng.randrange(1, 8), 1)
            else:
                piece = rng.choices(others, (5, 4, 2, 1))[0]
                turn = rng.randrange(len(piece))
                file.write(piece[turn:] + piece[:turn])
        file.truncate(size)


def tree(root: str, size: int) -> None:
    """A tree like a container's: mostly small files, most bytes in larger ones, links, one sparse file."""
    rng = random.Random(11)
    pieces = patterns()[1:4]
    made = 0
    number = 0
    while made < size:
        folder = os.path.join(root, f"d{number % 97}", f"e{number % 11}")
        os.makedirs(folder, exist_ok=True)
        length = int(min(rng.lognormvariate(9, 2.2), 64 * MIB))
        piece = rng.choices(pieces, (5, 4, 2))[0]
        turn = rng.randrange(len(piece))
        with open(os.path.join(folder, f"f{number}"), "wb") as file:
            while file.tell() < length:
                file.write(piece[turn : turn + length - file.tell()])
                turn = 0
        if number % 20 == 0:
            os.symlink(f"../f{number}", os.path.join(folder, f"l{number}"))
        made += length + 512
        number += 1
    with open(os.path.join(root, "sparse"), "wb") as file:
        file.seek(200 * MIB)
        file.write(b"end")
