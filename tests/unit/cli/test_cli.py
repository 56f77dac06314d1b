# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The frame of the ``holdfast`` command: options, and errors that nobody expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
from engine.cli import main
from engine.tasks import heal as heal_module


def test_the_beginning_of_an_option_is_not_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "100", "--compres", "zstd"]) == 2
    said = capsys.readouterr().err
    assert "unrecognized arguments: --compres zstd" in said
    assert "see `holdfast run --help`" in said


@pytest.mark.parametrize(("user", "remedy"), [(1000, "run it as root"), (0, "AppArmor")])
def test_whoever_may_not_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: int, remedy: str
) -> None:
    def refused(*_args: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied", "/var/lib/holdfast")

    monkeypatch.setattr(heal_module, "heal", refused)
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert main(["--root", str(tmp_path), "heal"]) == 1
    first, _newline, rest = capsys.readouterr().err.partition("\n")
    assert "/var/lib/holdfast" in first
    assert remedy in rest


def test_a_definition_that_is_not_understood_is_listed_with_its_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "etc" / "guests.d"
    folder.mkdir(parents=True)
    (folder / "legacy.yml").write_text('{"vmid": 300, "qmpp": "/run/legacy/qmp"}', encoding="utf-8")
    assert main(["--root", str(tmp_path), "guests"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "unknown" in said[1]
    assert "(legacy): " in said[2]
    assert "qmpp" in said[2]
