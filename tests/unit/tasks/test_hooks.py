# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hook scripts in runs whose guests are config files and whose captures only tell how far they came."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from engine.capture.model import Timings, Written
from engine.errors import GuestError, HookError, Interrupted, LockError, StorageError, UsageError
from engine.system.host import Host, Paths
from engine.system.locks import hold
from engine.system.report import SilentReporter
from engine.tasks import backup, backup_guest, hooks
from engine.tasks.record import load_records
from engine.tasks.requests import BackupRequest, Selection
from engine.tasks.results import RunResult

SCRIPT = """#!/bin/sh
echo "hello from $1"
echo "$@" >>{root}/calls
{{ echo "# $1"; env; }} >>{root}/environment
case $1 in {behave} esac
"""
MIDDLE = ["pre-stop", "pre-restart", "post-restart"]
GUEST = ["backup-start", *MIDDLE, "backup-end", "log-end"]


class Stage:
    """A node with two VMs and a script.

    :ivar mode: which the capture takes; :ivar fails: what goes wrong in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = Host("n1", Paths.under(str(root / "root")))
        configs = Path(self.host.paths.qemu_configs)
        configs.mkdir(parents=True)
        for vmid, name in ((100, "web"), (101, "db")):
            (configs / f"{vmid}.conf").write_text(f"name: {name}\nmemory: 64\n", encoding="utf-8")
        text = f"dir: nas\n\tpath {root}/nas\n\tcontent backup\n\n"
        Path(self.host.paths.storage_cfg).write_text(text, encoding="utf-8")
        self.mode = "snapshot"
        self.fails = ""
        self.script()

    def script(self, *behave: str) -> str:
        """:param behave: branches of a ``case`` over the phase."""
        path = self.root / "hook"
        path.write_text(SCRIPT.format(root=self.root, behave=" ".join(behave)), encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def run(self, *vmid: int | str, max_age: str | None = None, **options: Any) -> RunResult:
        given = {"storage": "nas", "lockwait": 0, "script": str(self.root / "hook"), **options}
        request = BackupRequest(Selection(vmid=vmid or (100,)), given, max_age=max_age)
        return backup.run_backup(self.host, request, SilentReporter())

    def calls(self) -> list[str]:
        path = self.root / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def phases(self) -> list[str]:
        return [line.split()[0] for line in self.calls()]

    def environment(self, phase: str) -> dict[str, str]:
        text = (self.root / "environment").read_text(encoding="utf-8").partition(f"# {phase}\n")[2].partition("# ")[0]
        pairs = (line.split("=", 1) for line in text.splitlines())
        return {key: value for key, value in pairs if key not in ("PWD", "SHLVL", "_", "OLDPWD")}


class Capture:
    """What the real captures do with the phases, without a guest."""

    timings = Timings()
    extension, size, disks = "vma", 4, ()

    def __init__(self, mode: str, fails: str) -> None:
        self.mode, self.fails = mode, fails

    def write_to(self, sink: Any, progress: Any) -> Written:
        if self.fails == "archive":
            raise GuestError("the disk broke")
        sink.write(b"1234")
        return Written()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(tmp_path)

    @contextlib.contextmanager
    def open_capture(_guest: Any, _mode: str, options: Any, _undo: Any, _report: Any) -> Iterator[Capture]:
        options.phases.begin(stage.mode)
        capture = Capture(stage.mode, stage.fails)
        if stage.mode == "stop":
            with options.phases.interruption() as restarting:
                try:
                    if stage.fails == "shutdown":
                        raise GuestError("it does not shut down")
                    yield capture
                finally:
                    restarting()
            return
        with options.phases.interruption():
            if stage.fails == "freeze":
                raise GuestError("it does not freeze")
        yield capture

    monkeypatch.setattr(backup_guest, "open_capture", open_capture)
    monkeypatch.setattr(backup_guest, "open_by_info", lambda host, info: None)
    return stage


def test_order_and_arguments(stage: Stage) -> None:
    assert stage.run(100, 101).ok
    guest = [f"{phase} snapshot" for phase in GUEST]
    expected = [f"{phase} {vmid}" for vmid in (100, 101) for phase in guest]
    assert stage.calls() == ["job-init", "job-start", *expected, "job-end"]


def test_environment(stage: Stage) -> None:
    (guest,) = stage.run().guests
    dump = f"{stage.root}/nas/dump"
    assert stage.environment("job-init") == {"STOREID": "nas"}
    target = {"STOREID": "nas", "DUMPDIR": dump}
    for phase in ("job-start", "job-end"):
        assert stage.environment(phase) == target
    of_guest = {**target, "VMTYPE": "qemu", "HOSTNAME": "web", "TARGET": guest.path, "LOGFILE": guest.log}
    for phase in GUEST:
        assert stage.environment(phase) == of_guest


def test_environment_without_a_storage(stage: Stage) -> None:
    plain = stage.root / "plain"
    plain.mkdir()
    (guest,) = stage.run(storage=None, dumpdir=str(plain)).guests
    assert guest.path is not None
    for phase in ("job-init", "job-start", "job-end"):
        assert stage.environment(phase) == {"DUMPDIR": str(plain)}
    assert os.path.samefile(stage.environment("backup-end")["TARGET"], guest.path)


def test_output_goes_to_the_logs(stage: Stage) -> None:
    result = stage.run()
    of_guest = Path(result.guests[0].log or "").read_text(encoding="utf-8")
    for phase in GUEST[:-1]:
        assert f"INFO: hook script: {phase}\n" in of_guest
        assert f"INFO: hello from {phase}\n" in of_guest
    of_run = Path(result.log or "").read_text(encoding="utf-8")
    for phase in ("job-init", "job-start", "job-end"):
        assert f"INFO: hello from {phase}\n" in of_run
    assert "INFO: 100: hello from log-end\n" in of_run


def test_the_log_is_there_when_its_end_is_told(stage: Stage) -> None:
    stage.script(
        'backup-end) [ ! -e "$LOGFILE" ] && [ -s "$TARGET" ] || exit 1;;', 'log-end) grep finished "$LOGFILE";;'
    )
    result = stage.run()
    assert result.ok and not result.guests[0].warnings


@pytest.mark.parametrize("phase", ["backup-start", "pre-stop"])
def test_a_guest_is_left_alone_if_the_script_says_so(stage: Stage, phase: str) -> None:
    stage.script(f"{phase}) [ $3 != 100 ] || exit 9;;")
    result = stage.run(100, 101)
    assert [guest.status for guest in result.guests] == ["failed", "ok"]
    error = result.guests[0].error or {}
    assert error["code"] == "hook" and f"{phase} snapshot 100` failed with exit status 9" in error["message"]
    before = GUEST[: GUEST.index(phase) + 1]
    assert stage.phases()[2:-1] == [*before, "backup-abort", "log-end", *GUEST]
    assert stage.phases()[-1] == "job-end"
    assert len(list((stage.root / "nas/dump").glob("*.vma"))) == 1


@pytest.mark.parametrize("phase", ["pre-restart", "post-restart"])
def test_a_failure_after_the_instant_fails_the_backup(stage: Stage, phase: str) -> None:
    stage.script(f"{phase}) exit 1;;")
    result = stage.run()
    assert (result.guests[0].error or {})["code"] == "hook"
    assert stage.phases()[2:-1] == ["backup-start", *MIDDLE, "backup-abort", "log-end"]
    assert list((stage.root / "nas/dump").glob("*.vma")) == []


@pytest.mark.parametrize("phase", ["pre-restart", "post-restart"])
def test_a_failure_after_a_shutdown_is_a_warning(stage: Stage, phase: str) -> None:
    stage.mode = "stop"
    stage.script(f"{phase}) exit 1;;")
    result = stage.run()
    assert result.ok
    (warning,) = result.guests[0].warnings
    assert f"{phase} stop 100` failed with exit status 1" in warning
    assert stage.phases()[2:-1] == GUEST


@pytest.mark.parametrize(("mode", "fails"), [("snapshot", "freeze"), ("stop", "shutdown"), ("stop", "archive")])
def test_what_was_begun_is_ended_after_a_failure(stage: Stage, mode: str, fails: str) -> None:
    stage.mode, stage.fails = mode, fails
    stage.script("pre-restart) exit 1;;")
    result = stage.run()
    assert (result.guests[0].error or {})["code"] == "guest"
    assert stage.phases()[2:-1] == ["backup-start", *MIDDLE, "backup-abort", "log-end"]


def test_a_failure_at_the_end_keeps_the_archive(stage: Stage) -> None:
    stage.script("backup-end) exit 1;;")
    (guest,) = stage.run().guests
    assert guest.status == "failed" and os.path.exists(guest.path or "")
    assert stage.phases()[2:-1] == ["backup-start", *MIDDLE, "backup-end", "backup-abort", "log-end"]


def test_failures_of_the_last_phases_are_warnings(stage: Stage) -> None:
    stage.script("backup-abort|log-end) exit 1;;")
    stage.fails = "archive"
    (guest,) = stage.run().guests
    assert [text.split("`")[1].split()[1] for text in guest.warnings] == ["backup-abort", "log-end"]
    stage.fails = ""
    again = stage.run()
    assert again.ok and len(again.guests[0].warnings) == 1


def test_a_run_that_may_not_begin(stage: Stage) -> None:
    stage.script("job-init) echo no tape; exit 1;;")
    with pytest.raises(HookError, match="job-init` failed with exit status 1: hello from job-init / no tape"):
        stage.run()
    assert stage.phases() == ["job-init"]
    assert load_records(stage.host) == []


@pytest.mark.parametrize(("phase", "statuses"), [("job-start", ["skipped"]), ("job-end", ["ok"])])
def test_a_run_that_fails_as_a_whole(stage: Stage, phase: str, statuses: list[str]) -> None:
    stage.script(f"{phase}) exit 1;;")
    with pytest.raises(HookError, match=f"{phase}` failed") as info:
        stage.run()
    assert [guest["status"] for guest in (info.value.result or {})["guests"]] == statuses
    guest = GUEST if phase == "job-end" else []
    assert stage.phases() == ["job-init", "job-start", *guest, *(["job-end"] if guest else []), "job-abort"]
    (record,) = load_records(stage.host)
    assert (record.state, record.data["result"]["state"]) == ("failed", "failed")
    log = Path(record.log).read_text(encoding="utf-8")
    assert f"{phase}` failed" in log and "hello from job-abort" in log


def test_the_script_may_make_the_target_usable(stage: Stage) -> None:
    config = Path(stage.host.paths.storage_cfg)
    config.rename(stage.root / "parked")
    stage.script(f"job-init) mv {stage.root}/parked {config};;")
    assert stage.run().ok
    config.unlink()
    stage.script()
    (stage.root / "calls").unlink()
    with pytest.raises(UsageError, match="storage 'nas' does not exist"):
        stage.run()
    assert stage.phases() == ["job-init", "job-abort"]


def test_a_run_that_does_not_get_its_lock_or_target_is_ended_for_the_script(stage: Stage) -> None:
    with hold(os.path.join(stage.host.paths.locks, "run.lock"), "a backup run"), pytest.raises(LockError):
        stage.run()
    shutil.rmtree(stage.root / "nas")
    (stage.root / "nas").write_text("a file", encoding="utf-8")
    with pytest.raises(StorageError):
        stage.run()
    assert stage.phases() == ["job-init", "job-abort"] * 2


def test_requests_that_make_no_sense_call_nothing(stage: Stage) -> None:
    for selection, options in ((("nobody",), {}), ((100,), {"tmpdir": "/does/not/exist"}), ((100,), {"mode": "warp"})):
        with pytest.raises(UsageError):
            stage.run(*selection, **options)
    assert stage.calls() == []


def test_a_script_that_cannot_be_used_is_refused_first(stage: Stage) -> None:
    (stage.root / "hook").chmod(0o644)
    for act in (stage.run, lambda: backup.plan_backup(stage.host, _request(stage))):
        with pytest.raises(HookError, match="it is not executable"):
            act()
    assert not (stage.root / "nas").exists()


def _request(stage: Stage) -> BackupRequest:
    return BackupRequest(Selection(vmid=[100]), {"storage": "nas", "script": str(stage.root / "hook")})


def test_a_plan_calls_nothing(stage: Stage) -> None:
    backup.plan_backup(stage.host, _request(stage))
    assert stage.calls() == []


def test_a_run_with_nothing_to_do(stage: Stage) -> None:
    stage.run()
    (stage.root / "calls").unlink()
    assert not stage.run(max_age="1h").changed
    assert stage.phases() == ["job-init", "job-start", "job-end"]


def test_jobs_and_defaults_name_scripts(stage: Stage) -> None:
    job = f"vzdump: night\n\tschedule 21:00\n\tvmid 100\n\tstorage nas\n\tscript {stage.root}/hook\n\n"
    Path(stage.host.paths.jobs_cfg).write_text(job, encoding="utf-8")
    assert backup.run_backup(stage.host, BackupRequest(job="night"), SilentReporter()).ok
    assert stage.phases() == ["job-init", "job-start", *GUEST, "job-end"]
    Path(stage.host.paths.vzdump_conf).write_text(f"script: {stage.root}/hook\n", encoding="utf-8")
    (stage.root / "calls").unlink()
    assert stage.run(script=None).ok
    assert stage.phases() == ["job-init", "job-start", *GUEST, "job-end"]


def interrupt_at(stage: Stage, phase: str, then: str = "") -> None:
    """The script has the run interrupted, and waits for ever; ``then`` are branches for other phases."""
    stage.script(f"{phase}) kill -TERM {os.getpid()}; sleep 600;;", then)


@pytest.mark.parametrize("phase", ["job-init", "job-start", *GUEST, "job-end"])
def test_a_signal_ends_a_script_that_hangs(stage: Stage, phase: str) -> None:
    interrupt_at(stage, phase)
    began = time.monotonic()
    with pytest.raises(Interrupted):
        stage.run(100, 101)
    assert time.monotonic() - began < 20
    called = stage.phases()
    if phase == "job-init":
        assert called == ["job-init"]
        return
    assert called[-1] == "job-abort"
    if phase in GUEST:
        assert called[-2] == "log-end" and ("backup-abort" in called) == (phase != "log-end")
        assert all(line.endswith("100") for line in stage.calls()[2:-1])
    if phase in MIDDLE[1:]:
        assert "post-restart" in called
    (record,) = load_records(stage.host)
    assert (record.state, record.journals()) == ("interrupted", [])


def test_a_run_that_is_told_to_end_waits_for_no_script(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "HURRY_SECONDS", 1)
    interrupt_at(stage, "pre-stop", "backup-abort|log-end|job-abort) sleep 600;;")
    began = time.monotonic()
    with pytest.raises(Interrupted):
        stage.run()
    assert time.monotonic() - began < 30
    (record,) = load_records(stage.host)
    log = Path(record.log).read_text(encoding="utf-8")
    assert log.count("did not end within 1 s and was ended") == 3


def test_a_guest_that_is_down_waits_for_no_script(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "DOWN_SECONDS", 1)
    stage.mode = "stop"
    stage.script("pre-restart) sleep 600;;")
    result = stage.run()
    assert result.ok
    assert "pre-restart stop 100` did not end within 1 s" in result.guests[0].warnings[0]
    assert stage.phases()[2:-1] == GUEST


def test_a_script_that_goes_away_fails_what_comes_next(stage: Stage) -> None:
    stage.script("pre-restart) rm $0;;")
    with pytest.raises(HookError, match="it does not exist"):
        stage.run()
    assert stage.phases()[-1] == "pre-restart"
