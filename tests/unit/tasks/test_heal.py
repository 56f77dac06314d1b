# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cleaning up beside runs that begin and end at the same moment."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from engine.system.host import Host, Paths
from engine.system.locks import hold
from engine.system.report import SilentReporter
from engine.tasks import heal as heal_module
from engine.tasks.heal import heal
from engine.tasks.record import KEEP_RECORDS, RunRecord, load_records
from engine.tasks.undoing import FOLDER

from tests.unit.tasks.test_notify import Listener


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host("n1", Paths.under(str(tmp_path)))


def test_a_run_that_is_just_beginning_is_not_taken_for_a_dead_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    healed: list[list[str]] = []
    other = threading.Thread(target=lambda: healed.append(heal(host, SilentReporter())))
    write = RunRecord.save

    def save(record: RunRecord) -> None:
        """Writes the record after another process had time to find its empty folder."""
        if not other.ident:
            other.start()
            other.join(0.5)
        write(record)

    monkeypatch.setattr(RunRecord, "save", save)
    RunRecord.start(host, "backup", {})
    other.join()
    assert healed == [[]]
    assert [record.state for record in load_records(host)] == ["running"]


def test_a_run_that_ends_while_its_record_is_looked_at_stays_finished(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = RunRecord.start(host, "backup", {})
    record.data["process"]["start"] = "0"
    record.save()
    seen = load_records(host)
    record.finish("finished", {"ok": True})
    monkeypatch.setattr(heal_module, "load_records", lambda _host: seen)
    assert heal(host, SilentReporter()) == []
    (after,) = load_records(host)
    assert (after.state, after.data["result"]) == ("finished", {"ok": True})


def killed(host: Host, journal: bytes) -> RunRecord:
    """What a killed run leaves behind."""
    record = RunRecord.start(host, "backup", {})
    record.data["process"]["start"] = "0"
    record.save()
    Path(record.journal(100)).write_bytes(journal)
    return record


def entry(path: Path) -> bytes:
    return json.dumps({"token": 7, "kind": FOLDER, "data": {"path": str(path)}}).encode() + b"\n"


def test_junk_in_a_journal_is_told_and_the_rest_undone(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    record = killed(host, b"\xff junk\n" + entry(folder) + b'{"token": 8, "ki')
    listener = Listener()
    assert heal(host, listener) == [record.id]
    assert not folder.exists()
    (told,) = [line for line in listener.lines if "cannot be understood" in line]
    assert f"guest 100: line 1 of {record.journal(100)}" in told and "xff junk" in told
    assert heal(host, listener) == []


def test_a_journal_that_cannot_be_read_keeps_nothing_else_from_being_cleaned_up(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    record = killed(host, entry(folder))
    Path(record.journal(101)).mkdir()
    listener = Listener()
    heal(host, listener)
    assert not folder.exists()
    (told,) = [line for line in listener.lines if "left as run" in line]
    assert f"cannot read the undo journal {record.journal(101)}: Is a directory" in told


def test_a_lock_that_dies_a_moment_later_is_waited_for(host: Host, tmp_path: Path) -> None:
    """What a killed run was just starting holds the locks that it inherited for another moment."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    killed(host, entry(folder))
    held, over = threading.Event(), threading.Event()

    def inherited() -> None:
        with hold(f"{host.paths.locks}/guest-100.lock", "a killed run"):
            held.set()
            over.wait(0.5)

    other = threading.Thread(target=inherited)
    other.start()
    held.wait()
    heal(host, SilentReporter())
    other.join()
    assert not folder.exists()


def test_records_of_good_runs_do_not_pile_up(host: Host) -> None:
    for number in range(KEEP_RECORDS + 2):
        folder = Path(host.paths.runs, f"20200101T000000Z-{number:04}")
        folder.mkdir(parents=True)
        (folder / "run.json").write_text('{"state": "finished"}', encoding="ascii")
    RunRecord.start(host, "backup", {})
    assert len(load_records(host)) == KEEP_RECORDS
