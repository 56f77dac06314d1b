# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is kept of runs, and the metrics made from it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from engine.cli import main
from engine.errors import HoldfastError
from engine.system.host import Host, Paths
from engine.tasks.metrics import metrics_path, write_metrics
from engine.tasks.outcomes import FORGET_SECONDS, load_outcomes, remember
from engine.tasks.results import GuestOutcome, RunResult

NOW = int(time.time())
LINE = re.compile(
    r"# (?:HELP [a-z_]+ [^\n]+|TYPE [a-z_]+ gauge)"
    r'|[a-z_]+\{(?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,(?!\}))?)+\} [0-9.e+]+'
)
"""A line of Prometheus' text format, as far as it is used here."""


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host("n1", Paths.under(str(tmp_path)))
    configs = Path(host.paths.qemu_configs)
    configs.mkdir(parents=True)
    for vmid in (100, 101):
        (configs / f"{vmid}.conf").write_text(f"name: vm{vmid}\n", encoding="utf-8")
    Path(host.paths.jobs_cfg).write_text("vzdump: night\n\tschedule 21:00\n\tall 1\n", encoding="utf-8")
    return host


def result(*states: bool | None, begin: int = NOW, job: str | None = "night", error: str = "") -> RunResult:
    """A run of the guests 100, 101, ...: good, failed, or not tried."""
    guests = [
        GuestOutcome(
            vmid, f"vm{vmid}", "qemu", {True: "ok", False: "failed", None: "skipped"}[state],
            started=None if state is None else begin + 1, duration=2.5, archive_size=4096 if state else None,
        )
        for vmid, state in enumerate(states, 100)
    ]  # fmt: skip
    run = RunResult("r", "n1", "nas", job, begin, guests=guests, state="finished", finished=begin + 9.0)
    run.error = {"message": error, "hint": "", "code": "storage"} if error else None
    return run


def metrics(host: Host) -> dict[str, float]:
    """The samples in the file, after a look at its form."""
    path = write_metrics(host)
    assert path is not None
    text = Path(path).read_text(encoding="utf-8")
    assert text.endswith("\n")
    names: list[str] = []
    samples = {}
    for line in text.splitlines():
        assert LINE.fullmatch(line), line
        if line.startswith("# HELP "):
            names.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2] == names[-1]
        else:
            # The samples of a metric stand together, below its HELP and TYPE.
            assert line.partition("{")[0] == names[-1]
            key, _blank, value = line.rpartition(" ")
            samples[key] = float(value)
    assert len(names) == len(set(names))
    return samples


@pytest.fixture
def textfiles(host: Host) -> Path:
    folder = Path(host.paths.textfiles)
    folder.mkdir(parents=True)
    return folder


def test_a_failure_keeps_the_last_good_backup(host: Host) -> None:
    remember(host, result(True, begin=NOW - 500))
    remember(host, result(False, begin=NOW))
    (guest,) = load_outcomes(host).guests.values()
    assert (guest.ok, guest.time, guest.success, guest.archive_size) == (False, NOW + 1, NOW - 499, 4096)
    assert os.stat(host.paths.outcomes).st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("runs", "differs"),
    [
        ([result(True)], False),
        ([result(False)], True),
        ([result(True), result(True)], False),
        ([result(True), result(False)], True),
        ([result(False), result(False)], False),
        ([result(False), result(True)], True),
        ([result(True, False), result(False, True)], True),
        ([result(True), result(True, True)], False),
        ([result(True), result(True, False)], True),
        ([result(True, False), result(True)], False),
        ([result(False), result(False, job="other")], True),
        ([result(True), result(error="the storage is gone")], True),
        ([result(error="the storage is gone"), result(error="the storage is gone")], False),
        ([result(error="the storage is gone"), result(True)], True),
        ([result(True), result(None, error="interrupted")], True),
        ([result(False), result(None, error="interrupted"), result(False)], True),
    ],
)
def test_what_a_change_is(host: Host, runs: list[RunResult], differs: bool) -> None:
    assert [remember(host, run) for run in runs][-1] is differs


def test_a_guest_that_does_not_exist_is_told_once(host: Host) -> None:
    run = result(True)
    run.guests.append(GuestOutcome(0, "typo", "unknown", "failed"))
    assert [remember(host, run), remember(host, run)] == [True, False]


def test_what_is_old_is_forgotten_and_what_is_broken_begins_anew(host: Host) -> None:
    remember(host, result(True, begin=NOW - FORGET_SECONDS - 10, job="old"))
    remember(host, result(True))
    assert list(load_outcomes(host).runs) == ["night"]
    for text in ("{", "[]", '{"runs": [1]}', '{"guests": [{"job": "x"}]}'):
        Path(host.paths.outcomes).write_text(text, encoding="utf-8")
        assert load_outcomes(host).runs == {}
        remember(host, result(True))
        assert len(load_outcomes(host).guests) == 1


def test_metrics(host: Host, textfiles: Path) -> None:
    remember(host, result(True, True, begin=NOW - 1000))
    remember(host, result(True, False))
    remember(host, result(True, begin=NOW + 50, job=None))
    samples = metrics(host)
    first, second = ('vmid="100",name="vm100",kind="qemu"', 'vmid="101",name="vm101",kind="qemu"')
    expected = {
        f"holdfast_guest_last_success_timestamp_seconds{{{first}}}": NOW + 51,
        f"holdfast_guest_last_success_timestamp_seconds{{{second}}}": NOW - 999,
        f'holdfast_backup_success{{job_id="night",{first}}}': 1,
        f'holdfast_backup_success{{job_id="night",{second}}}': 0,
        f'holdfast_backup_success{{job_id="",{first}}}': 1,
        f'holdfast_backup_last_run_timestamp_seconds{{job_id="night",{second}}}': NOW + 1,
        f'holdfast_backup_last_success_timestamp_seconds{{job_id="night",{second}}}': NOW - 999,
        f'holdfast_backup_duration_seconds{{job_id="night",{first}}}': 2.5,
        f'holdfast_backup_archive_size_bytes{{job_id="night",{second}}}': 4096,
        'holdfast_run_timestamp_seconds{job_id="night"}': NOW,
        'holdfast_run_success{job_id="night"}': 0,
        'holdfast_run_success{job_id=""}': 1,
        'holdfast_run_duration_seconds{job_id="night"}': 9,
        'holdfast_run_guests{job_id="night",status="ok"}': 1,
        'holdfast_run_guests{job_id="night",status="failed"}': 1,
    }
    assert {key: samples.get(key) for key in expected} == expected
    assert sorted(path.name for path in textfiles.iterdir()) == ["holdfast.prom"]
    assert (textfiles / "holdfast.prom").stat().st_mode & 0o777 == 0o644


def test_guests_and_jobs_that_are_gone_vanish(host: Host, textfiles: Path) -> None:
    remember(host, result(True, True))
    os.unlink(Path(host.paths.qemu_configs) / "101.conf")
    assert not any("101" in key for key in metrics(host))
    os.unlink(host.paths.jobs_cfg)
    samples = metrics(host)
    assert not any("night" in key for key in samples)
    # The backup is there all the same.
    assert samples == {
        'holdfast_guest_last_success_timestamp_seconds{vmid="100",name="vm100",kind="qemu"}': NOW + 1,
    }


def test_guests_without_any_backup_are_there(host: Host, textfiles: Path) -> None:
    assert list(metrics(host).values()) == [0, 0]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a{b}", "d\u00e4ta"])
def test_odd_names(host: Host, textfiles: Path, name: str) -> None:
    (Path(host.paths.qemu_configs) / "100.conf").write_text(f"name: {name}\n", encoding="utf-8")
    key = min(metrics(host))
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    assert f'name="{escaped}"' in key


def test_bytes_that_are_no_text_are_shown(host: Host, textfiles: Path) -> None:
    (Path(host.paths.qemu_configs) / "100.conf").write_bytes(b"name: a\xffb\n")
    assert any('name="a\\\\udcffb"' in key for key in metrics(host))


def test_where_metrics_go(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(Path(host.paths.etc).parent)
    assert metrics_path(host) is None
    assert main(["--root", root, "metrics"]) == 2
    assert "hint: name a file as metrics-file" in capsys.readouterr().err
    conf = Path(host.paths.vzdump_conf)
    conf.write_text(f"metrics-file: {root}/own/x.prom\n", encoding="utf-8")
    assert main(["--root", root, "metrics"]) == 0
    assert capsys.readouterr().out == f"written: {root}/own/x.prom\n"
    Path(host.paths.textfiles).mkdir(parents=True)
    assert metrics_path(host) == f"{root}/own/x.prom"
    conf.write_text("metrics-file: none\n", encoding="utf-8")
    assert metrics_path(host) is None
    conf.write_text("metrics-file: /x/y.txt\n", encoding="utf-8")
    assert metrics_path(host) == f"{host.paths.textfiles}/holdfast.prom"


def test_metrics_that_cannot_be_written(host: Host) -> None:
    conf = Path(host.paths.vzdump_conf)
    conf.write_text("metrics-file: /proc/none/x.prom\n", encoding="utf-8")
    with pytest.raises(HoldfastError, match=r"cannot write the metrics to /proc/none/x\.prom"):
        write_metrics(host)
