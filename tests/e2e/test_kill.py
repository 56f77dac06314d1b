# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``kill -9`` after every single step of a backup; cleaning up then leaves the guest as it was, and nothing else."""

from __future__ import annotations

import signal
import subprocess
from typing import Callable

import pytest
from engine.guests.lxc import tools as lxc
from engine.guests.qemu import guest as qemu
from engine.system.report import SilentReporter
from engine.tasks.files import verify_vma
from engine.tasks.heal import heal
from helpers import guests
from helpers.faults import KILL, NOTE, Fault
from helpers.guests import CT, VM
from helpers.node import Node

SILENT = SilentReporter()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for guests that were never asked to shut down."""
    monkeypatch.setattr(lxc, "SHUTDOWN_SECONDS", 2.0)
    monkeypatch.setattr(qemu, "SHUTDOWN_SECONDS", 2.0)


def trace(node: Node, *argv: str) -> list[str]:
    """The steps of a command that succeeds."""
    ended = node.start(*argv, fault=Fault(NOTE)).wait()
    assert ended.status == 0, ended.err
    return ended.step.splitlines()


def kill_at_each_step(node: Node, argv: tuple[str, ...], check: Callable[[], None], first: str, last: str) -> None:
    """Run a command again and again, each time killed one step later: from the step ``first`` to the step ``last``."""
    steps = trace(node, *argv)
    check()
    begin, end = steps.index(first), len(steps) - steps[::-1].index(last)
    problems = []
    for number, name in enumerate(steps[:end], 1):
        if number <= begin or steps[number - 2] == name == "piece of the archive":
            continue
        ended = node.start(*argv, fault=Fault(KILL, number)).wait()
        assert (ended.status, ended.step) == (-signal.SIGKILL, name), ended
        try:
            heal(node.host, SILENT)
            check()
        except Exception as exc:
            problems.append(f"killed after step {number}, {name!r}: {exc!r}")
    assert problems == []


def backup(node: Node, vmid: int, *options: str) -> tuple[tuple[str, ...], Callable[[], None]]:
    """The command that backs a guest up, and what must be true after each end of it."""

    def check() -> None:
        assert node.leftovers() == []
        found = sorted(node.dump.iterdir())
        for path in found:
            if path.suffix in (".vma", ".zst"):
                verify_vma(str(path), SILENT)
            elif path.suffix == ".tar":
                subprocess.run(["tar", "tf", path], check=True, capture_output=True)
            elif path.suffix in (".notes", ".protected"):
                assert path.with_suffix("").exists(), f"{path} has no archive"
        for path in found:
            path.unlink()
        guests.goes_on(node, vmid)

    guests.start(node, vmid)
    return ("run", str(vmid), "--storage", "backup", "--notes-template", "{guestname}", *options), check


def test_vm_snapshot(machine: Node) -> None:
    argv, check = backup(machine, VM, "--compress", "zstd")
    kill_at_each_step(machine, argv, check, "journal task.folder", "close task.folder")


def test_ct_snapshot(btrfs_box: Node) -> None:
    argv, check = backup(btrfs_box, CT)
    kill_at_each_step(btrfs_box, argv, check, "journal task.folder", "close task.folder")


def test_ct_suspend(box: Node) -> None:
    argv, check = backup(box, CT, "--mode", "suspend")
    kill_at_each_step(box, argv, check, "begin rsync", "journal storage.partial")


def test_ct_stop(box: Node) -> None:
    argv, check = backup(box, CT, "--mode", "stop")
    kill_at_each_step(box, argv, check, "journal lxc.start", "close lxc.start")


def test_vm_stop(machine: Node) -> None:
    argv, check = backup(machine, VM, "--mode", "stop")
    kill_at_each_step(machine, argv, check, "journal qemu.start", "close qemu.cont")
