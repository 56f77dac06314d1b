# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast archives are written and read without a guest: VMA and zstd against the zstd program.

python benchmarks/bench_stream.py [--mib 2048] [--threads 2] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "plugins/module_utils"))

from data import MIB, image
from engine.formats.cluster_map import ClusterMapBuilder
from engine.formats.vma_layout import CLUSTER, EXTENT_BYTES
from engine.formats.vma_reader import VmaReader
from engine.formats.vma_writer import VmaWriter
from engine.stream.sink import open_sink
from engine.stream.source import open_source


def backup(raw: str, archive: str, threads: int) -> None:
    """The engine's write path, fed from a raw image."""
    size = os.path.getsize(raw)
    buffer = bytearray(EXTENT_BYTES)
    with open(raw, "rb", buffering=0) as file, open_sink(archive, "zst", threads=threads) as sink:
        index = ClusterMapBuilder()
        vma = VmaWriter(
            sink.write, bytes(16), 0, [("qemu-server.conf", b"memory: 512\n")], [("drive-scsi0", size)], index
        )
        sink.add_trailer(index.frame)
        at = 0
        while at < size:
            got = file.readinto(buffer)
            vma.write_clusters(1, at // CLUSTER, memoryview(buffer)[:got] if got < len(buffer) else buffer)
            at += got
        vma.close()


def restore(archive: str) -> int:
    """The engine's read path, without writing anything."""
    with open_source(archive) as source:
        return sum(piece.length for piece in VmaReader(source).pieces())


def timed(name: str, what: object, *args: object) -> float:
    began, cpu = time.monotonic(), os.times()
    what(*args)  # type: ignore[operator]
    took, used = time.monotonic() - began, os.times()
    busy = sum(used[:4]) - sum(cpu[:4])
    sys.stdout.write(f"{name:34} {took:7.2f} s   {busy:7.2f} s of processors\n")
    return took


def command(line: str) -> None:
    subprocess.run(["sh", "-c", line], check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        raw, ours, theirs = (os.path.join(folder, name) for name in ("raw", "ours.vma.zst", "theirs.zst"))
        image(raw, args.mib * MIB)
        for _ in range(2):
            one = timed("engine: VMA + zstd", backup, raw, ours, args.threads)
            two = timed(
                "zstd program", command, f"cat {raw} | zstd -q -f -T{args.threads} -1 -o {theirs} && sync {theirs}"
            )
            sys.stdout.write(
                f"write: engine/zstd {one / two:.2f}; size {os.path.getsize(ours)} and {os.path.getsize(theirs)}\n"
            )
            one = timed("engine: read VMA + zstd", restore, ours)
            two = timed("zstd -d program", command, f"zstd -q -d -c {theirs} | cat >/dev/null")
            sys.stdout.write(f"read: engine/zstd {one / two:.2f}\n")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sys.stdout.write(f"peak memory of the engine {peak:.0f} MiB\n")


if __name__ == "__main__":
    main()
