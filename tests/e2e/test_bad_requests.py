# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Requests that cannot be served: each is refused before anything happens, with what to do instead."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from helpers.guests import CT
from helpers.node import Node

BACKUP = ("--storage", "backup")

REQUESTS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown storage": (("run", "101", "--storage", "none"), 2, "storage 'none' does not exist"),
    "unknown guest": (("run", "nobody", *BACKUP), 2, "there is no guest 'nobody'"),
    "unknown id": (("run", "999", *BACKUP), 2, "there is no guest '999'"),
    "unknown key": (("run", "101", *BACKUP, "--warp", "9"), 2, "--warp"),
    "unknown mode": (("run", "101", *BACKUP, "--mode", "warp"), 2, "'warp'"),
    "unknown compression": (("run", "101", *BACKUP, "--compress", "xz"), 2, "'xz'"),
    "unknown job": (("run", "--job", "nightly"), 2, "nightly"),
    "no selection": (("run", *BACKUP), 2, "no guest is selected"),
    "two selections": (("run", "101", "--all", *BACKUP), 2, "all"),
    "wrong content": (("run", "101", "--storage", "local"), 1, "for content 'backup'"),
    "no tmpdir": (("run", "101", *BACKUP, "--tmpdir", "/does/not/exist"), 2, "/does/not/exist"),
    "unknown archive": (("restore", "backup:backup/vzdump-lxc-9-x.tar", "201"), 1, "vzdump-lxc-9-x.tar"),
    "no archive": (("restore", "something", "201"), 2, "does not name an archive"),
    "no file": (("restore", "/does/not/exist.tar", "201"), 1, "/does/not/exist.tar"),
    "a folder": (("restore", "/etc", "201"), 1, "no regular file"),
    "no archive of the guest": (("restore", "backup:latest/box", "201"), 1, "no archive of guest 'box'"),
}


def everything(node: Node) -> list[Path]:
    """All that is there but locks, and what is remembered of how runs went."""
    outcomes = Path(node.host.paths.outcomes)
    found = (path for path in node.root.rglob("*") if path.relative_to(node.root).parts[0] != "run")
    return sorted(path for path in found if path not in (outcomes, outcomes.parent))


@pytest.mark.parametrize("case", REQUESTS)
def test_names(case: str, box: Node) -> None:
    argv, status, why = REQUESTS[case]
    before = everything(box)
    assert why in box.refused(*argv, status=status)
    assert everything(box) == before


def test_a_key_that_a_guest_must_not_have(box: Node) -> None:
    config = box.config(CT, "lxc")
    config.write_text(config.read_text(encoding="utf-8") + "warp: 9\n", encoding="utf-8")
    assert "'warp' is not supported" in box.refused("guest", "start", "101", status=1)


def storage(node: Node, *lines: str) -> tuple[str, ...]:
    path = Path(node.host.paths.storage_cfg)
    text = "dir: odd\n" + "".join(f"\t{line}\n" for line in ("content backup", *lines))
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    return ("run", "101", "--storage", "odd")


def test_a_storage_whose_path_is_missing(box: Node) -> None:
    argv = storage(box, f"path {box.root}/missing", "create-base-path 0")
    assert f"{box.root}/missing does not exist" in box.refused(*argv, status=1)
    assert not (box.root / "missing").exists()


def test_a_storage_whose_path_is_a_file(box: Node) -> None:
    argv = storage(box, f"path {box.root}/file")
    (box.root / "file").write_text("a file", encoding="utf-8")
    assert "is not a directory" in box.refused(*argv, status=1)


def test_a_storage_below_a_file(box: Node) -> None:
    argv = storage(box, f"path {box.root}/file/below")
    (box.root / "file").write_text("a file", encoding="utf-8")
    assert "cannot be created" in box.refused(*argv, status=1)


def test_a_storage_that_is_not_mounted(box: Node) -> None:
    argv = ("run", "101", "--storage", "disk")
    assert "expected to be a mount point, but nothing is mounted there" in box.refused(*argv, status=1)
    assert list((box.root / "disk").iterdir()) == []


def test_a_storage_that_is_mounted_read_only(box: Node) -> None:
    with box.mounted("ro,size=1m"):
        assert "read-only" in box.refused("run", "101", "--storage", "disk", status=1)


def test_a_storage_that_becomes_read_only(box: Node) -> None:
    with box.mounted() as disk:
        box.call("run", "101", "--storage", "disk")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert "not writable" in box.refused("run", "101", "--storage", "disk", status=1)


def test_ids_that_are_taken(box: Node) -> None:
    box.call("run", "101", *BACKUP)
    before = box.config(CT, "lxc").read_text(encoding="utf-8")
    assert "belongs to container 101 (box) already" in box.refused("restore", "backup:latest/box", "101", status=2)
    config = box.config(CT, "lxc")
    for line, why in (("protection: 1", "is protected"), ("lock: migrate", "is locked (migrate)")):
        config.write_text(f"{before}{line}\n", encoding="utf-8")
        assert why in box.refused("restore", "backup:latest/box", "101", "--force", status=1)
    config.write_text(before, encoding="utf-8")
    box.call("guest", "start", "101")
    assert "it is running" in box.refused("restore", "backup:latest/box", "101", "--force", status=1)
    assert config.read_text(encoding="utf-8") == before
    box.config(VM_ID, "qemu").write_text("name: vm\nmemory: 16\n", encoding="utf-8")
    complaint = box.refused("restore", "backup:latest/box", str(VM_ID), "--force", status=2)
    assert "cannot restore over VM 150 (vm)" in complaint


VM_ID = 150


def test_a_guest_with_a_lock_is_left_alone(box: Node) -> None:
    config = box.config(CT, "lxc")
    text = config.read_text(encoding="utf-8") + "lock: migrate\n"
    config.write_text(text, encoding="utf-8")
    assert "it is locked (migrate)" in box.refused("run", "101", *BACKUP, status=3)
    assert config.read_text(encoding="utf-8") == text


def test_one_bad_guest_does_not_keep_others_from_their_backup(box: Node) -> None:
    box.config(102, "lxc").write_text(
        "hostname: broken\nrootfs: local:102/subvol-102-disk-0.subvol\n", encoding="utf-8"
    )
    ended = box.start("run", "--all", *BACKUP, "--json").wait()
    assert ended.status == 3
    assert "102 (broken)" in ended.err
    assert [Path(path).name[:14] for path in box.archives()] == ["vzdump-lxc-101"]
