# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes into a sink comes out of a source, in every compression; damage and full disks are noticed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from engine.errors import DependencyError, IntegrityError, StorageError, UsageError
from engine.formats import seekable
from engine.stream.sink import FRAME_BYTES, open_sink
from engine.stream.source import open_source, seek_table

MIXED = random.Random(3).randbytes(3_000_000) + bytes(9_000_000) + b"some text " * 500_000
INSTALLED = ["", "zst", "gz", *(["lzo"] if shutil.which("lzop") else [])]


def path_for(folder: Path, compression: str) -> str:
    return str(folder / ("a.vma" + (f".{compression}" if compression else "")))


def write(path: str, compression: str, data: bytes = MIXED, step: int = 700_001, threads: int = 2) -> None:
    with open_sink(path, compression, threads=threads) as sink:
        for at in range(0, len(data), step):
            sink.write(memoryview(data)[at : at + step])


def read(path: str, step: int = 1_000_003) -> bytes:
    with open_source(path) as source:
        return b"".join(iter(lambda: source.read(step), b""))


@pytest.mark.parametrize("compression", INSTALLED)
@pytest.mark.parametrize("step", [1_000, 700_001, 20_000_000])
def test_round_trip(tmp_path: Path, compression: str, step: int) -> None:
    path = path_for(tmp_path, compression)
    write(path, compression, step=step)
    assert read(path) == MIXED


@pytest.mark.parametrize("compression", INSTALLED)
def test_empty_archive(tmp_path: Path, compression: str) -> None:
    path = path_for(tmp_path, compression)
    write(path, compression, b"")
    assert read(path) == b""


@pytest.mark.parametrize("threads", [1, 3])
def test_zstd_reads_our_frames(tmp_path: Path, threads: int) -> None:
    path = path_for(tmp_path, "zst")
    write(path, "zst", threads=threads)
    assert subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout == MIXED
    fd = os.open(path, os.O_RDONLY)
    try:
        table = seek_table(fd)
    finally:
        os.close(fd)
    assert table is not None
    assert table.stream_bytes == len(MIXED)
    assert table.longest == FRAME_BYTES


def test_trailers_stand_before_the_seek_table_and_are_passed_over(tmp_path: Path) -> None:
    path = path_for(tmp_path, "zst")
    with open_sink(path, "zst") as sink:
        sink.write(b"data")
        sink.add_trailer(lambda: seekable.skippable_frame(0x184D2A5D, b"extra"))
    assert read(path) == b"data"
    assert subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout == b"data"
    fd = os.open(path, os.O_RDONLY)
    try:
        table = seek_table(fd)
    finally:
        os.close(fd)
    assert table is not None
    assert [frame.length for frame in table.frames()] == [4, 0]


def test_archives_of_the_zstd_program_are_read_as_streams(tmp_path: Path) -> None:
    path = path_for(tmp_path, "zst")
    raw = subprocess.run(["zstd", "-1q", "-c"], input=MIXED, check=True, capture_output=True).stdout
    skip = seekable.skippable_frame(0x184D2A50, b"x" * 100)
    Path(path).write_bytes(skip + raw + skip + raw + skip)
    assert read(path) == MIXED + MIXED


@pytest.mark.parametrize("compression", INSTALLED[1:])
@pytest.mark.parametrize("seed", range(8))
def test_damage_is_noticed(tmp_path: Path, compression: str, seed: int) -> None:
    path = path_for(tmp_path, compression)
    write(path, compression)
    raw = bytearray(Path(path).read_bytes())
    raw[random.Random(seed).randrange(200, 2_900_000)] ^= 0x10
    Path(path).write_bytes(raw)
    with pytest.raises(IntegrityError):
        read(path)


@pytest.mark.parametrize("compression", INSTALLED[1:])
@pytest.mark.parametrize("left", [0.3, 0.999])
def test_a_cut_archive_is_noticed(tmp_path: Path, compression: str, left: float) -> None:
    path = path_for(tmp_path, compression)
    write(path, compression)
    raw = Path(path).read_bytes()
    Path(path).write_bytes(raw[: int(len(raw) * left)])
    with pytest.raises(IntegrityError, match="damaged or cut short"):
        read(path)


def test_an_archive_cut_while_being_read_is_noticed(tmp_path: Path) -> None:
    path = path_for(tmp_path, "zst")
    write(path, "zst", random.Random(1).randbytes(64_000_000))
    with open_source(path) as source:
        source.read(10)
        os.truncate(path, 40_000_000)
        with pytest.raises(IntegrityError, match="cut short"):
            source.read(64_000_000)


def test_a_lying_seek_table_does_not_hide_data(tmp_path: Path) -> None:
    path = path_for(tmp_path, "zst")
    write(path, "zst", b"a" * 100)
    raw = bytearray(Path(path).read_bytes())
    # The only entry's decompressed size.
    raw[-13:-9] = (0).to_bytes(4, "little")
    Path(path).write_bytes(raw)
    assert read(path) == b"a" * 100
    raw[-13:-9] = (seekable.MAX_FRAME_BYTES + 1).to_bytes(4, "little")
    Path(path).write_bytes(raw)
    assert read(path) == b"a" * 100


def test_a_seek_table_that_is_wrong_in_the_middle_harms_nothing(tmp_path: Path) -> None:
    path, data = path_for(tmp_path, "zst"), random.Random(1).randbytes(20_000_000)
    write(path, "zst", data)
    raw = bytearray(Path(path).read_bytes())
    # Of five frames the third one's decompressed size.
    raw[-9 - 3 * 8 + 4] ^= 1
    Path(path).write_bytes(raw)
    assert read(path) == data


@pytest.mark.parametrize("compression", INSTALLED)
def test_a_full_storage_is_named(compression: str) -> None:
    noise = random.Random(1).randbytes(5_000_000)
    with pytest.raises(StorageError, match=r"storage full while writing /dev/full after \d+ bytes"):
        with open_sink("/dev/full", compression, threads=2) as sink:
            for _block in range(50):
                sink.write(noise)
        raise AssertionError("nothing was noticed")


def test_what_was_written_goes_to_disk_on_the_way_and_failures_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.fstat(fd).st_size))
    noise = random.Random(1).randbytes(8_000_000)
    with open_sink(str(tmp_path / "x.zst"), "zst", threads=2) as sink:
        for _step in range(20):
            sink.write(noise)
    assert flushed
    assert flushed[0] < os.path.getsize(tmp_path / "x.zst")

    def broken_disk(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken_disk)
    wanted = pytest.raises(StorageError, match=r"cannot write .*y\.zst after \d+ bytes: Input/output error")
    with wanted, open_sink(str(tmp_path / "y.zst"), "zst", threads=2) as sink:
        for _step in range(5):
            sink.write(noise)


def test_an_aborted_sink_leaves_no_threads(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), open_sink(str(tmp_path / "x.zst"), "zst", threads=3) as sink:
        sink.write(MIXED)
        raise KeyError
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="closed"):
        sink.write(b"")


def test_written_and_the_callback_tell_the_size_of_the_file(tmp_path: Path) -> None:
    seen: list[int] = []
    for compression in INSTALLED:
        path = path_for(tmp_path, compression)
        with open_sink(path, compression, on_written=seen.append) as sink:
            sink.write(MIXED)
        assert os.path.getsize(path) == seen[-1]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_descriptor_as_target(tmp_path: Path) -> None:
    with open(tmp_path / "x", "wb") as file:
        with open_sink(file.fileno(), "") as sink:
            sink.write(b"abc")
        file.write(b"d")
    assert (tmp_path / "x").read_bytes() == b"abcd"


def test_reading_can_stop_early(tmp_path: Path) -> None:
    for compression in INSTALLED:
        path = path_for(tmp_path, compression)
        write(path, compression)
        with open_source(path) as source:
            assert source.read(10) == MIXED[:10]
            assert source.position == 10


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="compression 'bz2'"):
        open_sink(str(tmp_path / "x"), "bz2")
    with pytest.raises(StorageError, match="cannot create"):
        open_sink(str(tmp_path / "no" / "x"), "")
    with pytest.raises(StorageError, match="cannot open"):
        open_source(str(tmp_path / "no"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="cannot run 'lzop'"):
        open_sink(str(tmp_path / "x"), "lzo")
