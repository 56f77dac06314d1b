# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups and restores that are killed, interrupted, or fail after every single one of their steps.

Afterwards the guest is as it was, whatever is listed is complete, and nothing else is left: at once when the backup
could clean up itself, and after the next clean-up when it was killed.
"""

from __future__ import annotations

import re
import shutil
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
from helpers.agent import FakeAgent
from helpers.faults import FAIL, KILL, NOTE, TERM, Fault
from helpers.guests import CT, VM, tree
from helpers.node import Node

SILENT = SilentReporter()
# A freeze that fails does not fail the backup.
ENDINGS = {KILL: (-signal.SIGKILL,), TERM: (1,), FAIL: (3, 0)}

NEW = 201

Check = Callable[[], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for guests that were never asked to shut down."""
    monkeypatch.setattr(lxc, "SHUTDOWN_SECONDS", 2.0)
    monkeypatch.setattr(qemu, "SHUTDOWN_SECONDS", 2.0)


def trace(node: Node, argv: tuple[str, ...]) -> list[str]:
    """The steps of a command that succeeds."""
    ended = node.start(*argv, fault=Fault(NOTE)).wait()
    assert ended.status == 0, ended.err
    return ended.step.splitlines()


def at_each_step(
    node: Node,
    action: str,
    argv: tuple[str, ...],
    check: Check,
    steps: str = "",
    prepare: Check = lambda: None,
) -> None:
    """Run a command again and again, each time stopped one step later; only at the steps that the pattern finds.

    Of steps with the same name the first and the last one are taken; only the first one when the command is not killed.
    """
    problems = []
    prepare()
    names = trace(node, argv)
    check()
    for number, name in enumerate(names, 1):
        again, comes_again = name in names[: number - 1], name in names[number:]
        if not re.search(steps, name) or (again and (comes_again or action != KILL)):
            continue
        prepare()
        ended = node.start(*argv, fault=Fault(action, number)).wait()
        try:
            # Threads take turns as they like: which step comes first may differ from run to run.
            assert ended.step
            assert ended.status in ENDINGS[action], ended
            if action == KILL:
                heal(node.host, SILENT)
            check()
        except Exception as exc:
            problems.append(f"{action} after step {number}, {name!r}: {exc!r}")
            heal(node.host, SILENT)
    assert problems == []


def backup(node: Node, vmid: int, *options: str) -> tuple[tuple[str, ...], Check]:
    """The command that backs a guest up, and what must be true after each end of it."""

    def check() -> None:
        assert node.leftovers() == []
        guests.goes_on(node, vmid)
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

    return ("run", str(vmid), "--storage", "backup", "--notes-template", "{guestname}", *options), check


@pytest.mark.parametrize("action", [KILL, TERM])
def test_vm_snapshot(action: str, machine: Node, agent: FakeAgent) -> None:
    argv, check = backup(machine, VM, "--compress", "zstd")

    def check_all() -> None:
        check()
        assert not agent.frozen()

    at_each_step(machine, action, argv, check_all)


def test_vm_snapshot_that_fails(machine: Node, agent: FakeAgent) -> None:
    argv, check = backup(machine, VM)

    def check_all() -> None:
        check()
        assert not agent.frozen()

    at_each_step(machine, FAIL, argv, check_all, "journal|agent|qmp (?!.*-(del|stop))")


def test_vm_snapshot_that_is_interrupted(machine: Node, agent: FakeAgent) -> None:
    argv, check = backup(machine, VM)

    def check_all() -> None:
        check()
        assert not agent.frozen()

    at_each_step(machine, TERM, argv, check_all, "agent|qmp (stop|cont|nbd|qom)|named|close (storage|task|capture)")


def test_vm_stop(machine: Node) -> None:
    guests.start(machine, VM)
    argv, check = backup(machine, VM, "--mode", "stop")
    at_each_step(machine, KILL, argv, check, "qemu|system_powerdown")


def test_vm_suspend_with_fleecing(machine: Node) -> None:
    guests.start(machine, VM)
    argv, check = backup(machine, VM, "--mode", "suspend", "--fleecing", "enabled=1,storage=local")
    at_each_step(machine, KILL, argv, check, "storage.volume|qemu-img|qmp (stop|cont|nbd|block-export)")


@pytest.mark.parametrize("status", ["paused", "stopped"])
def test_vm_that_does_not_run(status: str, machine: Node) -> None:
    argv, _check = backup(machine, VM)
    if status == "paused":
        guests.start(machine, VM)
        with guests.Monitor(machine) as monitor:
            monitor.execute("stop")

    def check() -> None:
        assert machine.leftovers() == []
        assert machine.status(VM) == status
        for path in machine.dump.iterdir():
            path.unlink()

    at_each_step(machine, KILL, argv, check, "journal|qmp (qom-set|nbd)|qemu-storage-daemon")


@pytest.mark.parametrize("action", [KILL, TERM])
def test_ct_snapshot(action: str, btrfs_box: Node) -> None:
    guests.start(btrfs_box, CT)
    argv, check = backup(btrfs_box, CT)
    at_each_step(btrfs_box, action, argv, check)


def test_ct_snapshot_that_fails(btrfs_box: Node) -> None:
    guests.start(btrfs_box, CT)
    argv, check = backup(btrfs_box, CT)
    at_each_step(btrfs_box, FAIL, argv, check, "journal|(during|end) (lxc|mount|btrfs)")


def test_ct_suspend(box: Node) -> None:
    guests.start(box, CT)
    argv, check = backup(box, CT, "--mode", "suspend")
    at_each_step(box, KILL, argv, check, "rsync|lxc")


def test_ct_stop(box: Node) -> None:
    guests.start(box, CT)
    argv, check = backup(box, CT, "--mode", "stop")
    at_each_step(box, KILL, argv, check, "lxc")


def replacement(node: Node, vmid: int, kind: str) -> tuple[tuple[str, ...], Check, Check]:
    """The command that replaces guest 201; makes it the old one again; what must be true after each end.

    The old guest has a tag and a mark in its second volume that the new one lacks.
    """
    node.call("run", str(vmid), "--storage", "backup", "--compress", "zstd")
    (archive,) = node.archives()
    node.call("restore", archive, str(NEW))
    config, folder, saved = node.config(NEW, kind), node.images / str(NEW), node.root / "saved"
    tagged = config.read_text(encoding="utf-8") + "tags: old\n"
    origin, second = (sorted((node.images / str(which)).iterdir())[1] for which in (vmid, NEW))
    folder.rename(saved)

    def prepare() -> None:
        if folder.exists():
            shutil.rmtree(folder)
        subprocess.run(["cp", "-a", saved, folder], check=True)
        if kind == "lxc":
            (second / "mark").touch()
        else:
            with second.open("r+b") as disk:
                disk.write(b"mark")
        config.write_text(tagged, encoding="utf-8")

    def check() -> None:
        assert node.leftovers() == []
        text = config.read_text(encoding="utf-8")
        named = sorted(re.findall(rf": local:{NEW}/([^,\s]+)", text))
        assert sorted(path.name for path in folder.iterdir()) == named
        volume = folder / named[1]
        if kind == "lxc":
            files, plain = tree(volume), tree(origin)
            assert files == ({**plain, "mark": files.get("mark")} if text == tagged else plain)
        else:
            disk = origin.read_bytes()
            assert volume.read_bytes() == (b"mark" + disk[4:] if text == tagged else disk)

    return ("restore", archive, str(NEW), "--force"), prepare, check


def test_restore_of_a_vm(machine: Node) -> None:
    argv, prepare, check = replacement(machine, VM, "qemu")
    at_each_step(machine, KILL, argv, check, prepare=prepare)


def test_the_old_volumes_go_when_the_new_ones_are_on_the_disk(box: Node) -> None:
    """A power cut leaves one of the two."""
    argv, prepare, _check = replacement(box, CT, "lxc")
    prepare()
    steps = trace(box, argv)
    last = len(steps) - 1 - steps[::-1].index("end sync")
    assert steps.count("end sync") == 3
    assert last < min(number for number, step in enumerate(steps) if step == "end umount")
    assert last < steps.index("replaced .conf")


@pytest.mark.parametrize("action", [KILL, TERM])
def test_restore_of_a_container(action: str, box: Node) -> None:
    argv, prepare, check = replacement(box, CT, "lxc")
    at_each_step(box, action, argv, check, prepare=prepare)
