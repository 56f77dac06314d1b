# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers of very many files: time against tar and zstd, and first runs of restic and borg; memory; pauses."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Callable

from ct import backup, compare_backups, make_config
from data import MIB, patterns
from measure import MEMORY_AIM, Measured, Step, apart, function, remove, say, shell, verdict

REPOSITORY = Path(__file__).resolve().parent.parent
PER_FOLDER = 500


def small_files(root: str, count: int, median: int) -> None:
    """Text, programs and noise in files of a few KiB; 500 in a folder."""
    rng = random.Random(5)
    pieces = patterns()[1:4]
    for number in range(count):
        folder = os.path.join(root, f"d{number // PER_FOLDER // 50}", f"e{number // PER_FOLDER % 50}")
        if number % PER_FOLDER == 0:
            os.makedirs(folder)
        length = int(min(rng.lognormvariate(0, 1.2) * median, MIB)) if median else 0
        piece = rng.choices(pieces, (6, 3, 1))[0]
        start = rng.randrange(len(piece) - length)
        fd = os.open(os.path.join(folder, f"file{number}"), os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(fd, piece[start : start + length])
        os.close(fd)


def large_files(root: str, mib: int) -> None:
    """Files of 128 MiB."""
    rng = random.Random(6)
    pieces = patterns()[1:]
    os.makedirs(root)
    for number in range(mib // 128):
        with open(os.path.join(root, f"file{number}"), "wb") as file:
            for _piece in range(128 // 4):
                piece = rng.choices(pieces, (5, 4, 2, 1))[0]
                turn = rng.randrange(len(piece))
                file.write(piece[turn:] + piece[:turn])


def times(folder: str, fill: Callable[[str], None], threads: int, rounds: int) -> None:
    """The engine against tar and zstd in turn, then one first run of restic and one of borg."""
    root = os.path.join(folder, "root")
    apart(lambda: fill(root))
    compare_backups(folder, make_config(folder), root, threads, rounds)
    store = os.path.join(folder, "store")
    for name, line in (
        (
            "restic",
            f"export RESTIC_PASSWORD=x RESTIC_CACHE_DIR={folder}/cache RESTIC_REPOSITORY={store};"
            f" restic -q init --repository-version 2 && restic -q backup {root}",
        ),
        (
            "borg",
            f"export BORG_BASE_DIR={folder}/borg; borg init -e none {store}"
            f" && borg create -C zstd,1 {store}::one {root}",
        ),
    ):
        Step(name, partial(shell, f"{line} && sync -f {store}")).measure()
        size = subprocess.run(["du", "-sm", store], capture_output=True, text=True, check=True).stdout.split()[0]
        say(f"   {name}: first run, repository of {size} MiB")
        remove(store)


def memory(folder: str, _mib: int, threads: int, _rounds: int) -> None:
    """What the largest process and the engine's own take, whatever the number of files."""
    archive = os.path.join(folder, "ours.tar.zst")
    make_config(folder)
    root = os.path.join(folder, "root")
    peaks: list[Measured] = []
    for count in (10_000, 1_000_000):
        apart(partial(small_files, root, count, 0))
        say(f"== {count} files")
        peaks.append(Step("engine", lambda: function(lambda: backup(folder, archive, threads))).measure())
        copy = os.path.join(folder, "copy")
        # The copy of the mode suspend, as far as memory goes: what is compared and listed, but not written.
        Step("rsync", lambda: shell(f"rsync -naH --delete --numeric-ids -X -A {root}/ {copy}/")).measure()  # noqa: B023
        subprocess.run(["rm", "-rf", root], check=True)
    say(f"   engine {peaks[0].own:.0f} MiB and {peaks[1].own:.0f} MiB, {verdict(peaks[1].own, MEMORY_AIM)}")


def pause(folder: str, _mib: int, _threads: int, rounds: int) -> None:
    """How long each mode keeps a real container of 10,000 files on btrfs from running."""
    sys.path[:0] = [str(REPOSITORY / "tests" / "e2e"), str(REPOSITORY)]
    from helpers.boxes import Box

    root = Path(folder, "node")
    root.mkdir(mode=0o755)
    Path(folder).chmod(0o755)
    mounted, image = root / "btrfs", Path(folder, "image")
    with image.open("wb") as stream:
        stream.truncate(4096 * MIB)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    box = Box(root, f"dir: btrfs\n\tpath {mounted}\n\tcontent rootdir\n")
    try:
        volume = {"rootfs": "btrfs:101/subvol-101-disk-0.subvol"}
        box.make(101, volume, fill=lambda tree: apart(lambda: small_files(f"{tree}/srv", 10_000, 3000)))
        box.start(101)
        for mode in ("snapshot", "suspend", "stop"):
            found = [box.backup(101, mode).timings for _round in range(rounds)]
            key = "downtime_seconds" if mode == "stop" else "freeze_seconds"
            seconds = sorted(one[key] for one in found)
            say(f"   {mode:9} pause {statistics.median(seconds):6.2f} s (from {seconds[0]:.2f} to {seconds[-1]:.2f})")
            box.wait_for_writer(101)
    finally:
        box.close()
        subprocess.run(["umount", mounted], check=True)


def small(folder: str, _mib: int, threads: int, rounds: int) -> None:
    times(folder, lambda root: small_files(root, 100_000, 3000), threads, rounds)


def large(folder: str, mib: int, threads: int, rounds: int) -> None:
    times(folder, lambda root: large_files(root, mib), threads, rounds)
