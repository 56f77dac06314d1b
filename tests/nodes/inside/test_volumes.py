# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of volumes that need device-mapper or ZFS, by the suite that all kinds pass; this runs inside a node."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from engine.storages.volumes.lvmthin import LvmThinVolume
from engine.storages.volumes.registry import volume_at
from engine.storages.volumes.zfs import ZfsVolume
from helpers.volumes import SIZE, Conformance, places

__all__ = ["places"]


class TestLvmThin(Conformance):
    snapshots = True

    @pytest.fixture
    def volume(self, thin: str) -> Iterator[LvmThinVolume]:
        volume = LvmThinVolume(f"{thin}/vm-101-disk-0", "thin")
        yield volume
        volume.free()

    def test_what_is_there_is_recognized(self, volume: LvmThinVolume) -> None:
        volume.create(SIZE, 0)
        found = volume_at(volume.device)
        assert isinstance(found, LvmThinVolume)
        assert found.source == volume.source


class TestZfs(Conformance):
    snapshots = True
    guarded = False

    @pytest.fixture
    def volume(self, tank: str) -> Iterator[ZfsVolume]:
        volume = ZfsVolume(f"{tank}/subvol-101-disk-0")
        yield volume
        volume.free()

    def test_what_is_there_is_recognized(self, volume: ZfsVolume, tank: str) -> None:
        volume.create(SIZE, 0)
        found = volume_at(f"/{tank}/subvol-101-disk-0")
        assert isinstance(found, ZfsVolume)
        assert found.source == volume.source
        Path(f"/{tank}/folder").mkdir()
        assert not isinstance(volume_at(f"/{tank}/folder"), ZfsVolume)
