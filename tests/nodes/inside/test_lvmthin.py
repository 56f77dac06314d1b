# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers on LVM-thin, for real: this runs inside a node whose kernel has device-mapper."""

from __future__ import annotations

import os
from typing import Iterator

import pytest
from engine.storages.volumes.lvmthin import LvmThinVolume
from engine.storages.volumes.registry import volume_at
from helpers.volumes import SIZE, Conformance, places, sh

__all__ = ["places"]

GROUP, POOL = "vg0", "thin"


@pytest.fixture(scope="session", autouse=True)
def pool() -> None:
    """The node's disk goes with the node."""
    sh("vgcreate", "-q", GROUP, os.environ["DISK"])
    sh("lvcreate", "-q", "-L", "1G", "-Zn", "--thinpool", POOL, GROUP)


class TestLvmThin(Conformance):
    snapshots = True

    @pytest.fixture
    def volume(self) -> Iterator[LvmThinVolume]:
        volume = LvmThinVolume(f"{GROUP}/vm-101-disk-0", POOL)
        yield volume
        volume.free()

    def test_what_is_there_is_recognized(self, volume: LvmThinVolume) -> None:
        volume.create(SIZE, 0)
        found = volume_at(volume.device)
        assert isinstance(found, LvmThinVolume)
        assert found.source == volume.source
