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
    assert json.loads(capsys.readouterr().out) == {"event": "daily", "next": [86400], "error": None}
    assert main(["schedule", "next", "1970-01-03", "--from", "0", "--tz", "UTC"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Sat 1970-01-03 00:00:00\n"
    assert "does not happen any more" in captured.err
    assert main(["schedule", "next", "02-30"]) == 1
    assert "never happens: none of its months has a day 30" in capsys.readouterr().err


def test_next_runs_as_a_filter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(
        monkeypatch,
        '{"event": "daily", "from": 0, "tz": "UTC"}',
        '{"event": "2:30", "from": 1774695600, "tz": "Europe/Vienna"}',
        '{"event": "02-30", "from": 0, "tz": "UTC"}',
    )
    assert main(["schedule", "next", "-", "-n", "1"]) == 0
    assert json_lines(capsys) == [
        {"event": "daily", "next": [86400], "error": None},
        {"event": "2:30", "next": [1774830600], "error": None},
        {
            "event": "02-30",
            "next": [],
            "error": None,
            "note": "the event never happens: none of its months has a day 30",
        },
    ]


def test_a_wrong_line_does_not_stop_the_filter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [
        "no such event",
        "{broken",
        '{"a":' + "[" * 100_000,
        '{"from": 1}',
        '{"event": 5}',
        '{"event": "daily", "tz": "Nowhere/Land"}',
        '{"event": "daily", "tz": ["x"]}',
        '{"event": "daily", "tz": "../../etc/passwd"}',
        '{"event": "daily", "from": "tomorrow"}',
        '{"event": "daily", "from": 1e400}',
        '{"event": "daily", "from": 1e300}',
        '{"event": "daily", "from": NaN}',
        '{"event": "daily", "from": "0001-01-01T00:00:00"}',
        "da\udcffily",
    ]
    feed(monkeypatch, *wrong, "", '{"event": "hourly", "from": "2026-03-09T21:30:00Z"}')
    assert main(["schedule", "next", "-", "--tz", "UTC"]) == 0
    *answers, last = json_lines(capsys)
    assert len(answers) == len(wrong)
    assert all(answer["error"] and answer["next"] == [] for answer in answers)
    assert last["next"][0] == 1773093600


@pytest.mark.parametrize(
    "argv",
    [
        ["schedule", "next", "mon..fri 99:99"],
        ["schedule", "next", "daily", "--tz", "Nowhere/Land"],
        ["schedule", "next", "daily", "--from", "tomorrow"],
        ["schedule", "next", "daily", "-n", "0"],
        ["schedule", "next", "daily", "-n", "x"],
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
    feed(monkeypatch, *NAMES)
    assert main(["prune-simulate", "--keep-last", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[2] == {"name": "foo.tar", "mark": "renamed", "rule": "no standard name"}


def test_retention_as_a_filter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [NAMES[0], json.dumps({"name": NAMES[1], "protected": True}), "{broken", '{"name": 5}']
    feed(monkeypatch, *lines, json.dumps({"name": NAMES[1], "protected": "maybe"}))
    assert main(["prune-simulate", "-", "--keep", "keep-last=1", "--tz", "UTC"]) == 0
    good, kept, *wrong = json_lines(capsys)
    assert good == {"name": NAMES[0], "mark": "keep", "rule": "keep-last"}
    assert kept == {"name": NAMES[1], "mark": "protected", "rule": "protected"}
    assert [sorted(answer) for answer in wrong] == [["error", "name"]] * 3


def test_the_zone_of_names_decides_about_days(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"vzdump-lxc-105-2026_03_{time}.tar" for time in ("10-23_30_00", "10-00_30_00", "09-23_30_00")]
    for zone in ("Europe/Vienna", "Pacific/Kiritimati", "UTC"):
        feed(monkeypatch, *names)
        assert main(["prune-simulate", "-", "--keep", "keep-daily=2", "--tz", zone]) == 0
        assert [answer["mark"] for answer in json_lines(capsys)] == ["keep", "remove", "keep"]


def test_archive_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["archive-name", "--json", NAMES[0]]) == 0
    (fields,) = json.loads(capsys.readouterr().out)
    assert {key: fields[key] for key in ("kind", "vmid", "format", "compression")} == {
        "kind": "qemu",
        "vmid": 100,
        "format": "vma",
        "compression": "zst",
    }
    feed(monkeypatch, NAMES[0], json.dumps({"name": "vzdump-lxc-105-old.tgz"}), json.dumps({"name": "foo"}), "{}")
    assert main(["archive-name", "-", "--tz", "UTC"]) == 0
    good, renamed, *bad = json_lines(capsys)
    assert good == {
        "name": NAMES[0],
        "kind": "qemu",
        "vmid": 100,
        "time": 1773108000,
        "format": "vma",
        "compression": "zst",
        "standard": True,
        "log": "vzdump-qemu-100-2026_03_10-02_00_00.log",
        "notes": f"{NAMES[0]}.notes",
    }
    assert (renamed["kind"], renamed["compression"], renamed["standard"], renamed["vmid"]) == ("lxc", "gz", False, None)
    assert bad[0] == {"name": "foo", "error": "'foo' is no archive's name"}
    assert bad[1]["error"] == "the object has no text 'name'"
    assert main(["archive-name", NAMES[0], "vzdump-lxc-105-old.tgz"]) == 0
    assert "lxc" in capsys.readouterr().out
