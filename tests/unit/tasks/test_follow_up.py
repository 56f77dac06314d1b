# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What follows a run, however it ends; the run itself is left out here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engine.errors import Interrupted, LockError, StorageError, UsageError
from engine.system.host import Host, Paths
from engine.tasks.follow_up import followed_up
from engine.tasks.outcomes import load_outcomes
from engine.tasks.record import RunRecord, open_record
from engine.tasks.requests import BackupRequest
from engine.tasks.results import GuestOutcome, RunResult

from tests.sinks import HookSink
from tests.unit.tasks.test_notify import Listener

JOB = BackupRequest(job="night")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host("n1", Paths.under(str(tmp_path)))
    Path(host.paths.textfiles).mkdir(parents=True)
    Path(host.paths.etc).mkdir()
    Path(host.paths.jobs_cfg).write_text("vzdump: night\n\tschedule 21:00\n\tall 1\n", encoding="utf-8")
    return host


def declare(host: Host, sink: HookSink) -> None:
    text = f"webhook: chat\n\turl http://localhost:{sink.port}/\n\trule failure\n"
    Path(host.paths.notifications_cfg).write_text(text, encoding="utf-8")


def fill(host: Host, result: RunResult, status: str = "ok") -> RunRecord:
    """What a run does with its result."""
    record = RunRecord.start(host, "backup", {})
    result.id, result.storage, result.options = record.id, "nas", {"mode": "snapshot"}
    result.guests = [GuestOutcome(100, "web", "qemu", status)]
    result.state, result.finished = "finished", result.started + 1
    record.finish("finished", result.to_dict())
    return record


def metrics(host: Host) -> str:
    return (Path(host.paths.textfiles) / "holdfast.prom").read_text(encoding="utf-8")


def test_a_good_run(host: Host) -> None:
    with HookSink() as sink:
        declare(host, sink)
        with followed_up(host, JOB, Listener()) as result:
            fill(host, result)
    assert sink.hooks == []
    assert 'holdfast_run_success{job_id="night"} 1\n' in metrics(host)
    assert result.warnings == []


def test_a_run_with_a_failed_guest_is_told(host: Host) -> None:
    with HookSink() as sink:
        declare(host, sink)
        with followed_up(host, JOB, Listener()) as result:
            fill(host, result, "failed")
    assert json.loads(sink.hooks[0].body)["run"]["counts"]["failed"] == 1


def test_what_cannot_be_told_is_a_warning_everywhere(host: Host) -> None:
    with HookSink() as sink:
        declare(host, sink)
    Path(host.paths.vzdump_conf).write_text("metrics-file: /proc/none/x.prom\n", encoding="utf-8")
    listener = Listener()
    with followed_up(host, JOB, listener) as result:
        record = fill(host, result, "failed")
    assert [text.partition(" to ")[0].partition(" about")[0] for text in result.warnings] == [
        "cannot write metrics: cannot write the metrics",
        "cannot tell 'chat'",
    ]
    assert "Connection refused" in result.warnings[1]
    assert listener.lines == result.warnings
    again = open_record(host, record.id)
    assert again.state == "finished"
    assert again.data["result"]["warnings"] == result.warnings


def test_nobody_hears_of_a_run_that_did_nothing(host: Host) -> None:
    with followed_up(host, JOB, Listener()) as result:
        fill(host, result, "fresh")
    assert load_outcomes(host).runs == {}


@pytest.mark.parametrize("error", [StorageError("the disk is gone"), LockError("another run"), OSError(28, "full")])
@pytest.mark.parametrize("request_", [JOB, BackupRequest()])
def test_a_run_that_could_not_begin_is_told(host: Host, error: Exception, request_: BackupRequest) -> None:
    with HookSink() as sink:
        declare(host, sink)
        with pytest.raises(type(error)), followed_up(host, request_, Listener()):
            raise error
    content = json.loads(sink.hooks[0].body)
    reason = "full" if isinstance(error, OSError) else str(error)
    assert content["title"] == f"vzdump backup status (n1): backup failed: {reason}"
    assert content["run"]["state"] == "failed"
    assert content["run"]["error"]["message"] == reason
    assert 'holdfast_run_success{job_id="' in metrics(host)


def test_a_job_that_makes_no_sense_is_told_and_a_call_is_not(host: Host) -> None:
    with HookSink() as sink:
        declare(host, sink)
        for request in (BackupRequest(), JOB):
            with pytest.raises(UsageError), followed_up(host, request, Listener()):
                raise UsageError("there is no guest 'x'")
    assert [json.loads(hook.body)["job_id"] for hook in sink.hooks] == ["night"]


def test_the_mails_of_a_job_that_could_not_begin(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sendmail").write_text(f"#!/bin/sh\ncat >{tmp_path}/mail\n", encoding="utf-8")
    (tmp_path / "sendmail").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with Path(host.paths.jobs_cfg).open("a", encoding="utf-8") as stream:
        stream.write("\tmailto a@example.com\n")
    with pytest.raises(StorageError), followed_up(host, JOB, Listener()):
        raise StorageError("the disk is gone")
    assert "To: a@example.com" in (tmp_path / "mail").read_text(encoding="utf-8")


def test_an_interrupted_run_is_told_with_its_guests(host: Host) -> None:
    with HookSink() as sink:
        declare(host, sink)
        with pytest.raises(Interrupted) as info, followed_up(host, JOB, Listener()) as result:
            fill(host, result, "skipped")
            result.state = "interrupted"
            raise Interrupted("interrupted by SIGTERM", result=result.to_dict())
    content = json.loads(sink.hooks[0].body)
    assert content["run"]["state"] == "interrupted"
    assert "100     web     todo" in content["message"]
    assert info.value.result is not None
    assert info.value.result["error"]["message"] == "interrupted by SIGTERM"
    assert open_record(host, result.id).data["result"]["error"]["code"] == "interrupted"


def test_a_broken_file_of_targets_is_a_warning(host: Host) -> None:
    Path(host.paths.notifications_cfg).mkdir()
    listener = Listener()
    with followed_up(host, JOB, listener) as result:
        fill(host, result, "failed")
    assert [text.partition(":")[0] for text in listener.lines] == ["cannot tell anybody about the run"]


def test_errors_that_nobody_expects_pass(host: Host) -> None:
    with pytest.raises(ZeroDivisionError), followed_up(host, JOB, Listener()):
        raise ZeroDivisionError
    assert load_outcomes(host).runs == {}
