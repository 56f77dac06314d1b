# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's thin pool and ZFS pool; they go with the node."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("helpers")

from helpers.volumes import sh  # noqa: E402

GROUP, THIN, TANK = "vg0", "thin", "tank"


@pytest.fixture(scope="session")
def thin() -> str:
    """Name of a volume group with a thin pool."""
    sh("vgcreate", "-q", GROUP, os.environ["DISK"])
    sh("lvcreate", "-q", "-L", "1G", "-Zn", "--thinpool", THIN, GROUP)
    return GROUP


@pytest.fixture(scope="session")
def tank(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a ZFS pool in a file."""
    path = tmp_path_factory.mktemp("zfs") / "disk"
    with path.open("wb") as stream:
        stream.truncate(1 << 30)
    sh("modprobe", "zfs")
    sh("zpool", "create", TANK, str(path))
    return TANK
