# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""VMs whose QEMU cannot be reached, is busy, stands still, or dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from engine.guests.qemu.launcher import Sockets
from engine.guests.qemu.qmp import QmpClient
from helpers import guests
from helpers.faults import HOLD, Fault
from helpers.guests import VM, Monitor, goes_on
from helpers.node import Node
from helpers.process import wait_for
from helpers.vms import back_up

RUN = ("run", str(VM), "--storage", "backup")


@pytest.fixture
def running(machine: Node) -> Iterator[Node]:
    guests.start(machine, VM)
    yield machine


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(QmpClient.__init__.__kwdefaults__ or {}, "timeout", 2.0)


def sockets(node: Node) -> Sockets:
    return Sockets.of(node.host.paths.qemu_run, VM)


def test_qmp_socket_is_absent(running: Node) -> None:
    path = Path(sockets(running).qmp)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    complaint = running.refused(*RUN, status=3)
    assert f"the QMP socket {path} of VM 100 (machine)" in complaint
    aside.rename(path)
    goes_on(running, VM)


def test_qmp_socket_is_busy(running: Node, impatient: None) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(sockets(running).qmp)
        complaint = running.refused(*RUN, status=3)
        assert "cannot connect to the QMP socket" in complaint
        assert "VM 100 (machine)" in complaint
        assert "only one client at a time" in complaint
    goes_on(running, VM)
    assert back_up(running)["status"] == "ok"


def test_qemu_does_not_move(running: Node, impatient: None) -> None:
    pid = guests.qemu_pid(running)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "no answer within 2 s" in running.refused(*RUN, status=3)
    finally:
        os.kill(pid, signal.SIGCONT)
    goes_on(running, VM)


@pytest.mark.parametrize("at", ["qmp stop", "qmp block-export-add", "piece of the archive"])
def test_qemu_dies_during_the_backup(at: str, running: Node) -> None:
    child = running.start(*RUN, "--bwlimit", "2048", fault=Fault(HOLD, at=at))
    child.wait_held()
    os.kill(guests.qemu_pid(running), signal.SIGKILL)
    child.resume()
    ended = child.wait()
    assert ended.status == 3, ended.err
    assert "VM 100 (machine)" in ended.err
    assert ended.err.splitlines()[-1].startswith("hint: ")
    assert running.leftovers() == []
    assert running.archives() == []
    assert running.status(VM) == "stopped"
    # What it left does not keep it from its next start and backup.
    guests.start(running, VM)
    assert back_up(running)["status"] == "ok"


def test_disks_in_use_by_somebody_else(machine: Node) -> None:
    """A QEMU that the engine does not know; seen from here the VM is stopped."""
    disk = machine.images / str(VM) / f"vm-{VM}-disk-0.qcow2"
    argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "pc", "-accel", "tcg", "-S"]
    argv += ["-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}"]
    argv += ["-device", "virtio-blk-pci,drive=disk", "-qmp", f"unix:{machine.root}/watch,server=on,wait=off"]
    other = subprocess.Popen(argv)
    try:
        wait_for((machine.root / "watch").exists, "the other QEMU")
        complaint = machine.refused(*RUN, status=3)
        assert str(disk) in complaint
        assert "lock" in complaint
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_nbd_server_of_somebody_else(running: Node) -> None:
    path = running.root / "other.nbd"
    with Monitor(running) as monitor:
        monitor.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(path)}})
    complaint = running.refused(*RUN, status=3)
    assert "cannot start its NBD server" in complaint
    goes_on(running, VM)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(path))
        assert other.recv(8) == b"NBDMAGIC"
    with Monitor(running) as monitor:
        monitor.execute("nbd-server-stop")


def test_a_pause_that_was_not_ours_is_kept(running: Node) -> None:
    with Monitor(running) as monitor:
        monitor.execute("stop")
    child = running.start(*RUN, fault=Fault(HOLD, at="piece of the archive"))
    child.wait_held()
    child.send(signal.SIGKILL)
    child.wait()
    running.call("heal")
    assert running.status(VM) == "paused"
    with Monitor(running) as monitor:
        assert monitor.traces() == []
        monitor.execute("cont")
    wait_for(lambda: running.status(VM) == "running", "the VM to go on")
