# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backup runs with guests that exist only as config files, and captures that only hand out bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from engine.capture.model import Timings, Written
from engine.errors import ConfigError, GuestError, Interrupted, LockError, StorageError, UsageError
from engine.rules.names import make_archive_name
from engine.system.host import Host, Paths
from engine.system.locks import hold
from engine.system.report import SilentReporter
from engine.tasks import backup, backup_guest
from engine.tasks import guests as guests_module
from engine.tasks.archives import find_archive
from engine.tasks.changes import apply_change
from engine.tasks.heal import heal
from engine.tasks.info import guests_info
from engine.tasks.record import RunRecord, load_records
from engine.tasks.requests import BackupRequest, Selection
from engine.tasks.results import RunResult
from engine.tasks.stores import plan_storage

from tests.unit.tasks.test_notify import Listener

ALL = Selection(all=True)
PLAIN = {"storage": "nas", "compress": "0", "lockwait": 0}
Behaviour = Callable[[int], None]


class FakeGuest:
    def __init__(self, info: Any) -> None:
        self.info = info

    def status(self) -> str:
        return "running" if self.info.vmid != 102 else "stopped"


class FakeCapture:
    extension = "vma"
    size = 8

    def __init__(self, vmid: int, mode: str, behave: Behaviour) -> None:
        self.vmid, self.mode, self.behave = vmid, mode, behave
        self.timings = Timings(freeze_seconds=0.5, guest_frozen=True)
        self.disks = [{"key": "scsi0", "volid": "local:x", "size": 8}]

    def write_to(self, sink: Any, progress: Any) -> Written:
        sink.write(b"1234")
        self.behave(self.vmid)
        sink.write(b"5678")
        progress.add(8, 0)
        return Written({"scsi0": {"read": 8}}, {"scsi0": "a" * 64})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host("n1", Paths.under(str(tmp_path / "root")))
    apply_change(host, plan_storage(host, "nas", {"path": str(tmp_path / "nas"), "content": ["backup"]}))
    configs = Path(host.paths.qemu_configs)
    configs.mkdir(parents=True)
    for vmid, name in ((100, "web"), (101, "db"), (102, "old")):
        text = f"name: {name}\nmemory: 64\nscsi0: local:{vmid}/vm-{vmid}-disk-0.raw,size=1G\nide2: none,media=cdrom\n"
        (configs / f"{vmid}.conf").write_text(text, encoding="utf-8")
    return host


@pytest.fixture
def behaviour(monkeypatch: pytest.MonkeyPatch) -> dict[int, Behaviour]:
    """What happens in the middle of each guest's capture."""
    acts: dict[int, Behaviour] = {}

    @contextlib.contextmanager
    def open_capture(guest: Any, mode: str, options: Any, undo: Any, report: Any) -> Iterator[FakeCapture]:
        assert os.path.isdir(options.workdir)
        options.phases.begin(mode)
        yield FakeCapture(guest.info.vmid, mode, acts.get(guest.info.vmid, lambda vmid: None))

    monkeypatch.setattr(backup_guest, "open_capture", open_capture)
    for module in (backup_guest, guests_module):
        monkeypatch.setattr(module, "open_by_info", lambda host, info: FakeGuest(info))
    return acts


def run(host: Host, selection: Selection = ALL, max_age: str | None = None, **options: Any) -> RunResult:
    request = BackupRequest(selection, {**PLAIN, **options}, max_age=max_age)
    return backup.run_backup(host, request, SilentReporter())


def dump(host: Host) -> list[str]:
    folder = Path(host.paths.etc).parent.parent / "nas" / "dump"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def endings(host: Host) -> list[str]:
    return [name.partition(".")[2] for name in dump(host)]


def statuses(result: RunResult) -> list[str]:
    return [guest.status for guest in result.guests]


def test_a_run_makes_archives_with_companions(host: Host, behaviour: dict[int, Behaviour]) -> None:
    result = run(host, Selection(vmid=["web"]), protected=True, notes_template="{guestname} on {node}")
    assert result.ok and result.changed
    (guest,) = result.guests
    assert (guest.status, guest.mode, guest.requested_mode, guest.size, guest.archive_size) == (
        "ok",
        "snapshot",
        "snapshot",
        8,
        8,
    )
    assert guest.timings["freeze_seconds"] == 0.5
    assert guest.disks == [{"key": "scsi0", "volid": "local:x", "size": 8, "read": 8}]
    assert endings(host) == ["log", "vma", "vma.notes", "vma.protected", "vma.record"]
    assert guest.digests == {"scsi0": "a" * 64}
    assert guest.path is not None and guest.log is not None
    assert Path(guest.path).read_bytes() == b"12345678"
    assert Path(guest.path + ".notes").read_text(encoding="utf-8") == "web on n1"
    assert "finished backup of VM 100" in Path(guest.log).read_text(encoding="utf-8")
    (record,) = load_records(host)
    assert (record.state, record.journals()) == ("finished", [])
    assert record.data["result"]["counts"]["ok"] == 1
    assert result.log == record.log
    said = Path(record.log).read_text(encoding="utf-8")
    assert "INFO: 100: adding notes to the backup\n" in said
    assert "INFO: 100: marking the backup as protected\n" in said
    assert "INFO: 100: ionice priority: 7\n" in said


def test_scratch_files_of_a_container_are_where_its_mapped_users_get_through(
    host: Host, behaviour: dict[int, Behaviour], monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = Path(host.paths.lxc_configs)
    configs.mkdir(parents=True)
    (configs / "103.conf").write_text("hostname: ct\nrootfs: local:103/subvol-103-disk-0.subvol\n", encoding="utf-8")
    monkeypatch.setattr(backup_guest, "filesystem_type", lambda path: "btrfs")
    (guest,) = run(host, Selection(vmid=["103"])).guests
    folder = f"/var/tmp/vzdumptmp{os.getpid()}_103"
    assert guest.log is not None
    assert f"files of the container go to {folder}\n" in Path(guest.log).read_text(encoding="utf-8")
    assert not os.path.exists(folder)


def test_a_failing_guest_does_not_stop_the_others(host: Host, behaviour: dict[int, Behaviour]) -> None:
    def fail(vmid: int) -> None:
        raise GuestError("the disk broke", hint="replace it")

    behaviour[100] = fail
    result = run(host)
    assert statuses(result) == ["failed", "ok", "ok"]
    assert not result.ok
    assert result.guests[0].error == {"message": "the disk broke", "hint": "replace it", "code": "guest"}
    assert result.guests[0].archive is None
    assert endings(host) == ["log", "log", "vma", "vma.record", "log", "vma", "vma.record"]
    assert load_records(host)[0].state == "finished"


def test_fresh_guests_are_left_alone(host: Host, behaviour: dict[int, Behaviour]) -> None:
    run(host, Selection(vmid=[100]))
    plan = backup.plan_backup(host, BackupRequest(ALL, PLAIN, max_age="1h"))
    assert [guest.action for guest in plan.guests] == ["fresh", "backup", "backup"]
    assert plan.guests[0].archive is not None and plan.guests[1].archive is None
    assert plan.guests[0].reason == f"{plan.guests[0].archive} is younger than 1h"
    assert statuses(run(host, max_age="1h")) == ["fresh", "ok", "ok"]
    before, records = dump(host), len(load_records(host))
    again = run(host, max_age="1h")
    assert statuses(again) == ["fresh"] * 3
    assert again.ok and not again.changed
    assert (dump(host), len(load_records(host))) == (before, records)


def test_an_empty_file_is_no_fresh_backup(host: Host, behaviour: dict[int, Behaviour]) -> None:
    (Path(host.paths.etc).parent.parent / "nas" / "dump" / put(host, 100, 0)).write_bytes(b"")
    assert statuses(run(host, Selection(vmid=[100]), max_age="1h")) == ["ok"]


def test_a_storage_that_is_away_is_told(host: Host, behaviour: dict[int, Behaviour]) -> None:
    for name, more in (
        ("away", {"is_mountpoint": "yes"}),
        ("off", {"disable": True}),
        ("other", {"content": ["rootdir"]}),
    ):
        path = str(Path(host.paths.etc) / name)
        apply_change(host, plan_storage(host, name, {"path": path, "content": ["backup"], **more}))
    warnings: list[str] = []
    assert guests_info(host, warnings.append)
    (warning,) = warnings
    assert warning.startswith("what lies on storage 'away' is not known: ")


def test_a_clock_that_was_wrong_costs_no_archive(host: Host, behaviour: dict[int, Behaviour]) -> None:
    web = Selection(vmid=["web"])
    run(host, web, prune_backups="keep-last=1")
    (old,) = Path(host.paths.etc).parent.parent.glob("nas/dump/*.vma")
    ahead = old.with_name("vzdump-qemu-100-2099_01_01-00_00_00.vma")
    old.rename(ahead)
    guest = run(host, web, prune_backups="keep-last=1").guests[0]
    assert Path(guest.path or "").exists()
    assert [text for text in guest.warnings if "is kept although the retention would remove it" in text]
    # Nor does it hide that others are missing, or stand before them.
    assert find_archive(host, "nas:latest/100").volid == guest.archive
    warnings: list[str] = []
    (row,) = (row for row in guests_info(host, warnings.append) if row["vmid"] == 100)
    assert row["newest"]["volid"] == guest.archive
    Path(guest.path or "").unlink()
    (row,) = (row for row in guests_info(host, warnings.append) if row["vmid"] == 100)
    assert (row["newest"], row["archives"]) == (None, 1)
    assert warnings == []
    assert find_archive(host, "nas:latest/100").archive.path == str(ahead)


def test_a_run_for_nobody_says_so(host: Host, behaviour: dict[int, Behaviour]) -> None:
    listener = Listener()
    result = backup.run_backup(host, BackupRequest(Selection(tags=["none"]), PLAIN), listener)
    assert (result.ok, result.changed, result.guests) == (True, False, [])
    assert "no guest of this node is selected" in listener.lines


def test_what_a_killed_run_left_is_in_the_log_of_the_next(host: Host, behaviour: dict[int, Behaviour]) -> None:
    killed = RunRecord.start(host, "backup", {})
    killed.data["process"]["start"] = "0"
    killed.save()
    result = run(host)
    assert f"run {killed.id} of backup did not end properly" in Path(result.log or "").read_text(encoding="utf-8")


def test_a_plan_changes_nothing(host: Host, behaviour: dict[int, Behaviour]) -> None:
    plan = backup.plan_backup(host, BackupRequest(ALL, PLAIN))
    assert [(guest.vmid, guest.action, guest.mode) for guest in plan.guests] == [
        (100, "backup", "snapshot"),
        (101, "backup", "snapshot"),
        (102, "backup", "stop"),
    ]
    disks = plan.guests[0].disks
    assert [(disk["key"], disk["included"], disk["size"]) for disk in disks] == [
        ("ide2", False, None),
        ("scsi0", True, 1 << 30),
    ]
    assert plan.sources["storage"] == "call"
    assert dump(host) == []
    assert not os.path.exists(host.paths.lib)


def test_guests_that_do_not_exist_fail_and_do_not_stop_the_others(host: Host, behaviour: dict[int, Behaviour]) -> None:
    wanted = Selection(vmid=[100, 7654, "typo"])
    plan = backup.plan_backup(host, BackupRequest(wanted, PLAIN))
    assert [(guest.vmid, guest.name, guest.action) for guest in plan.guests] == [
        (100, "web", "backup"),
        (7654, "7654", "missing"),
        (0, "typo", "missing"),
    ]
    result = run(host, wanted)
    assert statuses(result) == ["ok", "failed", "failed"]
    assert not result.ok
    assert result.guests[1].error is not None
    assert "there is no guest '7654'" in result.guests[1].error["message"]
    assert backup.plan_backup(host, BackupRequest(wanted, PLAIN, max_age="1h")).changed
    with pytest.raises(UsageError, match="there is no guest 'typo' on node 'n1'") as info:
        run(host, Selection(vmid=["typo"]))
    assert "100 (web)" in info.value.hint


def test_a_broken_config_is_a_matter_of_its_own_guest(host: Host) -> None:
    path = Path(host.paths.qemu_configs) / "101.conf"
    path.write_text("name: db\nthis is no line\n", encoding="utf-8")
    guests = guests_module.list_guests(host)
    assert [info.name for info in guests] == ["web", "db", "old"]
    assert guests_module.open_by_info(host, guests[0]).info.vmid == 100
    with pytest.raises(ConfigError, match="line 2"):
        guests_module.open_by_info(host, guests[1])


def put(host: Host, vmid: int, days: int) -> str:
    folder = Path(host.paths.etc).parent.parent / "nas" / "dump"
    folder.mkdir(parents=True, exist_ok=True)
    name = make_archive_name("qemu", vmid, int(time.time()) - days * 86400, "").filename
    (folder / name).write_bytes(b"x")
    return name


def test_only_a_good_backup_prunes_and_only_its_own_guest(host: Host, behaviour: dict[int, Behaviour]) -> None:
    old = {vmid: put(host, vmid, 3) for vmid in (100, 101, 102)}

    def fail(vmid: int) -> None:
        raise GuestError("no")

    behaviour[101] = fail
    result = run(host, Selection(vmid=[100, 101]), prune_backups={"keep_last": 1})
    assert result.guests[0].pruned == [f"nas:backup/{old[100]}"]
    assert result.guests[1].pruned == []
    assert old[100] not in dump(host)
    assert {old[101], old[102]} <= set(dump(host))


def test_a_full_quota_is_noticed_before_the_guest_is_touched(host: Host, behaviour: dict[int, Behaviour]) -> None:
    touched: list[int] = []
    behaviour[100] = touched.append
    put(host, 100, 1)
    result = run(host, Selection(vmid=[100]), prune_backups="keep-last=1", remove=False)
    assert statuses(result) == ["failed"]
    assert "keeps at most 1 backups" in (result.guests[0].error or {})["message"]
    assert touched == []


def test_a_locked_guest_fails_alone(host: Host, behaviour: dict[int, Behaviour]) -> None:
    config = Path(host.paths.qemu_configs) / "100.conf"
    config.write_text(config.read_text(encoding="utf-8") + "lock: migrate\n", encoding="utf-8")
    with hold(os.path.join(host.paths.locks, "guest-101.lock"), "restore of guest 101"):
        result = run(host)
    assert statuses(result) == ["failed", "failed", "ok"]
    assert "it is locked (migrate)" in (result.guests[0].error or {})["message"]
    assert "restore of guest 101" in (result.guests[1].error or {})["message"]


def test_a_second_run_names_the_first(host: Host, behaviour: dict[int, Behaviour]) -> None:
    lock = os.path.join(host.paths.locks, "run.lock")
    with hold(lock, "a backup run"), pytest.raises(LockError, match=rf"a backup run \(pid {os.getpid()}"):
        run(host)
    assert dump(host) == []


def test_a_signal_undoes_the_current_guest_and_skips_the_rest(host: Host, behaviour: dict[int, Behaviour]) -> None:
    behaviour[101] = lambda vmid: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted) as info:
        run(host)
    assert info.value.result is not None
    assert [guest["status"] for guest in info.value.result["guests"]] == ["ok", "failed", "skipped"]
    assert endings(host) == ["log", "vma", "vma.record", "log"]
    (record,) = load_records(host)
    assert (record.state, record.journals()) == ("interrupted", [])


def test_a_killed_run_is_cleaned_up_by_the_next(host: Host, behaviour: dict[int, Behaviour]) -> None:
    behaviour[101] = lambda vmid: os.kill(os.getpid(), signal.SIGKILL)
    child = os.fork()
    if child == 0:
        run(host)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [name for name in dump(host) if name.endswith(".dat")] != []
    (record,) = load_records(host)
    assert (record.state, record.alive) == ("running", False)
    assert [name for name in os.listdir(record.folder) if name.startswith("vzdumptmp")] != []
    behaviour.clear()
    result = run(host, Selection(vmid=[100]))
    assert result.ok
    assert not [name for name in dump(host) if name.endswith(".dat")]
    assert sorted(os.listdir(record.folder)) == ["run.json", "run.log"]
    records = {found.id: found for found in load_records(host)}
    assert (records[record.id].state, records[record.id].journals()) == ("aborted", [])
    assert heal(host, SilentReporter()) == []


@pytest.mark.parametrize(
    ("selection", "options", "message"),
    [
        (ALL, {"storage": "none"}, "storage 'none' does not exist"),
        (Selection(vmid=["nobody"]), {}, "there is no guest 'nobody'"),
        (Selection(), {}, "no guest is selected"),
        (Selection(vmid=[100], all=True), {}, "exclude each other"),
        (ALL, {"mode": "warp"}, "mode"),
        (ALL, {"warp": 1}, "there is no backup option 'warp'"),
        (ALL, {"notes_template": "{{foo}}"}, "foo"),
        (ALL, {"tmpdir": "/does/not/exist"}, "tmpdir"),
    ],
)
def test_requests_that_make_no_sense(
    host: Host, behaviour: dict[int, Behaviour], selection: Selection, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(host, selection, **options)
    assert dump(host) == []


def test_a_target_that_nobody_named_is_told_apart(host: Host) -> None:
    for content in (None, ["images"]):
        if content:
            apply_change(host, plan_storage(host, "local", {"path": "/var/lib/vz", "content": content}))
        with pytest.raises((UsageError, StorageError), match=r"no storage .* is named.*'local'") as caught:
            backup.plan_backup(host, BackupRequest(ALL, {}))
        assert "holdfast storages" in caught.value.hint
    with pytest.raises(StorageError, match=r"^cannot use storage 'local'"):
        backup.plan_backup(host, BackupRequest(ALL, {"storage": "local"}))


def test_jobs_give_selection_and_options(host: Host, behaviour: dict[int, Behaviour]) -> None:
    text = "vzdump: night\n\tschedule 21:00\n\tvmid 100,101\n\tstorage nas\n\tcompress gzip\n\tmode stop\n\n"
    Path(host.paths.jobs_cfg).write_text(text, encoding="utf-8")
    plan = backup.plan_backup(host, BackupRequest(job="night", options={"compress": "0"}))
    assert [guest.vmid for guest in plan.guests] == [100, 101]
    assert (plan.options["mode"], plan.options["compress"]) == ("stop", "0")
    narrowed = backup.plan_backup(host, BackupRequest(Selection(vmid=[102]), job="night"))
    assert [guest.vmid for guest in narrowed.guests] == [102]
    with pytest.raises(UsageError, match="job 'none' does not exist"):
        backup.plan_backup(host, BackupRequest(job="none"))


def test_a_plain_folder_is_a_target(host: Host, behaviour: dict[int, Behaviour], tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    request = BackupRequest(Selection(vmid=[100]), {"dumpdir": str(tmp_path / "plain"), "compress": "0"})
    assert backup.run_backup(host, request, SilentReporter()).ok
    assert len(list((tmp_path / "plain").glob("*.vma"))) == 1
    missing = BackupRequest(Selection(vmid=[100]), {"dumpdir": str(tmp_path / "none")})
    with pytest.raises(StorageError, match="does not exist"):
        backup.run_backup(host, missing, SilentReporter())
