# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rule commands of ``holdfast``, as commands and as filters."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from engine.cli import main

NAMES = ["vzdump-qemu-100-2026_03_10-02_00_00.vma.zst", "vzdump-qemu-100-2026_03_09-02_00_00.vma.zst", "foo.tar"]


def feed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_next_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", "next", "mon..fri 21:00", "--from", "2026-03-06T21:00:00Z", "--tz", "UTC", "-n", "2"]) == 0
    assert capsys.readouterr().out == "Mon 2026-03-09 21:00:00\nTue 2026-03-10 21:00:00\n"
    assert main(["schedule", "next", "daily", "--from", "0", "--tz", "UTC", "-n", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"event": "daily", "next": [86400]}


def test_next_runs_as_a_filter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, '{"event": "daily", "from": 0, "tz": "UTC"}', "no such event", "{broken", '{"from": 1}')
    assert main(["schedule", "next", "-", "-n", "1"]) == 0
    answers = json_lines(capsys)
    assert answers[0] == {"event": "daily", "next": [86400], "error": None}
    assert [bool(answer["error"]) for answer in answers] == [False, True, True, True]
    assert all(answer["next"] == [] for answer in answers[1:])


@pytest.mark.parametrize(
    "argv",
    [
        ["schedule", "next", "mon..fri 99:99"],
        ["schedule", "next", "daily", "--tz", "Nowhere/Land"],
        ["schedule", "next", "daily", "--from", "tomorrow"],
        ["schedule", "next"],
        ["archive-name", "foo.tar"],
        ["prune-simulate", "--keep", "keep-last=1", "--keep-daily", "2"],
        ["prune-simulate", "--keep", "keep-foo=1"],
        ["bogus"],
        [],
    ],
)
def test_usage_errors(argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch)
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


def test_retention_on_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, *NAMES)
    assert main(["prune-simulate", "--keep-last", "1"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in table] == ["MARK", "keep", "remove", "renamed"]
    feed(monkeypatch, NAMES[0], json.dumps({"name": NAMES[1], "protected": True}))
    assert main(["prune-simulate", "-", "--keep", "keep-last=1", "--tz", "UTC"]) == 0
    assert [answer["mark"] for answer in json_lines(capsys)] == ["keep", "protected"]


def test_archive_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive-name", "--json", NAMES[0]]) == 0
    (fields,) = json.loads(capsys.readouterr().out)
    assert {key: fields[key] for key in ("kind", "vmid", "format", "compression")} == {
        "kind": "qemu",
        "vmid": 100,
        "format": "vma",
        "compression": "zst",
    }
    feed(monkeypatch, NAMES[0], json.dumps({"name": "foo"}))
    assert main(["archive-name", "-"]) == 0
    good, bad = json_lines(capsys)
    assert good["name"] == NAMES[0]
    assert "not a standard archive name" in bad["error"]
