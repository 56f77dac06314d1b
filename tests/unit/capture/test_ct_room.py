# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the working copy of a container fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine.capture import ct_room
from engine.capture.ct_room import check_room
from engine.errors import GuestError
from engine.rules.excludes import parse_pattern
from engine.storages.mounts import Space

KIB = 1024


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A container's root of 300 KiB, with a mount point of 64 KiB that is a folder of the same file system."""
    for name, size in (("a", 100), ("var/cache/b", 100), ("srv/c", 64), ("var/d", 100)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size * KIB))
    os.link(tmp_path / "a", tmp_path / "var" / "again")
    with (tmp_path / "holes").open("wb") as stream:
        stream.truncate(1 << 40)
    (tmp_path / "link").symlink_to("/")
    return tmp_path


def fits(tree: Path, free: int, monkeypatch: pytest.MonkeyPatch, included: tuple[str, ...], *excluded: str) -> bool:
    monkeypatch.setattr(ct_room, "space", lambda _path: Space(1 << 40, free * KIB))
    patterns = [parse_pattern(text) for text in excluded]
    try:
        check_room(str(tree), ["/", "/srv"], included, patterns, "/var/tmp/copy", "container 101")
    except GuestError as exc:
        assert f"more than the {free * KIB} bytes that are free in /var/tmp/copy" in exc.message
        assert "tmpdir" in exc.hint
        return False
    return True


@pytest.mark.parametrize(
    ("included", "excluded", "size"),
    [
        (("/",), (), 300),
        (("/", "/srv"), (), 364),
        (("/srv",), (), 64),
        (("/", "/srv"), ("/var/cache/*",), 264),
        (("/",), ("/var/", "a"), 0),
    ],
)
def test_what_has_to_fit(
    tree: Path, monkeypatch: pytest.MonkeyPatch, included: tuple[str, ...], excluded: tuple[str, ...], size: int
) -> None:
    assert fits(tree, size + 16, monkeypatch, included, *excluded)
    assert size == 0 or not fits(tree, size - 1, monkeypatch, included, *excluded)


def test_files_are_not_counted_when_there_is_room_for_whole_file_systems(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ct_room, "_sizes", lambda *_args: pytest.fail("counted"))
    assert fits(tree, 1 << 60, monkeypatch, ("/", "/srv"))
