# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives in a folder: partial, complete, companions, protection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine.errors import StorageError
from engine.rules.names import ArchiveName, make_archive_name
from engine.settings.archive_record import MAX_BYTES, ArchiveRecord, Verified
from engine.storages.dump import PARTIAL, DumpFolder, undo_partial
from engine.system.undo import UndoStack

EPOCH = 1_770_000_000
UNDO = {PARTIAL: undo_partial}


def name_of(vmid: int = 100, epoch: int = EPOCH, compression: str = "zst", kind: str = "qemu") -> ArchiveName:
    return make_archive_name(kind, vmid, epoch, compression)


def put(folder: DumpFolder, name: ArchiveName, data: bytes = b"data") -> None:
    Path(folder.final_path(name)).write_bytes(data)


def test_an_archive_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    undo = UndoStack(str(tmp_path / "j" / "journal"), UNDO)
    name = name_of()
    partial, token = folder.begin(name, undo)
    assert partial.endswith(".vma.dat")
    Path(partial).write_bytes(b"12345")
    assert folder.list_archives() == []
    archive = folder.commit(name, undo, token, notes="a\nb", protected=True, digests={"scsi0": "0" * 64})
    assert [found.volid for found in folder.list_archives()] == [f"nas:backup/{name.filename}"]
    assert (archive.size, archive.notes, archive.protected) == (5, "a\nb", True)
    assert (archive.kind, archive.vmid, archive.time, archive.format) == ("qemu", 100, EPOCH, "vma.zst")
    assert (archive.record.size, archive.record.digests, archive.good) == (5, {"scsi0": "0" * 64}, True)
    assert undo.pending == []
    assert not os.path.exists(partial)
    with pytest.raises(StorageError, match="exists already"):
        folder.begin(name, undo)


def test_what_a_killed_run_left_is_removed_by_its_journal(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    journal = str(tmp_path / "j" / "journal")
    name = name_of()
    partial, _token = folder.begin(name, UndoStack(journal, UNDO))
    Path(partial).write_bytes(b"half")
    for companion in (".protected", ".record"):
        Path(folder.final_path(name) + companion).touch()
    assert UndoStack.load(journal, UNDO).unwind() == []
    assert sorted(os.listdir(tmp_path)) == ["j"]


def test_a_run_killed_right_after_the_commit_keeps_its_archive(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    journal = str(tmp_path / "j" / "journal")
    name = name_of()
    partial, _token = folder.begin(name, UndoStack(journal, UNDO))
    Path(partial).write_bytes(b"whole")
    Path(folder.final_path(name) + ".notes").write_text("n", encoding="utf-8")
    os.link(partial, folder.final_path(name))
    assert UndoStack.load(journal, UNDO).unwind() == []
    (archive,) = folder.list_archives()
    assert (archive.size, archive.notes) == (5, "n")
    assert not os.path.exists(partial)


def test_an_archive_is_never_overwritten(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    undo = UndoStack(None, UNDO)
    name = name_of()
    partial, token = folder.begin(name, undo)
    Path(partial).write_bytes(b"new")
    put(folder, name, b"old")
    with pytest.raises(StorageError, match="exists already"):
        folder.commit(name, undo, token)
    assert undo.unwind() == []
    assert Path(folder.final_path(name)).read_bytes() == b"old"
    assert not os.path.exists(partial)


def test_without_hard_links_the_archive_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("engine.storages.dump.os.link", refuse)
    folder = DumpFolder("nas", str(tmp_path))
    undo = UndoStack(None, UNDO)
    _partial, token = folder.begin(name_of(), undo)
    folder.commit(name_of(), undo, token)
    assert len(folder.list_archives()) == 1


def test_listing_takes_what_looks_like_an_archive(tmp_path: Path) -> None:
    for name in (
        "vzdump-lxc-105-2026_03_10-02_00_00.tar.zst",
        "vzdump-lxc-105-before-upgrade.tar.gz",
        "vzdump-qemu-100-2026_02_30-02_00_00.vma",
        "foo.tar.gz",
        "x.log",
        "x.dat",
        ".hidden.tar",
        "vzdump-lxc-105-2026_03_10-02_00_00.log",
        "x.tar.xz",
    ):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.tar").mkdir()
    folder = DumpFolder("nas", str(tmp_path))
    found = {archive.filename: (archive.kind, archive.vmid, archive.name is None) for archive in folder.list_archives()}
    assert found == {
        "foo.tar.gz": ("unknown", None, True),
        "vzdump-lxc-105-2026_03_10-02_00_00.tar.zst": ("lxc", 105, False),
        "vzdump-lxc-105-before-upgrade.tar.gz": ("lxc", 105, True),
        "vzdump-qemu-100-2026_02_30-02_00_00.vma": ("unknown", 100, True),
    }
    assert [archive.filename for archive in folder.list_archives(100)] == ["vzdump-qemu-100-2026_02_30-02_00_00.vma"]
    assert folder.list_archives(kind="lxc")[0].log is not None
    assert DumpFolder("nas", str(tmp_path / "none")).list_archives() == []


def test_removing_takes_the_companions_and_refuses_protected_ones(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    name = name_of()
    put(folder, name)
    archive = folder.find(name.filename)
    folder.set_notes(archive, "text")
    folder.set_record(archive, ArchiveRecord(4))
    folder.set_protected(archive, True)
    Path(folder.log_path(name)).write_text("log", encoding="utf-8")
    with pytest.raises(StorageError, match="protected"):
        folder.remove(archive)
    folder.set_protected(archive, False)
    folder.remove(archive)
    assert os.listdir(tmp_path) == []
    folder.remove(archive)
    with pytest.raises(StorageError, match="there is no archive"):
        folder.find(name.filename)
    with pytest.raises(StorageError, match="there is no archive"):
        folder.find("../" + name.filename)


def test_protection_limit(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path), max_protected=1)
    first, second, other = name_of(), name_of(epoch=EPOCH + 60), name_of(kind="lxc")
    for name in (first, second, other):
        put(folder, name)
    folder.set_protected(folder.find(first.filename), True)
    folder.set_protected(folder.find(first.filename), True)
    folder.set_protected(folder.find(other.filename), True)
    with pytest.raises(StorageError, match="limited to 1"):
        folder.set_protected(folder.find(second.filename), True)


def test_notes(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    put(folder, name_of())
    archive = folder.find(name_of().filename)
    folder.set_notes(archive, "one\ntwo")
    assert folder.find(archive.filename).notes == "one\ntwo"
    folder.set_notes(archive, "")
    folder.set_notes(archive, "")
    assert os.listdir(tmp_path) == [archive.filename]


def test_the_record_tells_whether_an_archive_is_good(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    put(folder, name_of())
    archive = folder.find(name_of().filename)
    assert (archive.good, archive.record.last) == (True, None)
    damaged = ArchiveRecord(4).with_result(Verified("data", "damaged", 7, "n1", ("a bit is wrong",)))
    folder.set_record(archive, damaged)
    archive = folder.find(archive.filename)
    assert (archive.good, archive.record) == (False, damaged)
    (tmp_path / f".holdfast-{archive.filename}.record-left").touch()
    folder.set_record(archive, damaged.with_result(Verified("data", "ok", 8)))
    assert folder.find(archive.filename).good
    assert sorted(os.listdir(tmp_path)) == [archive.filename, archive.filename + ".record"]


@pytest.mark.parametrize("text", ["", "{", "[]", "x" * (2 * MAX_BYTES)])
def test_a_record_that_cannot_be_read_says_so(tmp_path: Path, text: str) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    put(folder, name_of())
    Path(folder.final_path(name_of()) + ".record").write_text(text, encoding="utf-8")
    archive = folder.find(name_of().filename)
    assert "the archive's record cannot be read" in archive.record.problem
    assert archive.good


def test_no_record_is_made_for_an_archive_that_is_gone(tmp_path: Path) -> None:
    folder = DumpFolder("nas", str(tmp_path))
    put(folder, name_of())
    archive = folder.find(name_of().filename)
    os.unlink(archive.path)
    folder.set_record(archive, ArchiveRecord(4))
    assert os.listdir(tmp_path) == []
