# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup and restore of a stopped VM's disk: the engine against nbdcopy and zstd, on the same export."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

from data import MIB, image
from engine.formats.cluster_map import ClusterMapBuilder
from engine.formats.vma_layout import CLUSTER, EXTENT_BYTES
from engine.formats.vma_reader import VmaReader
from engine.formats.vma_writer import VmaWriter
from engine.stream.sink import open_sink
from engine.stream.source import open_source
from measure import compare, function, say, shell


@contextlib.contextmanager
def export(disk: str, socket: str) -> Iterator[str]:
    """The qcow2 image as a read-only NBD export, as a stopped guest's disks are read."""
    argv = [
        "qemu-storage-daemon",
        *("--blockdev", f"driver=qcow2,node-name=disk,read-only=on,file.driver=file,file.filename={disk}"),
        *("--nbd-server", f"addr.type=unix,addr.path={socket}"),
        *("--export", "type=nbd,id=disk,node-name=disk,name=disk,writable=off"),
    ]
    daemon = subprocess.Popen(argv)
    try:
        while not os.path.exists(socket):
            if daemon.poll() is not None:
                raise SystemExit("qemu-storage-daemon did not start")
            time.sleep(0.02)
        yield f"nbd+unix:///disk?socket={socket}"
    finally:
        daemon.terminate()
        daemon.wait()


def allocated(handle: object, size: int) -> Iterator[tuple[int, int, bool]]:
    """Stretches of whole clusters as ``(offset, length, zero)``."""
    flags: list[tuple[int, bool]] = []

    def note(context: str, _offset: int, entries: list[int], _error: object) -> int:
        flags.extend((length, bool(kind & 2)) for length, kind in zip(entries[::2], entries[1::2]))
        return 0

    at = 0
    while at < size:
        flags.clear()
        handle.block_status(min(size - at, 1 << 30), at, note)  # type: ignore[attr-defined]
        for length, zero in flags:
            end = min(at + length, size)
            if zero and end - at >= CLUSTER and at % CLUSTER == 0:
                whole = end if end == size else end // CLUSTER * CLUSTER
                yield at, whole - at, True
                at = whole
            elif not zero:
                stop = min(-(-end // CLUSTER) * CLUSTER, size)
                yield at, stop - at, False
                at = stop
            else:
                stop = min((at // CLUSTER + 1) * CLUSTER, size)
                yield at, stop - at, False
                at = stop
            if at != end:
                break


def backup(uri: str, archive: str, threads: int) -> None:
    """The engine's write path, fed over NBD."""
    import nbd

    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri(uri)
    size = handle.get_size()
    with ThreadPoolExecutor(1) as ahead, open_sink(archive, "zst", threads=threads) as sink:
        index = ClusterMapBuilder()
        configs = [("qemu-server.conf", b"memory: 512\n")]
        vma = VmaWriter(sink.write, os.urandom(16), int(time.time()), configs, [("drive-scsi0", size)], index)
        sink.add_trailer(index.frame)
        waiting: list[tuple[int, object]] = []
        for offset, length, zero in allocated(handle, size):
            if zero:
                vma.write_zero_clusters(1, offset // CLUSTER, -(-length // CLUSTER))
                continue
            for at in range(offset, offset + length, EXTENT_BYTES):
                part = min(EXTENT_BYTES, offset + length - at)
                waiting.append((at, ahead.submit(handle.pread, part, at)))
                if len(waiting) > 3:
                    first, job = waiting.pop(0)
                    vma.write_clusters(1, first // CLUSTER, job.result())  # type: ignore[attr-defined]
        for first, job in waiting:
            vma.write_clusters(1, first // CLUSTER, job.result())  # type: ignore[attr-defined]
        vma.close()
    handle.shutdown()


def restore(archive: str, target: str) -> None:
    """The engine's read path into a sparse raw image."""
    with open_source(archive) as source, open(target, "wb", buffering=0) as file:
        reader = VmaReader(source)
        file.truncate(reader.header.devices[0].size)
        for piece in reader.pieces():
            if piece.data is not None:
                os.pwrite(file.fileno(), piece.data, piece.offset)


def main(folder: str, mib: int, threads: int, rounds: int) -> None:
    raw, disk, socket = (os.path.join(folder, name) for name in ("raw", "disk.qcow2", "nbd.socket"))
    ours, theirs, target = (os.path.join(folder, name) for name in ("ours.vma.zst", "theirs.zst", "target.raw"))
    image(raw, mib * MIB)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    with export(disk, socket) as uri:
        compare(
            "VM backup",
            rounds,
            lambda: function("engine: NBD to VMA to zstd", lambda: backup(uri, ours, threads)),
            lambda: shell(
                "nbdcopy and zstd", f"nbdcopy '{uri}' - | zstd -q -f -T{threads} -1 -o {theirs} && sync {theirs}"
            ),
        )
    say(f"   archives of {os.path.getsize(ours)} and {os.path.getsize(theirs)} bytes")
    compare(
        "VM restore",
        rounds,
        lambda: function("engine: zstd to VMA to raw", lambda: restore(ours, target)),
        lambda: shell("zstd -d to raw", f"zstd -q -f -d -o {target}.plain {theirs}"),
    )
    subprocess.run(["cmp", raw, target], check=True)
    say("   the restored image equals the original")
