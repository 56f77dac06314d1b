# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hook scripts around backups of real guests: when they are called, and that no guest depends on them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any, Iterator

import pytest
from helpers import domains, guests
from helpers.adopted import make_adopted
from helpers.domains import DomainNode
from helpers.guests import CT, VM
from helpers.node import Node
from helpers.process import Ended, wait_for

DOCUMENT = Path(__file__).parents[2] / "docs" / "hooks.md"

# Tells the phase, the environment, and what the guest does meanwhile. It fails or hangs in the phases of two files.
SCRIPT = """#!/usr/bin/python3 -IS
import json, os, socket, subprocess, sys, time

root, log, here = {root!r}, {log!r}, {here!r}


def container():
    before = os.stat(log).st_size
    for _n in range(30):
        time.sleep(0.1)
        if os.stat(log).st_size != before:
            return "running"
    return "still"


def machine():
    monitor = socket.socket(socket.AF_UNIX)
    monitor.settimeout(20)
    try:
        monitor.connect(root + "/watch")
    except OSError:
        return "still"
    stream = monitor.makefile("rw")
    stream.readline()
    for command in ("qmp_capabilities", "query-status"):
        stream.write('{{"execute": "' + command + '"}}\\n')
        stream.flush()
        answer = json.loads(stream.readline())
        while "return" not in answer:
            answer = json.loads(stream.readline())
    return "running" if answer["return"]["running"] else "still"


def told(name):
    return sys.argv[1] in open(here + "/" + name).read().split()


state = None if len(sys.argv) == 2 else machine() if os.environ.get("VMTYPE") == "qemu" else container()
with open(here + "/calls", "a") as stream:
    stream.write(json.dumps([sys.argv[1:], dict(os.environ), state]) + "\\n")
if told("hangs"):
    with open(here + "/hanging", "w") as stream:
        stream.write(str(subprocess.Popen(["sleep", "600"]).pid))
    time.sleep(600)
if told("fails"):
    print("failing in", sys.argv[1])
    sys.exit(3)
"""
MIDDLE = ("pre-stop", "pre-restart", "post-restart")
GUEST = ("backup-start", *MIDDLE, "backup-end", "log-end")


class Hook:
    """A script for one node."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        self.path = folder / "hook"
        log = node.images / str(CT) / f"subvol-{CT}-disk-1.subvol" / "log"
        self.path.write_text(SCRIPT.format(root=str(node.root), log=str(log), here=str(folder)), encoding="utf-8")
        self.path.chmod(0o755)
        self.set("fails")
        self.set("hangs")

    def set(self, what: str, *phases: str) -> None:
        (self.folder / what).write_text(" ".join(phases), encoding="utf-8")

    def argv(self, vmid: int, mode: str) -> tuple[str, ...]:
        return ("run", str(vmid), "--storage", "backup", "--mode", mode, "--script", str(self.path), "--json")

    def run(self, vmid: int, mode: str) -> Ended:
        """A run with this script; nothing may be left by it."""
        (self.folder / "calls").write_text("", encoding="utf-8")
        ended = self.node.start(*self.argv(vmid, mode)).wait()
        assert self.node.leftovers() == []
        return ended

    def calls(self) -> list[tuple[list[str], dict[str, str], str | None]]:
        """Arguments, environment, and what the guest did."""
        return [tuple(json.loads(line)) for line in (self.folder / "calls").read_text(encoding="utf-8").splitlines()]

    def phases(self) -> list[str]:
        return [args[0] for args, _environment, _state in self.calls()]

    def hanging(self) -> int | None:
        """Pid of what a script that hangs has started."""
        path = self.folder / "hanging"
        return int(path.read_text()) if path.exists() and path.read_text() else None


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def phases_of(hook: Hook, vmid: int, mode: str, *, effective: str = "", started: bool = True) -> None:
    """A run calls every phase at its time with its arguments and environment, and the guest does what it should."""
    done = hook.run(vmid, mode)
    assert done.status == 0, done.err
    effective = effective or mode
    (guest,) = json.loads(done.out)["guests"]
    expected = [phase for phase in GUEST if started or phase not in MIDDLE]
    calls = hook.calls()
    assert hook.phases() == ["job-init", "job-start", *expected, "job-end"]
    target = {"STOREID": "backup", "DUMPDIR": str(hook.node.dump)}
    of_guest = {
        **target,
        "VMTYPE": "lxc" if vmid == CT else "qemu",
        "HOSTNAME": "box" if vmid == CT else guest["name"],
        "TARGET": guest["path"],
        "LOGFILE": guest["log"],
    }
    for args, environment, state in calls:
        environment.pop("LC_CTYPE", None)  # Python itself sets that.
        if args[0].startswith("job-"):
            wanted = {"STOREID": "backup"} if args[0] == "job-init" else target
            assert (args[1:], environment) == ([], wanted)
            continue
        assert (args[1:], environment) == ([effective, str(vmid)], of_guest)
        down = not started or (effective == "stop" and args[0] == "pre-restart")
        assert (args[0], state) == (args[0], "still" if down else "running")
    log = Path(guest["log"]).read_text(encoding="utf-8")
    assert re.findall("INFO: hook script: (.*)", log) == expected[:-1]


@pytest.mark.parametrize("mode", ["suspend", "stop"])
def test_container(box: Node, tmp_path: Path, mode: str) -> None:
    guests.start(box, CT)
    phases_of(Hook(box, tmp_path), CT, mode)
    guests.goes_on(box, CT)


def test_container_on_btrfs(btrfs_box: Node, tmp_path: Path) -> None:
    guests.start(btrfs_box, CT)
    phases_of(Hook(btrfs_box, tmp_path), CT, "snapshot")
    guests.goes_on(btrfs_box, CT)


def test_container_that_falls_back(box: Node, tmp_path: Path) -> None:
    guests.start(box, CT)
    phases_of(Hook(box, tmp_path), CT, "snapshot", effective="suspend")


@pytest.mark.parametrize("mode", ["snapshot", "suspend", "stop"])
def test_machine(machine: Node, tmp_path: Path, mode: str) -> None:
    guests.start(machine, VM)
    phases_of(Hook(machine, tmp_path), VM, mode)
    guests.goes_on(machine, VM)


def test_machine_that_does_not_run(machine: Node, tmp_path: Path) -> None:
    phases_of(Hook(machine, tmp_path), VM, "snapshot", effective="stop", started=False)


@pytest.mark.parametrize("mode", ["snapshot", "stop"])
def test_adopted_machine(node: Node, tmp_path: Path, mode: str) -> None:
    make_adopted(node)
    guests.start(node, VM)
    phases_of(Hook(node, tmp_path), VM, mode)
    assert node.status(VM) == "running"
    node.call("guest", "stop", str(VM), "--force")


@pytest.mark.parametrize("mode", ["snapshot", "stop"])
def test_domain(domain_node: DomainNode, tmp_path: Path, mode: str) -> None:
    domains.make_domain(domain_node)
    guests.start(domain_node, VM)
    phases_of(Hook(domain_node, tmp_path), VM, mode)
    domains.goes_on(domain_node)


REFUSES, WARNS, KEEPS, STOPS = "refuses", "warns", "keeps", "stops"
FAILURES = {
    "job-init": STOPS, "job-start": STOPS, "backup-start": REFUSES, "pre-stop": REFUSES, "pre-restart": WARNS,
    "post-restart": WARNS, "backup-end": KEEPS, "log-end": WARNS, "job-end": STOPS,
}  # fmt: skip


def failing(hook: Hook, vmid: int, phase: str, init: int) -> None:
    """A script that fails in a phase, in mode ``stop``: what becomes of the backup, and of the guest.

    :param init: the guest's first process.
    """
    hook.set("fails", phase)
    done = hook.run(vmid, "stop")
    guests.goes_on(hook.node, vmid)
    what = FAILURES[phase]
    assert done.status == {STOPS: 1, WARNS: 0}.get(what, 3), done.err
    assert f"{phase}" in done.err and "failing in" in done.err and "exit status 3" in done.err
    called = hook.phases()
    assert called[-1] == ({"job-init": "job-init"}.get(phase, "job-abort") if what == STOPS else "job-end")
    assert ("backup-abort" in called) == (what in (REFUSES, KEEPS))
    untouched = what == REFUSES or phase in ("job-init", "job-start")
    assert (process(hook.node, vmid) == init) == untouched
    assert bool(hook.node.archives()) == (not untouched)


def process(node: Node, vmid: int) -> int:
    if vmid == VM:
        return guests.qemu_pid(node)
    guest: Any = guests.handle(node, vmid)
    return int(guest.init_pid())


@pytest.mark.parametrize("phase", FAILURES)
def test_container_whose_script_fails(box: Node, tmp_path: Path, phase: str) -> None:
    guests.start(box, CT)
    failing(Hook(box, tmp_path), CT, phase, process(box, CT))


@pytest.mark.parametrize("phase", ["backup-start", *MIDDLE, "backup-end"])
def test_machine_whose_script_fails(machine: Node, tmp_path: Path, phase: str) -> None:
    guests.start(machine, VM)
    failing(Hook(machine, tmp_path), VM, phase, process(machine, VM))


@pytest.mark.parametrize("phase", MIDDLE[1:])
def test_container_that_was_frozen_when_the_script_fails(box: Node, tmp_path: Path, phase: str) -> None:
    guests.start(box, CT)
    hook = Hook(box, tmp_path)
    hook.set("fails", phase)
    done = hook.run(CT, "suspend")
    guests.goes_on(box, CT)
    assert done.status == 3
    assert (json.loads(done.out)["guests"][0]["error"] or {})["code"] == "hook"
    assert hook.phases()[2:-1] == ["backup-start", *MIDDLE, "backup-abort", "log-end"]
    assert box.archives() == []


def stopped_while_hanging(hook: Hook, vmid: int, mode: str, phase: str, number: int) -> Ended:
    """Stop a run whose script hangs."""
    hook.set("hangs", phase)
    (hook.folder / "calls").write_text("", encoding="utf-8")
    child = hook.node.start(*hook.argv(vmid, mode))
    wait_for(hook.hanging, f"the script to hang in {phase}", 60)
    hook.set("hangs")
    child.send(number)
    end = child.wait()
    pid = hook.hanging()
    assert pid is not None
    wait_for(lambda: ended(pid), "what the script had started to end", 15)
    return end


@pytest.mark.parametrize("phase", ["job-init", "job-start", *GUEST, "job-end"])
def test_a_signal_ends_a_script_that_hangs(box: Node, tmp_path: Path, phase: str) -> None:
    guests.start(box, CT)
    hook = Hook(box, tmp_path)
    end = stopped_while_hanging(hook, CT, "stop", phase, signal.SIGTERM)
    assert (end.status, "interrupted by SIGTERM" in end.err) == (1, True)
    assert box.leftovers() == []
    guests.goes_on(box, CT)
    called = hook.phases()
    assert called[-1] == ("job-init" if phase == "job-init" else "job-abort")
    assert ("pre-stop" in called and phase != "pre-stop") == ("post-restart" in called)


@pytest.mark.parametrize(
    ("mode", "phase"), [("stop", "pre-restart"), ("stop", "post-restart"), ("snapshot", "pre-restart")]
)
def test_a_signal_ends_a_script_that_hangs_beside_a_machine(
    machine: Node, tmp_path: Path, mode: str, phase: str
) -> None:
    guests.start(machine, VM)
    end = stopped_while_hanging(Hook(machine, tmp_path), VM, mode, phase, signal.SIGTERM)
    assert end.status == 1
    assert machine.leftovers() == []
    guests.goes_on(machine, VM)


@pytest.mark.parametrize("phase", ["pre-stop", "pre-restart", "post-restart", "backup-end"])
def test_what_is_killed_while_a_script_runs_is_healed(box: Node, tmp_path: Path, phase: str) -> None:
    guests.start(box, CT)
    end = stopped_while_hanging(Hook(box, tmp_path), CT, "stop", phase, signal.SIGKILL)
    assert end.status == -signal.SIGKILL
    box.call("heal")
    assert box.leftovers() == []
    guests.goes_on(box, CT)


def test_a_machine_that_is_down_when_its_backup_is_killed(machine: Node, tmp_path: Path) -> None:
    guests.start(machine, VM)
    stopped_while_hanging(Hook(machine, tmp_path), VM, "stop", "pre-restart", signal.SIGKILL)
    assert machine.status(VM) == "stopped"
    machine.call("heal")
    assert machine.leftovers() == []
    wait_for(lambda: machine.status(VM) == "running", "the VM to run again")
    guests.goes_on(machine, VM)


@pytest.fixture
def away() -> Iterator[None]:
    """What the documented script leaves on the node goes away."""
    yield
    shutil.rmtree("/run/backup-hook", ignore_errors=True)


def test_the_documented_script_runs_as_it_is(box: Node, tmp_path: Path, away: None) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (example,) = re.findall(r"```sh\n(#!/bin/sh\n.*?)```", text, re.DOTALL)
    script = tmp_path / "backup-hook"
    script.write_text(example, encoding="utf-8")
    script.chmod(0o755)
    guests.start(box, CT)
    argv = ("run", str(CT), "--storage", "backup", "--mode", "stop", "--script", str(script))
    box.call(*argv)
    (archive,) = box.archives()
    sums = (box.dump / "SHA256SUMS").read_text(encoding="utf-8")
    assert sums.endswith(f"  {os.path.basename(archive)}\n") and len(sums.splitlines()) == 1
    hold = Path("/run/backup-hook/hold")
    (hold / str(CT)).touch()
    complaint = box.call(*argv, status=3)
    assert "backup-start stop 101` failed with exit status 1: guest 101 is on hold" in complaint
    assert os.listdir("/run/backup-hook") == ["hold"]
    guests.goes_on(box, CT)


def test_a_script_that_others_could_write_is_refused(box: Node, tmp_path: Path) -> None:
    hook = Hook(box, tmp_path)
    argv = hook.argv(CT, "stop")[:-1]
    hook.path.chmod(0o777)
    assert "others can write to" in box.refused(*argv, status=1)
    hook.path.chmod(0o755)
    os.chown(hook.path, 1000, 1000)
    assert "belongs to user 1000" in box.refused(*argv, status=1)
    os.chown(hook.path, 0, 0)
    link = tmp_path / "link"
    link.symlink_to(hook.path)
    os.lchown(link, 1000, 1000)
    assert "belongs to user 1000" in box.refused(*argv[:-1], str(link), status=1)
    assert not (tmp_path / "calls").exists() and box.archives() == []
