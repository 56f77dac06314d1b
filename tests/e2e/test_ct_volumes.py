# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of container volumes that this machine has, by the suite that all kinds pass."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest
from engine.errors import StorageError
from engine.storages.mounts import unmount
from engine.storages.volumes.folder import BtrfsVolume, FolderVolume
from engine.storages.volumes.image import FileVolume, ImageVolume
from engine.storages.volumes.overlay import OverlayVolume
from engine.storages.volumes.registry import KINDS, folder_volume, volume_at
from helpers.volumes import SIZE, Conformance, places, read, sh, write

__all__ = ["places"]


class TestFolder(Conformance):
    snapshots = False
    guarded = False

    @pytest.fixture
    def volume(self, tmp_path: Path) -> FolderVolume:
        return FolderVolume(str(tmp_path / "101" / "subvol-101-disk-0.subvol"))


class TestImage(Conformance):
    snapshots = False

    @pytest.fixture
    def volume(self, tmp_path: Path) -> ImageVolume:
        return ImageVolume(str(tmp_path / "101" / "vm-101-disk-0.raw"))

    def test_needs_a_size(self, volume: ImageVolume) -> None:
        with pytest.raises(StorageError, match="size is not known"):
            volume.create(None, 0)

    def test_what_is_there_is_recognized(self, volume: ImageVolume) -> None:
        volume.create(SIZE, 0)
        assert isinstance(volume_at(volume.source), ImageVolume)


class TestFile(TestImage):
    @pytest.fixture
    def volume(self, tmp_path: Path) -> FileVolume:
        return FileVolume(str(tmp_path / "images" / "web1.raw"))

    def test_its_folder_stays(self, volume: FileVolume) -> None:
        volume.create(SIZE, 0)
        volume.free()
        assert list(Path(volume.source).parent.iterdir()) == []


class TestBtrfs(Conformance):
    snapshots = True
    guarded = False

    @pytest.fixture
    def volume(self, btrfs: Path) -> Iterator[BtrfsVolume]:
        volume = BtrfsVolume(str(btrfs / "subvol-101-disk-0.subvol"))
        yield volume
        volume.free()

    def test_what_is_there_is_recognized(self, volume: BtrfsVolume, btrfs: Path) -> None:
        assert isinstance(folder_volume(volume.source), BtrfsVolume)
        volume.create(None, 0)
        assert isinstance(volume_at(volume.source), BtrfsVolume)
        (btrfs / "folder").mkdir()
        found = volume_at(str(btrfs / "folder"))
        assert isinstance(found, FolderVolume) and not isinstance(found, BtrfsVolume)

    def test_subvolumes_inside_go_with_it(self, volume: BtrfsVolume) -> None:
        volume.create(None, 0)
        assert volume.apart() == []
        Path(volume.source, "var").mkdir()
        for name in ("inner", "var/deep in", "inner/inmost"):
            sh("btrfs", "-q", "subvolume", "create", f"{volume.source}/{name}")
        assert volume.apart() == ["inner", "var/deep in"]
        volume.take_snapshot()
        assert volume.apart() == ["inner", "var/deep in"]
        volume.free()
        assert not Path(volume.source).exists()


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("btrfs")
    image, mounted = folder / "image", folder / "mounted"
    with image.open("wb") as stream:
        stream.truncate(128 << 20)
    sh("mkfs.btrfs", "-q", str(image))
    mounted.mkdir()
    sh("mount", "-o", "loop", str(image), str(mounted))
    yield mounted
    unmount(str(mounted))


def test_overlays_are_read_as_a_container_sees_them(tmp_path: Path, places: Callable[[str], str]) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for folder in (lower, upper):
        folder.mkdir()
        write(str(folder), folder.name)
    (lower / "gone").touch()
    sh("mknod", str(upper / "gone"), "c", "0", "0")
    (lower / "below").touch()
    volume = volume_at(f"overlay:{lower}:{upper}")
    assert isinstance(volume, OverlayVolume)
    place = places("merged")
    volume.mount(place, read_only=True)
    assert read(place) == "upper"
    assert (Path(place) / "below").exists()
    assert not (Path(place) / "gone").exists()
    with pytest.raises(OSError, match="Read-only"):
        write(place, "never")
    assert not volume.can_snapshot()


def test_every_kind_has_its_tests() -> None:
    here = {"folder", "btrfs", "image", "file", "overlay"}
    assert here | {"lvmthin", "zfs"} == set(KINDS), "kinds that this machine lacks are tested in tests/nodes/inside"
