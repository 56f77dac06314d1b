# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``holdfast defaults``: the node's defaults, and where each option in effect comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine.cli import main

FILES = {
    "vzdump.conf": "zstd: 0\nperformance: pbs-entries-max=5\nprune-backups: keep-last=7\nmode: warp\nlockwait: 5\n",
    "storage.cfg": "dir: nas\n\tpath /srv/nas\n\tcontent backup\n\tprune-backups keep-daily=3\n",
    "jobs.cfg": "vzdump: night\n\tschedule 21:00\n\tall 1\n\tmode stop\n\tstorage nas\n\tperformance max-workers=4\n",
}


@pytest.fixture
def root(tmp_path: Path) -> str:
    folder = tmp_path / "etc"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return str(tmp_path)


def test_what_the_file_says(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", root, "defaults"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[1:] == [
        "zstd           0",
        "performance    pbs-entries-max=5",
        "prune-backups  keep-last=7",
        "lockwait       5",
    ]
    assert "line 4: ignored, option mode" in captured.err
    assert main(["--root", root, "defaults", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"]["zstd"] == 0


def test_every_option_is_explained(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--root", root, "defaults", "--explain", "--job", "night", "--bwlimit", "9"]
    assert main([*argv, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = {
        "bwlimit": (9, "call"),
        "mode": ("stop", "job"),
        "storage": ("nas", "job"),
        "prune_backups": ({"keep-daily": 3}, "storage"),
        "performance": ({"max-workers": 4, "pbs-entries-max": 5}, "job, vzdump.conf"),
        "zstd": (0, "vzdump.conf"),
        "lockwait": (5, "vzdump.conf"),
        "stopwait": (10, "built-in"),
    }
    assert {name: (answer["options"][name], answer["sources"][name]) for name in expected} == expected
    assert main(argv) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["prune-backups", "keep-daily=3", "storage"] in lines
    assert ["dumpdir", "-", "built-in"] in lines


def test_a_target_that_does_not_exist_is_told(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", root, "defaults", "--explain"]) == 0
    captured = capsys.readouterr()
    assert ["prune-backups", "keep-last=7", "vzdump.conf"] in [line.split() for line in captured.out.splitlines()]
    assert "there is no usable storage 'local'" in captured.err


@pytest.mark.parametrize("argv", [["--job", "none"], ["--mode", "warp"], ["--storage", "nas", "--dumpdir", "/x"]])
def test_refusals(root: str, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", root, "defaults", "--explain", *argv]) == 2
    assert capsys.readouterr().err.startswith("error: ")
