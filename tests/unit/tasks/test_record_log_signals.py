# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records of runs, logs of guests, and signals."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
from engine.errors import Interrupted
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks.log import GuestLog, RunLog, clock, human
from engine.tasks.record import KEEP_RECORDS, RunRecord, load_records, tidy_records
from engine.tasks.results import GuestOutcome, RunResult, instant
from engine.tasks.signals import interruptible, stopping

from tests.unit.tasks.test_notify import Listener


def make_host(tmp_path: Path) -> Host:
    return Host("n1", Paths.under(str(tmp_path)))


def test_a_record_tells_whether_its_process_lives(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    record = RunRecord.start(host, "backup", {"guests": [100]})
    second = RunRecord.start(host, "backup", {})
    assert record.id != second.id
    loaded = {found.id: found for found in load_records(host)}
    assert loaded[record.id].alive
    assert loaded[record.id].state == "running"
    record.data["process"]["start"] = "0"
    record.save()
    assert not {found.id: found for found in load_records(host)}[record.id].alive
    record.finish("aborted", {"ok": False})
    again = {found.id: found for found in load_records(host)}[record.id]
    assert (again.state, again.data["result"]) == ("aborted", {"ok": False})


def test_a_record_cut_short_counts_as_dead(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    record = RunRecord.start(host, "backup", {})
    Path(record.folder, "run.json").write_text('{"id": "x', encoding="utf-8")
    (found,) = load_records(host)
    assert found.state == "running"
    assert not found.alive


def test_old_records_go_unless_something_is_left_to_undo(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    records = [RunRecord.start(host, "backup", {}) for _n in range(KEEP_RECORDS + 3)]
    for record in records:
        record.finish("finished")
    oldest = load_records(host)[-1]
    Path(oldest.journal(100)).write_text("", encoding="utf-8")
    tidy_records(host)
    left = load_records(host)
    assert len(left) == KEEP_RECORDS + 1
    assert oldest.id in [record.id for record in left]
    assert oldest.journals() == [(100, oldest.journal(100))]


def test_log_keeps_warnings_and_says_when_all_is_done(tmp_path: Path) -> None:
    path = tmp_path / "log" / "qemu-100.log"
    with GuestLog(str(path), SilentReporter(), "100: ") as log:
        log.info("first\n\nsecond")
        log.warn("careful")
        log.error("broken \udcff")
        for done in range(0, 1001):
            log.progress(done, 1000, 0, done // 2)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines[:2]] == ["INFO: first", "INFO: second"]
    assert log.warnings == ["careful"]
    assert [line for line in lines if "% (" in line] == lines[-1:]
    assert "INFO: 100% (1000.0 B of 1000.0 B) in 0s, read: " in lines[-1]


def test_a_log_of_a_guest_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    with GuestLog(f"{tmp_path}/log/qemu-100.log", SilentReporter()) as log:
        log.info("first")
        log.warn("careful")
    assert [text.partition(": cannot")[0] for text in log.warnings] == ["this guest's log is not kept", "careful"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with GuestLog(f"{tmp_path}/qemu-100.log", SilentReporter()) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
        try:
            log.info("more than there is room for")
            log.info("and more")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (told,) = log.warnings
    assert f"cannot write the log {tmp_path}/qemu-100.log: File too large" in told


def test_a_record_that_cannot_be_closed_is_a_warning(tmp_path: Path) -> None:
    record = RunRecord.start(make_host(tmp_path), "backup", {})
    Path(record.path).unlink()
    Path(record.path).mkdir()
    listener = Listener()
    record.close("finished", {}, listener)
    (told,) = listener.lines
    assert f"cannot write {record.path}: Is a directory" in told


def test_the_log_of_a_run_has_what_was_said_before_it_had_a_place(tmp_path: Path) -> None:
    log = RunLog(SilentReporter())
    log.info("before")
    log.open(str(tmp_path / "run.log"))
    log.warn("100: careful")
    log.progress(1, 2, 0, 1)
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["INFO: before", "WARN: 100: careful"]


def test_a_log_of_a_run_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    log = RunLog(SilentReporter())
    log.open(str(tmp_path / "none" / "run.log"))
    log.error("said anyhow")
    assert not (tmp_path / "none").exists()


def test_texts_for_people() -> None:
    assert [human(size) for size in (5, 1536, 3 << 30)] == ["5 B", "1.5 KiB", "3.0 GiB"]
    assert clock(3725) == "01:02:05"
    assert instant("at", 0) == {"at": "1970-01-01T00:00:00Z", "at_epoch": 0}
    assert instant("at", None) == {"at": None, "at_epoch": None}


def test_run_result_counts() -> None:
    run = RunResult("r", "n1", "nas", None, 0.0, guests=[GuestOutcome(100, "a", "qemu", "ok", size=7)])
    assert (run.ok, run.changed) == (True, True)
    run.guests.append(GuestOutcome(101, "b", "lxc", "failed"))
    assert not run.ok
    assert run.to_dict()["counts"] == {"ok": 1, "failed": 1, "skipped": 0, "fresh": 0}
    assert run.to_dict()["size"] == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_interrupts_and_later_ones_do_not_disturb_the_cleanup(number: int) -> None:
    cleaned = []
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="SIG"), interruptible():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            cleaned.append(True)
    assert cleaned == [True]
    assert stopping()
    with interruptible():
        assert not stopping()
    assert signal.getsignal(number) is before
