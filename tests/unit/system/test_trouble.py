# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors of the system say what was tried, on what path, why, and what to do."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Callable

import pytest
from engine.errors import HoldfastError
from engine.system import files, locks, secrets
from engine.system.trouble import FileError, explained, tried


def enter_lock(path: str) -> None:
    with locks.hold(path, "a test"):
        pass


ACTIONS: list[tuple[str, Callable[[str], object]]] = [
    ("write", lambda path: files.write_atomic(path, "text")),
    ("read", files.read_text),
    ("create", lambda path: files.create_anew(path, 0o600)),
    ("create the folder", files.make_folders),
    ("open the lock", enter_lock),
]


@pytest.mark.parametrize(("what", "action"), ACTIONS)
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, what: str, action: Callable[[str], object]) -> None:
    (tmp_path / "file").touch()
    path = f"{tmp_path}/file/below"
    with pytest.raises(FileError, match=f"cannot {what} {path}: ") as caught:
        action(path)
    assert caught.value.hint.startswith("something else has that name")
    assert caught.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert caught.value.filename == path
    assert isinstance(caught.value, HoldfastError) and isinstance(caught.value, OSError)


def test_no_room_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "jobs.cfg"
    path.write_text("old", encoding="ascii")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(FileError, match=f"cannot write {path}: File too large") as caught:
            files.write_atomic(str(path), "x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "ulimit -f" in caught.value.hint
    assert [one.read_text(encoding="ascii") for one in tmp_path.iterdir()] == ["old"]


def test_the_remedy_names_a_folder_that_exists(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught, tried("write", f"{tmp_path}/none/yet"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.hint == f"free space, or inodes, there: `df -h {tmp_path}; df -i {tmp_path}`"


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/etc/x"), "work with /etc/x: Read-only", "findmnt -T /etc"),
        (OSError(errno.EXDEV, "Invalid link", "/a", None, "/b"), "/a to /b: Invalid link", ""),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", "ulimit -n"),
        (OSError("odd"), "odd", ""),
        (TimeoutError(), "TimeoutError", ""),
    ],
)
def test_what_nobody_expected(error: OSError, message: str, remedy: str) -> None:
    found = explained(error)
    assert message in found.message and "Errno" not in found.message
    assert remedy in found.hint and bool(found.hint) == bool(remedy)


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = FileError("read", "/x", OSError(errno.EIO, "Input/output error"))
    assert explained(error) is error
    with pytest.raises(FileError) as caught, tried("do something else to", "/y"):
        raise error
    assert caught.value is error


def test_a_secret_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "priv").touch()
    with pytest.raises(FileError, match="cannot create the folder"):
        secrets.write_secret(f"{tmp_path}/priv/nas.pw", "geheim")
