# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores with real archives and volumes, in which only the writing of disk images is replaced."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from engine.errors import GuestError, IntegrityError, StorageError, UsageError
from engine.formats.vma_writer import VmaWriter
from engine.stream.sink import open_sink
from engine.system.files import write_atomic
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks import restore
from engine.tasks.changes import apply_change
from engine.tasks.heal import heal
from engine.tasks.record import load_records
from engine.tasks.requests import RestoreRequest
from engine.tasks.stores import plan_storage

CLUSTER = 65536
CONFIG = """#qmdump#map:scsi0:drive-scsi0:local:qcow2:
args: -kernel x
memory: 64
name: web
net0: virtio=BC:24:11:00:00:01,bridge=vmbr0
scsi0: local:100/vm-100-disk-0.qcow2,size=128K
"""
NAME = "vzdump-qemu-100-2026_03_10-02_00_00.vma.zst"
ARCHIVE = f"nas:backup/{NAME}"


def write_archive(path: Path, config: str = CONFIG) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_sink(str(path), "zst") as sink:
        writer = VmaWriter(
            sink.write,
            uuid=bytes(16),
            ctime=1_770_000_000,
            configs=[("qemu-server.conf", config.encode())],
            devices=[("drive-scsi0", 2 * CLUSTER)],
        )
        writer.write_clusters(1, 0, b"\x11" * 2 * CLUSTER)
        writer.close()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host("n1", Paths.under(str(tmp_path / "root")))
    for name, content in (("nas", ["backup"]), ("local", ["images", "rootdir"]), ("fast", ["images"])):
        apply_change(host, plan_storage(host, name, {"path": str(tmp_path / name), "content": content}))
    write_archive(tmp_path / "nas" / "dump" / NAME)
    return host


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replaces the copying of data by a note in each volume; more can be put into the list to happen then."""
    acts: list[Any] = []

    def fill_vm(host: Any, plan: Any, *_rest: Any) -> int:
        for volume in plan.volumes:
            Path(volume.path).write_bytes(b"data")
        for act in acts:
            act()
        return int(plan.result.size)

    monkeypatch.setattr(restore, "fill_vm", fill_vm)
    return acts


def images(tmp_path: Path, storage: str = "local") -> list[str]:
    base = tmp_path / storage / "images"
    return sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())


def run(host: Host, vmid: int = 200, **wanted: Any) -> Any:
    return restore.run_restore(host, RestoreRequest(ARCHIVE, vmid, **wanted), SilentReporter())


def config(host: Host, vmid: int = 200) -> str:
    return (Path(host.paths.qemu_configs) / f"{vmid}.conf").read_text(encoding="utf-8")


def test_a_plan_lists_volumes_and_config_and_changes_nothing(host: Host, tmp_path: Path) -> None:
    plan = restore.plan_restore(host, RestoreRequest(ARCHIVE, 200))
    assert (plan.state, plan.kind, plan.name, plan.changed) == ("planned", "qemu", "web", True)
    (volume,) = plan.volumes
    assert (volume.key, volume.volid, volume.format, volume.size) == (
        "scsi0",
        "local:200/vm-200-disk-0.qcow2",
        "qcow2",
        2 * CLUSTER,
    )
    assert plan.dropped == ["args: -kernel x"]
    assert "scsi0: local:200/vm-200-disk-0.qcow2,size=128K" in plan.config
    assert not os.path.exists(host.paths.qemu_configs)
    assert not (tmp_path / "local").exists() or images(tmp_path) == []


def test_a_guest_is_made_and_not_made_twice(host: Host, tmp_path: Path, filled: list[Any]) -> None:
    result = run(host, unique=True, storage="fast", overrides={"memory": 128})
    assert (result.state, result.size) == ("restored", 2 * CLUSTER)
    assert images(tmp_path, "fast") == ["200/vm-200-disk-0.qcow2"]
    text = config(host)
    assert "memory: 128" in text and "BC:24:11:00:00:01" not in text and "args" not in text
    assert load_records(host)[0].state == "finished"
    assert restore.plan_restore(host, RestoreRequest(ARCHIVE, 200)).state == "exists"
    with pytest.raises(UsageError, match="belongs to VM 200"):
        run(host)
    trusted = run(host, 201, trust_config=True)
    assert "args: -kernel x" in trusted.config


@pytest.mark.parametrize("vmid", [0, 99, 1_000_000_000])
def test_ids_that_no_guest_can_have(host: Host, vmid: int) -> None:
    for act in (lambda: run(host, vmid), lambda: restore.plan_restore(host, RestoreRequest(ARCHIVE, vmid))):
        with pytest.raises(UsageError, match=f"as guest {vmid}: ids of guests are numbers from 100 to 999999999"):
            act()


def test_a_failed_restore_leaves_nothing(host: Host, tmp_path: Path, filled: list[Any]) -> None:
    def fail() -> None:
        raise IntegrityError("the archive is damaged")

    filled.append(fail)
    with pytest.raises(IntegrityError):
        run(host)
    assert images(tmp_path) == []
    assert not os.path.exists(os.path.join(host.paths.qemu_configs, "200.conf"))
    (record,) = load_records(host)
    assert (record.state, record.journals()) == ("failed", [])


class Stopped:
    def __init__(self, status: str) -> None:
        self._status = status

    def status(self) -> str:
        return self._status


def old_guest(host: Host, tmp_path: Path, extra: str = "") -> None:
    folder = tmp_path / "local" / "images" / "200"
    folder.mkdir(parents=True)
    for number in (0, 1):
        (folder / f"vm-200-disk-{number}.qcow2").write_bytes(b"old")
    Path(host.paths.qemu_configs).mkdir(parents=True, exist_ok=True)
    text = f"name: old\n{extra}scsi0: local:200/vm-200-disk-0.qcow2\nscsi1: local:200/vm-200-disk-1.qcow2\n"
    (Path(host.paths.qemu_configs) / "200.conf").write_text(text, encoding="utf-8")


def test_force_swaps_the_guest_and_keeps_disks_that_do_not_come_back(
    host: Host, tmp_path: Path, filled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "open_by_info", lambda host, info: Stopped("stopped"))
    old_guest(host, tmp_path)
    filled.append(lambda: images(tmp_path) == ["200/vm-200-disk-0.qcow2", "200/vm-200-disk-1.qcow2"])
    result = run(host, force=True)
    assert result.freed == ["local:200/vm-200-disk-0.qcow2"]
    assert images(tmp_path) == ["200/vm-200-disk-1.qcow2", "200/vm-200-disk-2.qcow2"]
    assert "unused0: local:200/vm-200-disk-1.qcow2" in config(host)
    assert "name: web" in config(host)


def test_a_failed_replacement_keeps_the_old_guest(
    host: Host, tmp_path: Path, filled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "open_by_info", lambda host, info: Stopped("stopped"))
    old_guest(host, tmp_path)

    def fail() -> None:
        raise StorageError("full")

    filled.append(fail)
    with pytest.raises(StorageError):
        run(host, force=True)
    assert "name: old" in config(host)
    assert images(tmp_path) == ["200/vm-200-disk-0.qcow2", "200/vm-200-disk-1.qcow2"]


@pytest.mark.parametrize(
    ("status", "extra", "message"),
    [("running", "", "it is running"), ("stopped", "protection: 1\n", "protected"), ("stopped", "lock: x\n", "locked")],
)
def test_what_may_not_be_replaced(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, extra: str, message: str
) -> None:
    monkeypatch.setattr(restore, "open_by_info", lambda host, info: Stopped(status))
    old_guest(host, tmp_path, extra)
    with pytest.raises(GuestError, match=message):
        run(host, force=True)
    assert "name: old" in config(host)


def killed(host: Host, **wanted: Any) -> None:
    child = os.fork()
    if child == 0:
        run(host, **wanted)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_killed_restore_is_removed(host: Host, tmp_path: Path, filled: list[Any]) -> None:
    filled.append(lambda: os.kill(os.getpid(), signal.SIGKILL))
    killed(host)
    assert images(tmp_path) == ["200/vm-200-disk-0.qcow2"]
    assert len(heal(host, SilentReporter())) == 1
    assert images(tmp_path) == []


def test_a_swap_that_was_killed_in_the_middle_is_completed(
    host: Host, tmp_path: Path, filled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "open_by_info", lambda host, info: Stopped("stopped"))
    old_guest(host, tmp_path)

    def write_and_die(path: str, *rest: Any) -> None:
        write_atomic(path, *rest)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(restore, "write_atomic", write_and_die)
    killed(host, force=True)
    assert len(images(tmp_path)) == 3
    heal(host, SilentReporter())
    assert "name: web" in config(host)
    assert images(tmp_path) == ["200/vm-200-disk-1.qcow2", "200/vm-200-disk-2.qcow2"]


def test_archives_that_cannot_be_restored(host: Host, tmp_path: Path, filled: list[Any]) -> None:
    dump = tmp_path / "nas" / "dump"
    good = (dump / NAME).read_bytes()

    def attempt(archive: str, **wanted: Any) -> None:
        restore.run_restore(host, RestoreRequest(archive, 200, **wanted), SilentReporter())

    (dump / NAME).write_bytes(good[:20])
    with pytest.raises(IntegrityError):
        attempt(ARCHIVE)
    (dump / NAME).write_bytes(b"no archive" * 1000)
    with pytest.raises(IntegrityError):
        attempt(ARCHIVE)
    write_archive(dump / NAME, CONFIG.replace("drive-scsi0:", "drive-scsi9:"))
    with pytest.raises(IntegrityError, match="does not say where drive-scsi0 belongs"):
        attempt(ARCHIVE)
    write_archive(dump / NAME)
    for archive, error in (
        ("nas:backup/none.vma", StorageError),
        ("none:backup/x.vma", UsageError),
        ("nonsense", UsageError),
        ("nas:latest/300", StorageError),
        (str(tmp_path / "none.vma"), StorageError),
        (host.paths.storage_cfg, UsageError),
    ):
        with pytest.raises(error):
            attempt(archive)
    with pytest.raises(UsageError, match="storage 'gone' does not exist"):
        attempt(ARCHIVE, storage="gone")
    with pytest.raises(StorageError, match="for content 'images'"):
        attempt(ARCHIVE, storage="nas")
    with pytest.raises(UsageError, match="cannot override 'scsi0'"):
        attempt(ARCHIVE, overrides={"scsi0": "x"})
    assert not os.path.exists(host.paths.qemu_configs)
    attempt("nas:latest/100")
