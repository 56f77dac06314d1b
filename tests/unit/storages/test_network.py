# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounting of network storages, by fakes of the programs that need root and a server; real ones are in tests/nodes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Callable

import pytest
from engine.errors import ConfigError, DependencyError, StorageError, UsageError
from engine.storages import mounts, network
from engine.storages.base import Need
from engine.storages.dump import undo_partial
from engine.storages.network import NetworkStorage
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks.changes import apply_change
from engine.tasks.store_mounts import apply_storage, mount_storage, unmount_storage, with_password
from engine.tasks.stores import get_storage, load_storages, plan_storage

NEED = Need("backup", write=True)
SILENT = SilentReporter()
SOURCE = "nas1:/srv"

# Adds a line to the table of mounts; the type is the second argument, the two last ones are source and point.
MOUNT = """\
type=$2
echo "$@" >>{log}
[ ! -e {log}.refuse ] || {{ echo "mount.nfs: Connection refused" >&2; exit 32; }}
while [ $# -gt 2 ]; do shift; done
echo "36 22 0:3 / $2 rw - $type $1 rw" >>{table}
"""
UMOUNT = """\
echo "umount $@" >>{log}
[ ! -e {log}.busy ] || {{ echo "umount: target is busy" >&2; exit 32; }}
sed -i '$d' {table}
rm -f {log}.stale
"""
STAT = """\
[ ! -e {log}.stale ] || {{ echo "stat: cannot statx: Stale file handle" >&2; exit 1; }}
[ ! -e {log}.dead ] || {{ echo "stat: cannot statx: Input/output error" >&2; exit 1; }}
exec /usr/bin/stat "$@"
"""


class Programs:
    """Fakes of mount, umount, and stat. :ivar point: where the storage is mounted."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.point = str(root / "mnt" / "nas")
        self.host = Host("n1", Paths.under(str(root)))
        self._log = root / "log"
        self.table = root / "mountinfo"
        self.table.write_text("", encoding="ascii")
        folder = root / "bin"
        folder.mkdir()
        for name, body in (("mount", MOUNT), ("umount", UMOUNT), ("stat", STAT), ("mount.nfs", ""), ("mount.cifs", "")):
            path = folder / name
            path.write_text("#!/bin/sh\n" + body.format(log=self._log, table=self.table), encoding="ascii")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(network, "_SYSTEM_PATH", str(folder))
        monkeypatch.setattr(mounts, "MOUNTINFO", str(self.table))

    def let(self, what: str) -> None:
        """Let the fakes fail: refuse, busy, stale, dead."""
        Path(f"{self._log}.{what}").touch()

    def calls(self) -> list[str]:
        """What mount and umount were told since the last time."""
        lines = self._log.read_text(encoding="ascii").splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return lines

    def declare(self, **keys: object) -> NetworkStorage:
        wanted = {"type": "nfs", "server": "nas1", "export": "/srv", "path": self.point, "content": ["backup"], **keys}
        apply_change(self.host, plan_storage(self.host, "nas", wanted))
        return self.storage()

    def storage(self) -> NetworkStorage:
        storage = get_storage(self.host, "nas")
        assert isinstance(storage, NetworkStorage)
        return storage


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path, monkeypatch)


def refused(storage: NetworkStorage, message: str) -> StorageError:
    with pytest.raises(StorageError, match=message) as caught:
        storage.activate(NEED)
    assert caught.value.message.startswith("cannot use storage 'nas': ")
    assert caught.value.hint
    return caught.value


def test_it_is_mounted_once_and_unmounted(programs: Programs) -> None:
    storage = programs.declare(options=["vers=4.2", "noatime"])
    for _time in range(2):
        storage.activate(NEED)
    options = "soft,timeo=100,retrans=2,retry=0,vers=4.2,noatime"
    assert programs.calls() == [f"-t nfs -o {options} -- {SOURCE} {programs.point}"]
    assert sorted(os.listdir(programs.point)) == ["dump"]
    record = Path(programs.host.paths.mount_record("nas"))
    assert json.loads(record.read_text(encoding="utf-8")) == {"point": programs.point, "source": SOURCE}
    assert unmount_storage(programs.host, "nas")
    assert programs.calls() == [f"umount -- {programs.point}"]
    assert not record.exists()
    assert not unmount_storage(programs.host, "nas")
    mount_storage(programs.host, "nas")
    assert len(programs.calls()) == 1


def test_looking_mounts_too(programs: Programs) -> None:
    programs.declare().activate(Need("backup"))
    assert len(programs.calls()) == 1
    assert os.listdir(programs.point) == []


def test_a_server_that_refuses(programs: Programs) -> None:
    storage = programs.declare()
    programs.let("refuse")
    error = refused(storage, "Connection refused")
    assert "showmount --exports nas1" in error.hint
    assert not Path(programs.host.paths.mount_record("nas")).exists()


def test_a_server_that_takes_too_long(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MOUNT_SECONDS", 0.2)
    fake = Path(os.environ["PATH"].split(":")[0]) / "mount"
    fake.write_text("#!/bin/sh\nexec sleep 60\n", encoding="ascii")
    refused(programs.declare(), "did not finish within 0.2 s")


def test_a_mounted_server_that_is_gone(programs: Programs) -> None:
    storage = programs.declare()
    storage.activate(NEED)
    programs.let("dead")
    refused(storage, "Input/output error")
    with pytest.raises(StorageError, match="Input/output error"):
        storage.free_space()


def test_a_stale_mount_of_ours_is_replaced(programs: Programs) -> None:
    storage = programs.declare()
    storage.activate(NEED)
    programs.calls()
    programs.let("stale")
    storage.activate(NEED)
    assert [line.split()[0] for line in programs.calls()] == ["umount", "-t"]


def test_mounts_of_others(programs: Programs) -> None:
    storage = programs.declare()
    programs.table.write_text(f"36 22 0:3 / {programs.point} rw - tmpfs other rw\n", encoding="ascii")
    error = refused(storage, r"other \(tmpfs\) is mounted on .*, not nas1:/srv")
    assert f"umount {programs.point}" in error.hint
    os.makedirs(programs.point)
    programs.table.write_text(f"36 22 0:3 / {programs.point} rw - nfs4 {SOURCE}/ rw\n", encoding="ascii")
    storage.activate(NEED)
    assert not unmount_storage(programs.host, "nas")
    programs.let("stale")
    refused(storage, "Stale file handle")
    assert programs.calls() == []


def test_a_storage_in_use_is_not_removed(programs: Programs) -> None:
    storage = programs.declare()
    storage.activate(NEED)
    programs.let("busy")
    with pytest.raises(StorageError, match="target is busy") as caught:
        apply_storage(programs.host, "nas", plan_storage(programs.host, "nas", None), SILENT)
    assert "fuser" in caught.value.hint
    assert "nas" in load_storages(programs.host)
    Path(f"{programs._log}.busy").unlink()
    apply_storage(programs.host, "nas", plan_storage(programs.host, "nas", None), SILENT)
    assert load_storages(programs.host) == {}
    assert programs.table.read_text(encoding="ascii") == ""


def test_other_options_take_effect_with_the_next_mount(programs: Programs) -> None:
    programs.declare().activate(NEED)
    programs.calls()
    same = plan_storage(programs.host, "nas", {"type": "nfs", "prune_backups": {"keep_last": 3}})
    apply_storage(programs.host, "nas", same, SILENT)
    assert programs.calls() == []
    apply_storage(programs.host, "nas", plan_storage(programs.host, "nas", {"type": "nfs", "options": ["ro"]}), SILENT)
    assert programs.calls() == [f"umount -- {programs.point}"]
    programs.storage().activate(NEED)
    assert ",ro -- " in programs.calls()[0]


def test_a_missing_program_is_named(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_SYSTEM_PATH", "/nowhere")
    with pytest.raises(DependencyError, match=r"mount\.nfs") as caught:
        programs.declare().activate(NEED)
    assert "nfs-common" in caught.value.hint


def test_an_unfinished_archive_waits_for_its_storage(programs: Programs) -> None:
    storage = programs.declare()
    storage.activate(NEED)
    left = Path(storage.archives.path) / "vzdump-lxc-100-2026_03_10-02_00_00.tar.dat"
    left.write_bytes(b"half")
    data = {"partial": str(left), "final": str(left)[:-4] + ".zst", "storage": "nas", "point": programs.point}
    unmount_storage(programs.host, "nas")
    with pytest.raises(StorageError, match="storage 'nas' is not mounted"):
        undo_partial(data)
    assert left.exists()
    mount_storage(programs.host, "nas")
    undo_partial(data)
    assert not left.exists()


Declare = Callable[..., None]


@pytest.fixture
def share(programs: Programs) -> Declare:
    """Declares a share, or in check mode only plans to."""

    def declare(password: str | None, changes: bool, **keys: object) -> None:
        wanted = {"type": "cifs", "server": "s", "share": "b", "path": programs.point, "content": ["backup"], **keys}
        plan = plan_storage(programs.host, "nas", {k: v for k, v in wanted.items() if v}, purge=True)
        change = with_password(programs.host, "nas", plan, password)
        assert change.changed == changes
        assert "s3same" not in repr(change)
        apply_storage(programs.host, "nas", change, SILENT)

    return declare


def test_the_password_of_a_share(programs: Programs, share: Declare) -> None:
    path = Path(programs.host.paths.storage_password("nas"))
    share("s3same", True, username="anna")
    assert path.read_text(encoding="utf-8") == "password=s3same\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "s3same" not in Path(programs.host.paths.storage_cfg).read_text(encoding="utf-8")
    share("s3same", False, username="anna")
    share(None, False, username="anna")
    programs.storage().activate(NEED)
    (call,) = programs.calls()
    assert f"username=anna,credentials={path}" in call
    assert "s3same" not in call
    share("s3same2", True, username="anna")
    assert programs.calls() == [f"umount -- {programs.point}"]
    share(None, True)
    assert not path.exists()
    with pytest.raises(ConfigError, match="not a CIFS storage with a username"):
        share("s3same", True)
    with pytest.raises(ConfigError, match="more than one line"):
        share("s3same\nuid=0", True, username="anna")


def test_a_new_password_alone_leaves_the_file_as_it_is(programs: Programs, share: Declare) -> None:
    share("s3same", True, username="anna")
    path = Path(programs.host.paths.storage_cfg)
    text = "# by hand\nnonsense\n" + path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    share("s3same2", True, username="anna")
    assert path.read_text(encoding="utf-8") == text


def test_a_share_without_its_password(programs: Programs, share: Declare) -> None:
    share(None, True, username="anna")
    refused(programs.storage(), "no password is known for //s/b")
    assert programs.calls() == []


def test_only_network_storages_are_mounted(programs: Programs) -> None:
    apply_change(programs.host, plan_storage(programs.host, "disk", {"path": "/srv/disk"}))
    for ask in (mount_storage, unmount_storage):
        with pytest.raises(UsageError, match="its type is dir"):
            ask(programs.host, "disk")
