# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup and restore of a stopped container's tree: the engine against tar and zstd."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess

from data import MIB, patterns
from engine.formats.cttar import create_argv, extract_argv
from engine.formats.tarscan import TarGuard
from engine.stream.pump import feed, pump_fd
from engine.stream.sink import open_sink
from engine.stream.source import open_source
from measure import compare, function, say, shell


def tree(root: str, size: int) -> None:
    """A tree like a container's: mostly small files, most bytes in larger ones, links, one sparse file."""
    rng = random.Random(11)
    pieces = patterns()[1:4]
    made = 0
    for number in range(10**9):
        if made >= size:
            break
        folder = os.path.join(root, f"d{number % 97}", f"e{number % 11}")
        os.makedirs(folder, exist_ok=True)
        length = int(min(rng.lognormvariate(9, 2.2), 64 * MIB))
        piece = rng.choice(pieces)
        with open(os.path.join(folder, f"f{number}"), "wb") as file:
            for at in range(0, length, len(piece)):
                file.write(piece[: min(len(piece), length - at)])
        if number % 20 == 0:
            os.symlink(f"../f{number}", os.path.join(folder, f"l{number}"))
        made += length + 512
    with open(os.path.join(root, "sparse"), "wb") as file:
        file.seek(200 * MIB)
        file.write(b"end")


def backup(argv: list[str], archive: str, threads: int) -> None:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with open_sink(archive, "zst", threads=threads) as sink:
        pump_fd(process.stdout.fileno(), sink)  # type: ignore[union-attr]
        if process.wait():
            raise SystemExit("tar failed")


def restore(argv: list[str], archive: str) -> None:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    guard = TarGuard(allow_devices=False)
    with open_source(archive) as source:
        feed(source, process.stdin.fileno(), inspect=guard.inspect)  # type: ignore[union-attr]
    process.stdin.close()  # type: ignore[union-attr]
    guard.finish()
    if process.wait():
        raise SystemExit("tar failed")


def _empty(folder: str) -> str:
    """The folder, new and empty; the changes before it on disk, so that they do not slow the next step down."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    os.sync()
    return folder


def main(folder: str, mib: int, threads: int, rounds: int) -> None:
    config, root, new = (os.path.join(folder, name) for name in ("config", "root", "new"))
    ours, theirs = (os.path.join(folder, name) for name in ("ours.tar.zst", "theirs.tar.zst"))
    os.makedirs(os.path.join(config, "etc/vzdump"))
    for name in ("pct.conf", "pct.fw"):
        with open(os.path.join(config, "etc/vzdump", name), "w") as file:
            file.write("hostname: bench\n")
    tree(root, mib * MIB)
    create = create_argv(config_dir=config, data_root=root, sources=["./"])
    plain = shlex.join(create)
    compare(
        "container backup",
        rounds,
        lambda: function("engine: tar to zstd", lambda: backup(create, ours, threads)),
        lambda: shell("tar and zstd", f"{plain} 2>/dev/null | zstd -q -f -T{threads} -1 -o {theirs} && sync {theirs}"),
    )
    say(f"   archives of {os.path.getsize(ours)} and {os.path.getsize(theirs)} bytes")
    extract = extract_argv(new)

    compare(
        "container restore",
        rounds,
        lambda: _empty(new) and function("engine: zstd to tar, headers checked", lambda: restore(extract, ours)),
        lambda: _empty(new) and shell("zstd -d and tar", f"zstd -q -d -c {theirs} | {shlex.join(extract)} 2>/dev/null"),
    )
    _empty(new)
    restore(extract, ours)
    shutil.rmtree(os.path.join(new, "etc"))
    subprocess.run(["diff", "-r", "--no-dereference", root, new], check=True)
    say("   the restored tree equals the original")
