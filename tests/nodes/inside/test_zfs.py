# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ZFS volumes, for real: this runs inside a node whose kernel has ZFS."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from engine.storages.volumes.registry import volume_at
from engine.storages.volumes.zfs import ZfsVolume
from helpers.volumes import SIZE, Conformance, places, sh

__all__ = ["places"]

POOL = "tank"


@pytest.fixture(scope="session", autouse=True)
def pool(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The node's disk goes with the node; the pool is in a file."""
    path = tmp_path_factory.mktemp("zfs") / "disk"
    with path.open("wb") as stream:
        stream.truncate(1 << 30)
    sh("modprobe", "zfs")
    sh("zpool", "create", POOL, str(path))


class TestZfs(Conformance):
    snapshots = True
    guarded = False

    @pytest.fixture
    def volume(self) -> Iterator[ZfsVolume]:
        volume = ZfsVolume(f"{POOL}/subvol-101-disk-0")
        yield volume
        volume.free()

    def test_what_is_there_is_recognized(self, volume: ZfsVolume) -> None:
        volume.create(SIZE, 0)
        found = volume_at(f"/{POOL}/subvol-101-disk-0")
        assert isinstance(found, ZfsVolume)
        assert found.source == volume.source
        Path(f"/{POOL}/folder").mkdir()
        assert not isinstance(volume_at(f"/{POOL}/folder"), ZfsVolume)
