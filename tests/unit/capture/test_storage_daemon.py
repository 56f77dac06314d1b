# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is found out about disk images before a daemon is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.capture.storage_daemon import serve
from engine.errors import GuestError


def test_a_disk_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "vm-100-disk-0.qcow2")
    with pytest.raises(GuestError) as caught, serve([("drive-scsi0", gone, "qcow2")], "/unused", writable=False):
        pass
    assert caught.value.message == f"cannot open the disk image {gone}: it does not exist"
    assert "mounted" in caught.value.hint
