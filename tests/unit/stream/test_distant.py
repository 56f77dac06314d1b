# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files on other machines: what is written arrives; whoever takes nothing is given up. Pipes stand in for servers."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from engine.errors import StorageError
from engine.stream.distant import distant_file
from engine.stream.files import write_all
from engine.stream.sink import open_sink
from engine.stream.source import open_source

DATA = random.Random(7).randbytes(5 << 20) + bytes(40 << 20)


@pytest.mark.parametrize("compression", ["", "zst", "gz"])
def test_what_is_written_arrives(tmp_path: Path, compression: str) -> None:
    path = tmp_path / f"a.vma.{compression}".rstrip(".")
    seen: list[int] = []
    with distant_file(str(path), seen.append) as descriptor, open_sink(descriptor, compression, threads=2) as sink:
        sink.write(DATA)
    with open_source(str(path)) as source:
        assert b"".join(iter(lambda: source.read(1 << 20), b"")) == DATA
    assert path.stat().st_mode & 0o777 == 0o600
    assert seen == sorted(seen)
    assert seen[-1] == path.stat().st_size


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with distant_file(str(path)):
        pass
    assert path.read_bytes() == b""


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    with pytest.raises(StorageError, match="cannot create"), distant_file(str(tmp_path / "a")):
        pass
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("compression", ["", "zst", "gz"])
def test_a_server_without_room(compression: str) -> None:
    with (
        pytest.raises(StorageError, match=r"storage full while writing /dev/full after \d+ bytes"),
        distant_file("/dev/full") as descriptor,
        open_sink(descriptor, compression, threads=2) as sink,
    ):
        for _one in range(20):
            sink.write(DATA[: 5 << 20])


@pytest.mark.parametrize("compression", ["", "zst", "gz"])
@pytest.mark.parametrize("size", [1 << 20, 30 << 20])
def test_a_server_that_takes_nothing(tmp_path: Path, compression: str, size: int) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with (
            pytest.raises(StorageError, match="its server took no data for 1 s"),
            distant_file(path, patience=1) as descriptor,
            open_sink(descriptor, compression) as sink,
        ):
            sink.write(random.Random(8).randbytes(size))
    finally:
        os.close(reader)


def test_who_gives_up_does_not_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), distant_file(path, patience=100) as descriptor:
        write_all(descriptor, DATA[: 1 << 20])
        raise KeyboardInterrupt
    os.close(reader)
    assert time.monotonic() - began < 50


def test_a_file_that_was_not_completed_says_its_own_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), distant_file(str(tmp_path / "a")) as descriptor:
        write_all(descriptor, b"some")
        raise ValueError("mine")
