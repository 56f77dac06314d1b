# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers that only LXC knows: found, selected by name, backed up in all modes, restored as managed ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from engine.errors import UsageError
from engine.storages.mounts import unmount
from engine.tasks.guests import list_guests
from helpers.boxes import Box, fill_system, members

CONFIG = """\
# made by hand
lxc.rootfs.path = {root}
lxc.uts.name = {name}
lxc.apparmor.profile = unconfined
lxc.signal.halt = SIGUSR2
lxc.mount.entry = {host} host none bind,create=dir 0 0
lxc.net.0.type = empty
"""


@pytest.fixture
def box() -> Iterator[Box]:
    path = Path(tempfile.mkdtemp(prefix="ct-"))
    image, mounted = path / "image", path / "lxc"
    with image.open("wb") as stream:
        stream.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    box = Box(path)
    try:
        yield box
        box.close()
    finally:
        unmount(str(mounted))
        shutil.rmtree(path)


def native(box: Box, name: str, root: str) -> None:
    """LXC's own config for a root that is there."""
    host = box.root / "host"
    host.mkdir()
    (host / "file").touch()
    config = Path(box.host.paths.lxc_native, name, "config")
    config.write_text(CONFIG.format(root=root, name=name, host=host), encoding="ascii")


@pytest.mark.parametrize(
    ("kind", "modes"),
    [("btrfs", ["snapshot", "suspend"]), ("dir", ["snapshot", "stop"]), ("overlay", ["suspend", "stop"])],
)
def test_native_containers(box: Box, kind: str, modes: list[str]) -> None:
    folder = Path(box.host.paths.lxc_native, "web")
    folder.mkdir()
    root = folder / "rootfs"
    if kind == "btrfs":
        subprocess.run(["btrfs", "-q", "subvolume", "create", root], check=True)
    else:
        root.mkdir()
    fill_system(str(root))
    (root / "etc" / "below").touch()
    place = f"{kind}:{root}"
    if kind == "overlay":
        upper = box.root / "lxc" / "upper"
        upper.mkdir()
        (upper / "above").touch()
        place = f"overlay:{root}:{upper}"
    native(box, "web", place)
    (info,) = list_guests(box.host)
    assert (info.kind, info.name) == ("lxc", "web")
    assert list_guests(box.host)[0].vmid == info.vmid
    box.start(info.vmid)
    for mode in modes:
        outcome = box.backup("web", mode)
        wanted = mode if (kind, mode) != ("dir", "snapshot") else "suspend"
        assert (outcome.vmid, outcome.mode) == (info.vmid, wanted)
        assert box.guest(info.vmid).status() == "running"
        names = members(outcome.path or "")
        assert names[:3] == ["./etc/vzdump/pct.conf", "./etc/vzdump/pct.fw", "./etc/vzdump/lxc.conf"]
        assert "./etc/below" in names and "./host/file" not in names
        assert ("./above" in names) == (kind == "overlay")
        assert any("excluding bind mount point mp0 ('/host')" in line for line in box.lines)
    box.guest(info.vmid).stop()
    with pytest.raises(UsageError, match="LXC's own config"):
        box.restore(outcome, info.vmid, force=True)
    result = box.restore(outcome, 201)
    assert "hostname: web" in result.config and "rootfs: local:201/subvol-201-disk-0.subvol" in result.config
    assert not os.path.exists(f"{box.root}/local/images/201/subvol-201-disk-0.subvol/etc/vzdump")
    box.start(201)
