# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from engine.system import priority

SCRIPT = """
import subprocess, sys
from engine.system.priority import set_io_priority
from engine.system.report import SilentReporter
set_io_priority(int(sys.argv[1]), SilentReporter())
print(subprocess.run(["ionice"], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.parametrize(("level", "shown"), [(0, "best-effort: prio 0"), (7, "best-effort: prio 7"), (8, "idle")])
def test_the_process_and_its_programs_get_the_priority(level: int, shown: str) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", SCRIPT, str(level)]
    assert subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout.strip() == shown


def test_without_the_program_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []

    class Listener:
        def warn(self, message: str) -> None:
            warnings.append(message)

        info = error = warn

        def progress(self, done: int, total: int, zero: int, written: int) -> None: ...

    monkeypatch.setenv("PATH", "/nowhere")
    priority.set_io_priority(7, Listener())
    assert len(warnings) == 1
    assert "usual priority" in warnings[0]


def fake_disk(sys_root: Path, name: str, number: str, schedulers: str = "", slaves: tuple[str, ...] = ()) -> None:
    """A block device as it looks in ``/sys``: the tests on real disks are in tests/e2e/test_ionice.py."""
    place = sys_root / "devices" / name
    (place / "slaves").mkdir(parents=True)
    (place / "dev").write_text(f"{number}\n", encoding="ascii")
    if schedulers:
        (place / "queue").mkdir()
        (place / "queue" / "scheduler").write_text(f"{schedulers}\n", encoding="ascii")
    for slave in slaves:
        (place / "slaves" / slave).symlink_to(sys_root / "devices" / slave)
    (sys_root / "dev" / "block").mkdir(parents=True, exist_ok=True)
    (sys_root / "dev" / "block" / number).symlink_to(place)


@pytest.mark.parametrize(
    ("schedulers", "level", "ignored"),
    [
        ("none mq-deadline kyber [bfq]", 3, ""),
        ("[none] mq-deadline kyber bfq", 3, "none"),
        ("none [mq-deadline] kyber", 3, "mq-deadline"),
        ("none [mq-deadline] kyber", 8, ""),
        ("none", 8, "none"),
        ("", 3, ""),
    ],
)
def test_schedulers_that_ignore_priorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedulers: str, level: int, ignored: str
) -> None:
    monkeypatch.setattr(priority, "SYS", str(tmp_path))
    fake_disk(tmp_path, "sda", "8:0", schedulers)
    assert priority.heedless_disks("8:0", level) == ({"sda": ignored} if ignored else {})


def test_the_disks_below_a_device_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "SYS", str(tmp_path))
    fake_disk(tmp_path, "sda", "8:0", "[none] bfq")
    fake_disk(tmp_path, "sdb", "8:16", "none [bfq]")
    partition = tmp_path / "devices" / "sda" / "sda1"
    partition.mkdir()
    (partition / "partition").write_text("1\n", encoding="ascii")
    (partition / "dev").write_text("8:1\n", encoding="ascii")
    (tmp_path / "dev" / "block" / "8:1").symlink_to(partition)
    (tmp_path / "devices" / "sda1").symlink_to(partition)
    fake_disk(tmp_path, "dm-0", "253:0", slaves=("sda1", "sdb"))
    assert priority.heedless_disks("253:0", 5) == {"sda": "none"}
    assert priority.heedless_disks("8:1", 5) == {"sda": "none"}
    assert priority.heedless_disks("8:16", 5) == {}
    assert priority.heedless_disks("9:9", 5) == {}
