# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""State folders that are full or read-only: what failed is said, guests go on, and what needs no room is done."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from helpers import guests
from helpers.faults import HOLD, Fault
from helpers.guests import CT, VM, goes_on
from helpers.node import Node

RUN = ("run", str(VM), "--storage", "backup")
FULL, READ_ONLY = "full", "read-only"


@contextlib.contextmanager
def on_its_own(node: Node, folder: str) -> Iterator[Path]:
    """A state folder on a small file system of its own."""
    path = node.root / folder
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=755", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def spoilt(path: Path, how: str) -> Iterator[None]:
    """Nothing can be written there."""
    status = os.statvfs(path)
    # What is in the files of some folders is of no account, so no new ones are possible either.
    filler, limit = path / "filler", status.f_files - status.f_ffree + 1
    if how == READ_ONLY:
        remount(path, "ro")
    else:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        remount(path, f"nr_inodes={limit}")
    try:
        yield
    finally:
        remount(path, "rw" if how == READ_ONLY else "nr_inodes=1000")
        filler.unlink(missing_ok=True)


def remount(path: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


@pytest.mark.parametrize("how", [FULL, READ_ONLY])
@pytest.mark.parametrize("folder", ["lib", "run"])
def test_a_run_that_cannot_begin(folder: str, how: str, machine: Node) -> None:
    with on_its_own(machine, folder) as path:
        machine.call("heal")
        with spoilt(path, how):
            complaint = machine.call(*RUN, status=1)
            assert machine.status(VM) == "stopped"
        assert f" {path}/" in complaint.splitlines()[-2], complaint
        assert "Errno" not in complaint
        remedy = f"free space, or inodes, there: `df -h {path}" if how == FULL else "its file system is read-only"
        assert complaint.splitlines()[-1].startswith(f"hint: {remedy}")
        assert machine.archives() == []
        machine.call(*RUN)
        assert [run["state"] for run in machine.json("status")["runs"]] == ["finished"]
    assert machine.leftovers() == []


def test_records_that_cannot_be_kept_any_more(box: Node) -> None:
    """The archive is complete when there is no room for saying so."""
    with on_its_own(box, "lib") as path:
        guests.start(box, CT)
        child = box.start("run", str(CT), "--storage", "backup", fault=Fault(HOLD, at="piece of the archive"))
        child.wait_held()
        with spoilt(path, FULL):
            child.resume()
            ended = child.wait()
            goes_on(box, CT)
        assert ended.status == 0, ended.err
        assert len(box.archives()) == 1
        box.call("heal")
        assert box.leftovers() == [str(path)]
        guests.switch_off(box, CT)


def test_a_guest_is_healed_though_nothing_can_be_written(box: Node) -> None:
    with on_its_own(box, "lib") as path:
        guests.start(box, CT)
        child = box.start(
            "run", str(CT), "--storage", "backup", "--mode", "suspend", fault=Fault(HOLD, at="end lxc-freeze")
        )
        child.wait_held()
        assert box.status(CT) == "frozen"
        child.send(signal.SIGKILL)
        child.wait()
        with spoilt(path, FULL):
            box.start("heal").wait()
            goes_on(box, CT)
        box.call("heal")
        assert box.leftovers() == [str(path)]
        guests.switch_off(box, CT)


def test_a_log_that_cannot_be_kept(machine: Node) -> None:
    (machine.root / "log").write_text("in the way", encoding="ascii")
    (guest,) = machine.json(*RUN)["guests"]
    assert guest["status"] == "ok"
    assert guest["warnings"][0].startswith("this guest's log is not kept: cannot create the folder")
    assert machine.leftovers() == []


def test_a_restored_config_that_finds_no_room(box: Node) -> None:
    box.call("run", str(CT), "--storage", "backup")
    folder = box.config(CT, "lxc").parent
    kept = folder.with_name("kept")
    folder.rename(kept)
    with on_its_own(box, "etc/lxc"), spoilt(folder, READ_ONLY):
        complaint = box.call("restore", "backup:latest/101", "201", status=1)
    folder.rmdir()
    kept.rename(folder)
    assert f"cannot write {folder}/201.conf: Read-only file system" in complaint
    assert "findmnt -T" in complaint
    assert os.listdir(box.images) == [str(CT)]
    assert box.leftovers() == []
