# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys

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
