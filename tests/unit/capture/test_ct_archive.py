# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The config that an archive of a container begins with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from engine.capture.ct_archive import CapturedContainer, write_config
from engine.capture.ct_restore import extract_ct
from engine.capture.model import Timings
from engine.errors import DependencyError
from engine.guests.lxc.guest import LxcGuest
from engine.settings.guest_config import GuestConfig
from engine.stream.progress import Progress
from engine.stream.sink import open_sink
from engine.stream.source import open_source
from engine.system.report import SilentReporter


class FakeGuest:
    native_config = None
    firewall = "[RULES]\n"
    archived_config = LxcGuest.archived_config
    config = GuestConfig.parse("hostname: web\nlock: backup\nrootfs: local:101/subvol-101-disk-0.subvol\n")

    def __init__(self, *idmaps: str) -> None:
        self._idmaps = idmaps

    def idmaps(self) -> tuple[str, ...]:
        return self._idmaps


def make(folder: Path, *idmaps: str) -> Path:
    guest: Any = FakeGuest(*idmaps)
    folder.mkdir(mode=0o700)
    assert write_config(cast(Any, guest), str(folder)) == ["./etc/vzdump/pct.conf", "./etc/vzdump/pct.fw"]
    return folder / "config"


def test_the_archived_config_has_no_lock(tmp_path: Path) -> None:
    config = make(tmp_path / "work")
    text = (config / "etc/vzdump/pct.conf").read_text(encoding="utf-8")
    assert text == "hostname: web\nrootfs: local:101/subvol-101-disk-0.subvol\n"
    assert (config / "etc/vzdump/pct.fw").read_text(encoding="utf-8") == "[RULES]\n"


def test_tar_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captured = CapturedContainer("stop", 101, Timings(), [], str(tmp_path), [], [], [])
    progress = Progress(0, SilentReporter())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="cannot run 'tar'"), open_sink(str(tmp_path / "x"), "") as sink:
        captured.write_to(sink, progress)
    with pytest.raises(DependencyError, match="cannot run 'tar'"), open_source(str(tmp_path / "x")) as source:
        extract_ct(source, str(tmp_path), idmaps=(), unprivileged=False, progress=progress, report=SilentReporter())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_mapped_root_can_read_the_config_and_get_through_to_the_tree(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        config = make(tmp_path / "work", "u:0:100000:65536", "g:0:100000:65536")
    finally:
        os.umask(before)
    assert config.parent.stat().st_mode & 0o007 == 0o001
    for folder in (config, config / "etc", config / "etc/vzdump"):
        assert folder.stat().st_mode & 0o007 == 0o005
    for name in ("pct.conf", "pct.fw"):
        assert (config / "etc/vzdump" / name).stat().st_mode & 0o007 == 0o004


def test_only_root_gets_to_the_files_of_a_privileged_container(tmp_path: Path) -> None:
    assert make(tmp_path / "work").parent.stat().st_mode & 0o077 == 0
