# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cleaning up beside runs that begin and end at the same moment."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks import heal as heal_module
from engine.tasks.heal import heal
from engine.tasks.record import RunRecord, load_records


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
