# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM with an operating system, a guest agent and a writer: what its archives hold, and that it never stays frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from engine.guests.qemu.agent import AgentClient

from tests.lab.inside import run_inside
from tests.lab.laboratory import VM, Laboratory

KILLED = """
import os, signal
from engine.cli import main
from {module} import {place} as place
original = place.{method}
def die(self, *args, **more):
    try:
        return original(self, *args, **more)
    finally:
        if {when}:
            os.kill(os.getpid(), signal.SIGKILL)
place.{method} = die
main(["run", "{vmid}", "--storage", "backup"])
"""
FROZEN = ("engine.guests.qemu.agent", "AgentClient", "freeze", "True")
PAUSED = ("engine.guests.qemu.qmp", "QmpClient", "execute", "args[0] == 'stop'")
"""Where the engine is killed: module, class, method, and the condition on its arguments."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    laboratory = Laboratory(str(tmp_path_factory.mktemp("lab")))
    laboratory.up()
    yield laboratory
    laboratory.down()


def agent(lab: Laboratory) -> AgentClient:
    return AgentClient(os.path.join(lab.root, "run/qemu-server", f"{VM}.qga"), "VM", timeout=10)


def back_up(lab: Laboratory, *options: str) -> dict[str, Any]:
    run = json.loads(lab.holdfast("run", str(VM), "--storage", "backup", "--json", *options))
    (guest,) = run["guests"]
    return dict(guest)


def last_number(lab: Laboratory) -> int:
    socket = os.path.join(lab.root, "run/qemu-server", f"{VM}.qga")
    return int(run_inside(socket, "/bin/tail", "-n", "1", "/b/writer.log").split()[0])


def status(lab: Laboratory) -> str:
    return next(str(guest["status"]) for guest in lab.guests() if guest["vmid"] == VM)


def goes_on(lab: Laboratory) -> None:
    """The guest runs, its file systems are not frozen, and its writer writes to both disks."""
    assert status(lab) == "running"
    with agent(lab) as client:
        assert not client.frozen()
    before = last_number(lab)
    deadline = time.monotonic() + 30
    while last_number(lab) == before:
        assert time.monotonic() < deadline, "the writer stands still"
        time.sleep(0.2)


def test_the_archive_is_clean_and_of_one_instant(lab: Laboratory, tmp_path: Path) -> None:
    guest = back_up(lab, "--compress", "zstd")
    assert guest["status"] == "ok", guest["error"]
    assert guest["timings"]["guest_frozen"] is True
    assert guest["timings"]["freeze_seconds"] < 10
    lab.holdfast("restore", guest["archive"], "300", "--trust-config")
    folder = Path(lab.storage, "local/images/300")
    raw = tmp_path / "a"
    subprocess.run(["qemu-img", "convert", "-O", "raw", folder / "vm-300-disk-0.qcow2", raw], check=True)
    numbers = []
    for image in (raw, folder / "vm-300-disk-1.raw"):
        # Not even a journal to replay: the file systems were frozen at that instant.
        check = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
        assert check.returncode == 0, check.stdout
        text = subprocess.run(["debugfs", "-R", "cat writer.log", image], check=True, capture_output=True).stdout
        numbers.append(len(text.splitlines()))
    assert numbers[0] > 0
    assert numbers[0] - numbers[1] in (0, 1)
    goes_on(lab)


@pytest.mark.parametrize("place", [FROZEN, PAUSED], ids=["frozen", "paused"])
def test_killed_while_the_guest_stands_still(lab: Laboratory, place: tuple[str, str, str, str]) -> None:
    module, name, method, when = place
    script = KILLED.format(module=module, place=name, method=method, when=when, vmid=VM)
    child = subprocess.run([sys.executable, "-c", script], env=lab.environment(), capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    if place is PAUSED:
        assert status(lab) == "paused"
    else:
        with agent(lab) as client:
            assert client.frozen()
    guest = back_up(lab)
    assert guest["status"] == "ok", guest["error"]
    goes_on(lab)


def test_without_an_answer_of_the_agent_the_backup_goes_on(lab: Laboratory) -> None:
    with agent(lab):
        # The channel serves one client: the engine finds nobody at the other end, as with a hung agent.
        guest = back_up(lab)
    assert guest["status"] == "ok", guest["error"]
    assert guest["timings"]["guest_frozen"] is False
    assert any("not frozen" in warning for warning in guest["warnings"])
    goes_on(lab)
