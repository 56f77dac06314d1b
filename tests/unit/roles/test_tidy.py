# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Old versions of the engine go from a node, but not the one before the current one, and none that is at work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TIDY = Path(__file__).parents[3] / "roles" / "backup_node" / "files" / "tidy.py"


def tidy(prefix: Path) -> list[str]:
    # As the role runs it.
    argv = [sys.executable, "-c", TIDY.read_text(encoding="utf-8"), str(prefix)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Five versions, the third of which is current."""
    for age, name in enumerate("edcba"):
        version = tmp_path / "versions" / name
        (version / "holdfast").mkdir(parents=True)
        os.utime(version, (1000 - age, 1000 - age))
    (tmp_path / "lib").symlink_to("versions/c")
    return tmp_path


def left(prefix: Path) -> list[str]:
    return sorted(path.name for path in (prefix / "versions").iterdir())


def test_the_current_and_the_one_before_stay(prefix: Path) -> None:
    assert [Path(path).name for path in tidy(prefix)] == ["a", "b", "d"]
    assert left(prefix) == ["c", "e"]
    assert tidy(prefix) == []
    assert left(prefix) == ["c", "e"]


def test_a_version_at_work_stays(prefix: Path) -> None:
    command = [sys.executable, "-c", "input()", str(prefix / "versions" / "b"), "run", "--all"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as at_work:
        assert [Path(path).name for path in tidy(prefix)] == ["a", "d"]
        at_work.communicate(b"\n")
    assert left(prefix) == ["b", "c", "e"]
    assert [Path(path).name for path in tidy(prefix)] == ["b"]


def test_a_first_installation(tmp_path: Path) -> None:
    (tmp_path / "versions" / "a").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("versions/a")
    assert tidy(tmp_path) == []
