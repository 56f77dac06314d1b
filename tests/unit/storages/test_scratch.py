# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where fleecing images are made: names, room, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine.errors import StorageError
from engine.settings.storages import StorageDef
from engine.storages.device import DeviceStorage
from engine.storages.dir import DirStorage
from engine.storages.lvmthin import pool_gauges
from engine.storages.scratch import FolderScratch, Gauge
from engine.system.host import Host, Paths

GIB = 1 << 30
POOL = "0 {sectors} thin-pool 1 {metadata} {data} - rw discard_passdown queue_if_no_space - 1024"


@pytest.mark.parametrize(
    ("total", "free", "short"),
    [
        (100 * GIB, GIB, False),
        (100 * GIB, GIB - 1, True),
        (2 * GIB, GIB // 8, False),
        (2 * GIB, GIB // 10 - 1, True),
    ],
)
def test_room_for_data(total: int, free: int, short: bool) -> None:
    assert bool(Gauge.of_data(total, free).shortage) == short


def test_a_thin_pool() -> None:
    status = POOL.format(sectors=400 * GIB // 512, metadata="100/1000", data="5000/6400")
    data, metadata = pool_gauges(status, "vg/pool")
    assert (data.total, data.free) == (400 * GIB, 1400 * (64 << 20))
    assert (metadata.total, metadata.free) == (1000 * 4096, 900 * 4096)
    assert (data.shortage, metadata.shortage) == ("", "")


@pytest.mark.parametrize(
    ("metadata", "data", "what"),
    [
        ("100/1000", "6385/6400", "bytes are"),
        ("901/1000", "0/6400", "metadata"),
        ("100/1000", "6400/6400", "only 0 of"),
    ],
)
def test_a_thin_pool_that_is_nearly_full(metadata: str, data: str, what: str) -> None:
    gauges = pool_gauges(POOL.format(sectors=400 * GIB // 512, metadata=metadata, data=data), "vg/pool")
    (shortage,) = [gauge.shortage for gauge in gauges if gauge.shortage]
    assert what in shortage


@pytest.mark.parametrize(
    "status", ["0 2048 thin-pool Fail", "0 2048 thin-pool Error", "", "0 2048 thin-pool 1 1/0 0/0 -"]
)
def test_a_thin_pool_that_has_failed(status: str) -> None:
    with pytest.raises(StorageError, match="how full the thin pool vg/pool is") as error:
        pool_gauges(status, "vg/pool")
    assert "lvconvert --repair vg/pool" in error.value.hint


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "100"
    space = FolderScratch("storage 'x'", 100, str(folder))
    first = space.image("raw")
    assert not folder.exists()
    first.create(5 << 20)
    assert (os.path.getsize(first.path), Path(first.path).stat().st_blocks) == (5 << 20, 0)
    assert os.stat(first.path).st_mode & 0o777 == 0o600
    with pytest.raises(StorageError, match="exists"):
        first.create(1)
    # Names that are taken are passed over, also those that are only promised.
    (folder / "vm-100-fleece-1.raw").touch()
    others = [space.image("raw"), space.image("raw")]
    assert [os.path.basename(image.path) for image in others] == ["vm-100-fleece-2.raw", "vm-100-fleece-3.raw"]
    assert (others[0].undo, others[0].device) == (("storage.volume", {"path": others[0].path}), False)
    first.remove()
    first.remove()
    assert not os.path.exists(first.path)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    space = FolderScratch("storage 'x'", 100, str(tmp_path / "file" / "100"))
    with pytest.raises(StorageError, match="cannot make fleecing images on storage 'x'") as error:
        space.check()
    assert error.value.hint


def test_storages(tmp_path: Path) -> None:
    host = Host("n1", Paths.under(str(tmp_path)))
    space = DirStorage(StorageDef(name="local", type="dir", path=str(tmp_path)), host).scratch(100)
    assert space.image().path == str(tmp_path / "images" / "100" / f"vm-100-fleece-0.{space.format}")
    with pytest.raises(StorageError, match="cannot make fleecing images on storage '/dev/null'") as error:
        DeviceStorage("/dev/null", host).scratch(100)
    assert error.value.hint
