# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Secrets that only root reads, and work that must not take longer."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from engine.errors import ConfigError, HoldfastError, UsageError
from engine.system.deadline import within
from engine.system.secrets import read_secret, write_secret

LATE = HoldfastError("too late")


def test_a_secret_comes_back_and_is_nobody_elses(tmp_path: Path) -> None:
    path = str(tmp_path / "priv" / "sub" / "one.secret")
    assert read_secret(path) is None
    write_secret(path, "geh heim")
    assert read_secret(path) == "geh heim"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_secret_that_others_can_reach_is_not_used(mode: int, tmp_path: Path) -> None:
    path = str(tmp_path / "one.secret")
    write_secret(path, "geheim")
    os.chmod(path, mode)
    with pytest.raises(ConfigError, match="not root's alone") as info:
        read_secret(path)
    assert "chmod 600" in info.value.hint
    assert "geheim" not in str(info.value)


@pytest.mark.parametrize("data", [b"", b"\n", b"a\nb\n", b"a\tb", b"\xff", b"x" * 65537])
def test_what_is_not_one_line_of_text_is_no_secret(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.secret"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="does not hold a secret"):
        read_secret(str(path))


def test_links_and_pipes_are_no_secrets(tmp_path: Path) -> None:
    write_secret(str(tmp_path / "real"), "geheim")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe"):
        with pytest.raises(ConfigError):
            read_secret(str(tmp_path / name))


def test_work_in_time() -> None:
    done: list[int] = []
    within(5, lambda: done.append(1), LATE)
    assert done == [1]


def test_what_work_raises_is_raised() -> None:
    def fail() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        within(5, fail, LATE)


def test_work_that_hangs_is_given_up() -> None:
    go_on = threading.Event()

    def hang() -> None:
        go_on.wait(10)

    began = time.monotonic()
    with pytest.raises(HoldfastError, match="too late"):
        within(0.1, hang, LATE)
    assert time.monotonic() - began < 5
    go_on.set()
