# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup costs the guest's own writes: a writer in the laboratory's VM, with and without a backup beside it.

The writer overwrites 4 KiB here and there in a file and flushes each write to the disk. What is measured is how long
the VM's disk takes for each write of the guest, from request to completion. The backup is limited to 5 MB/s, as a slow
target would limit it, and is broken off when the writer is done. The situations take turns; the medians of the rounds
are shown.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from typing import Iterator

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [REPOSITORY, os.path.join(REPOSITORY, "plugins", "module_utils")]

from engine.guests.qemu.qmp import QmpClient  # noqa: E402

from tests.lab.inside import run_inside  # noqa: E402
from tests.lab.laboratory import VM, Laboratory  # noqa: E402

SECONDS = 20
"""How long the writer writes in each situation."""
FILE_MIB = 4 * 24
"""Four times the laboratory's file of noise."""
LIMIT_KIB = 5_000_000 // 1024
WRITER = """
end=$(($(cut -d . -f 1 /proc/uptime) + {seconds}))
page={first}
while [ $(cut -d . -f 1 /proc/uptime) -lt $end ]; do
    page=$(((page + 7919) % {pages}))
    dd if=/dev/urandom of=/a/latency bs=4k count=1 seek=$page conv=notrunc,fsync 2>/dev/null
done
"""
"""The step goes through all pages of the file, in an order that no cache foresees."""
BOUNDS = [int(20_000 * 1.06**number) for number in range(240)]
"""Nanoseconds at which the bins of the histogram begin: 20 µs to 20 s, each 6 % longer than the one before."""
SITUATIONS: dict[str, tuple[str, ...] | None] = {
    "idle": None,
    "backup without fleecing": (),
    "backup with fleecing": ("--fleecing", "enabled=1,storage=local"),
}


@contextlib.contextmanager
def backup(laboratory: Laboratory, options: tuple[str, ...]) -> Iterator[None]:
    """A slow backup of the VM that has begun to copy; it is broken off behind the block."""
    argv = [sys.executable, "-m", "engine", "run", str(VM), "--storage", "backup", "--bwlimit", str(LIMIT_KIB)]
    folder = os.path.join(laboratory.storage, "backup", "dump")
    with subprocess.Popen(
        [*argv, *options], env=laboratory.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            while not any(
                name.endswith(".dat") and os.path.getsize(os.path.join(folder, name)) for name in _ls(folder)
            ):
                if child.poll() is not None:
                    raise RuntimeError(f"the backup ended too early, with exit status {child.returncode}")
                time.sleep(0.05)
            yield
            if child.poll() is not None:
                raise RuntimeError("the backup ended before the writer did: give it less --seconds")
        finally:
            child.terminate()


def measure(laboratory: Laboratory, options: tuple[str, ...] | None, seconds: int, first: int) -> list[int]:
    """How many of the guest's writes fell into each bin in one situation."""
    script = WRITER.format(seconds=seconds, first=first, pages=FILE_MIB * 256)
    run = os.path.join(laboratory.root, "run/qemu-server", str(VM))
    with contextlib.nullcontext() if options is None else backup(laboratory, options):
        with QmpClient(f"{run}.qmp", "the VM") as qmp:
            qmp.execute("block-latency-histogram-set", {"id": "scsi0", "boundaries-write": BOUNDS})
        run_inside(f"{run}.qga", "/bin/sh", "-c", script)
        with QmpClient(f"{run}.qmp", "the VM") as qmp:
            devices = {device.get("qdev"): device["stats"] for device in qmp.execute("query-blockstats")}
    return list(devices["scsi0"]["wr_latency_histogram"]["bins"])


def percentile(bins: list[int], share: int) -> float:
    """Milliseconds that this share of the writes stayed below; exact to the width of a bin."""
    left = sum(bins) * share / 100
    for count, bound in zip(bins, BOUNDS):
        left -= count
        if left <= 0:
            return bound / 1e6
    return BOUNDS[-1] / 1e6


def main(folder: str, _mib: int, _threads: int, rounds: int) -> None:
    """Measure in a laboratory below a folder; it always has the same size."""
    figures: dict[str, list[tuple[int, float, float]]] = {name: [] for name in SITUATIONS}
    laboratory = Laboratory(os.path.join(folder, "lab"))
    try:
        laboratory.up()
        socket = os.path.join(laboratory.root, "run/qemu-server", f"{VM}.qga")
        fill = "for n in 1 2 3 4; do cat /a/files/noise; done >/a/latency; sync"
        run_inside(socket, "/bin/sh", "-c", fill)
        for number in range(rounds):
            for name, options in SITUATIONS.items():
                bins = measure(laboratory, options, SECONDS, number)
                p50, p99 = percentile(bins, 50), percentile(bins, 99)
                figures[name].append((sum(bins), p50, p99))
                print(
                    f"round {number + 1}: {name}: {sum(bins)} writes, p50 {p50:.2f} ms, p99 {p99:.2f} ms",
                    flush=True,
                )
    finally:
        laboratory.down()
    print(f"{'situation':26}{'writes':>8}{'p50 ms':>9}{'p99 ms':>9}{'p50 / idle':>12}{'p99 / idle':>12}")
    base: list[float] = []
    for name, found in figures.items():
        middle = [statistics.median(column) for column in zip(*found)]
        base = base or middle
        ratios = [middle[1] / base[1], middle[2] / base[2]]
        print(f"{name:26}{middle[0]:8.0f}{middle[1]:9.2f}{middle[2]:9.2f}{ratios[0]:12.2f}{ratios[1]:12.2f}")


def _ls(folder: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return os.listdir(folder)
    return []
