# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One suite that every kind of container volume passes: on this machine, and inside the nodes that have the others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest
from engine.errors import StorageError
from engine.storages.mounts import unmount
from engine.storages.volumes.base import Volume
from engine.storages.volumes.registry import open_volume

SIZE = 64 << 20
OWNER = 100000


class Conformance:
    """Subclasses provide the fixture ``volume``: one that does not exist yet.

    :ivar snapshots: whether it has them. :ivar guarded: whether it is kept while it is mounted elsewhere.
    """

    snapshots: bool
    guarded = True

    def test_life(self, volume: Volume, places: Callable[[str], str]) -> None:
        volume.free()
        volume.create(SIZE, OWNER)
        with pytest.raises(StorageError, match="exists already"):
            volume.create(SIZE, OWNER)
        place = places("one")
        volume.mount(place)
        assert os.stat(place).st_uid == OWNER
        write(place, "first")
        if self.guarded:
            with pytest.raises(StorageError):
                self.reopened(volume).free()
        unmount(place)
        volume.mount(place, read_only=True)
        assert read(place) == "first"
        with pytest.raises(OSError, match="Read-only"):
            write(place, "second")
        unmount(place)
        self.reopened(volume).free()
        self.reopened(volume).free()

    def test_snapshot(self, volume: Volume, places: Callable[[str], str]) -> None:
        volume.create(SIZE, OWNER)
        place = places("one")
        volume.mount(place)
        write(place, "before")
        assert volume.can_snapshot() == self.snapshots
        volume.remove_snapshot()
        assert not volume.has_snapshot()
        if self.snapshots:
            volume.take_snapshot()
            write(place, "after")
            assert self.reopened(volume).has_snapshot()
            with pytest.raises(StorageError):
                volume.take_snapshot()
            other = places("two")
            volume.mount_snapshot(other)
            assert read(other) == "before"
            assert os.stat(other).st_uid == OWNER
            with pytest.raises(OSError, match="Read-only"):
                write(other, "never")
            unmount(other)
            self.reopened(volume).remove_snapshot()
            volume.remove_snapshot()
            assert not volume.has_snapshot()
            assert read(place) == "after"
            volume.take_snapshot()
        else:
            with pytest.raises(StorageError):
                volume.take_snapshot()
        unmount(place)
        volume.free()
        assert not volume.has_snapshot()

    @staticmethod
    def reopened(volume: Volume) -> Volume:
        """As the next process finds it in a journal."""
        return open_volume(volume.kind, volume.source)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Folders to mount things on; unmounted in the end."""
    made: list[str] = []

    def place(name: str) -> str:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        made.append(str(path))
        return str(path)

    yield place
    for path in made:
        unmount(path)


def write(folder: str, text: str) -> None:
    with open(os.path.join(folder, "file"), "w", encoding="ascii") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def read(folder: str) -> str:
    with open(os.path.join(folder, "file"), encoding="ascii") as stream:
        return stream.read()


def sh(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout
