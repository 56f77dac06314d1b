# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Storages on real NFS and SMB servers: backups to them and restores from them, and servers that go away; in a node."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from engine.cli import main
from engine.errors import StorageError
from engine.guests.lxc.tools import THAW
from engine.settings.storages import parse_storage_cfg
from engine.storages.base import Need
from engine.storages.dump import Archive
from engine.storages.mounts import Mounted, mount_table
from engine.storages.network import NetworkStorage
from engine.storages.registry import open_storage
from engine.system.report import SilentReporter
from engine.tasks.heal import heal
from engine.tasks.store_mounts import apply_storage, with_password
from engine.tasks.stores import get_storage, load_storages, plan_storage
from helpers.boxes import Box
from helpers.faults import HOLD, Fault
from helpers.process import Child, wait_for
from helpers.volumes import sh

from tests.demo.compare import differences
from tests.nodes.inside.servers import PASSWORD, NfsServer, Server, SmbServer

POINT = "/mnt/pve/nas"
THIN = "lvmthin: lvm\n\tvgname vg0\n\tthinpool thin\n\tcontent rootdir\n\n"
SECONDS = 400
"""By then a backup whose server is gone must have ended: it gives the server three minutes, and some requests wait."""


@pytest.fixture(scope="module")
def nfs() -> Iterator[NfsServer]:
    server = NfsServer(Path("/srv/nfs"))
    server.start()
    yield server
    server.come_back()
    server.stop()


@pytest.fixture(scope="module")
def smb() -> Iterator[SmbServer]:
    server = SmbServer(Path("/srv/smb"))
    server.start()
    yield server
    server.come_back()
    server.stop()


@pytest.fixture(params=["nfs", "cifs"])
def server(request: pytest.FixtureRequest) -> Server:
    """Either of them, running."""
    found: Server = request.getfixturevalue("nfs" if request.param == "nfs" else "smb")
    return found


@pytest.fixture
def box(thin: str, request: pytest.FixtureRequest) -> Iterator[Box]:
    """A node whose container has a thin volume and data for some seconds."""
    root = Path(tempfile.mkdtemp(prefix="net-"))
    root.chmod(0o755)
    box = Box(root, THIN)
    box.make(101, {"rootfs": "lvm:vm-101-disk-0,size=64M"}, fill=fill)
    yield box
    Child.end_all()
    box.close()
    for server in ("nfs", "smb"):
        if server in request.fixturenames:
            request.getfixturevalue(server).come_back()
    heal(box.host, SilentReporter())
    while topmost() is not None:
        sh("umount", "-l", POINT)
    for definition in load_storages(box.host).values():
        if definition.name in ("lvm", "local"):
            volumes = open_storage(definition, box.host).volumes
            for volid in (volid for vmid in (101, 201) for volid in volumes.list_volumes(vmid)):
                volumes.volume(volid.partition(":")[2]).free()
    shutil.rmtree(root)


def fill(tree: str) -> None:
    Path(tree, "root", "noise").write_bytes(os.urandom(12 << 20))


def declare(box: Box, section: str, password: str | None = PASSWORD) -> NetworkStorage:
    """Declare the storage ``nas`` as the module does."""
    change = plan_storage(box.host, "nas", parse_storage_cfg(section).storages["nas"])
    wanted = password if "username" in section else None
    apply_storage(box.host, "nas", with_password(box.host, "nas", change, wanted), SilentReporter())
    return nas(box)


def nas(box: Box) -> NetworkStorage:
    storage = get_storage(box.host, "nas")
    assert isinstance(storage, NetworkStorage)
    return storage


def topmost() -> Mounted | None:
    return next((one for one in reversed(list(mount_table())) if one.point == POINT), None)


def dumps(server: Server) -> Path:
    return server.folder / ("backups/dump" if server.kind == "cifs" else "dump")


def slow_backup(box: Box, mode: str = "snapshot", *options: str, fault: Fault | None = None) -> Child:
    """A backup that takes a quarter of a minute."""
    argv = ["--root", str(box.root), "--node", "n1", "run", "101", "--storage", "nas", "--mode", mode]
    return Child(lambda: main([*argv, "--compress", "zstd", "--bwlimit", "800", *options]), fault)


def partial_size() -> int:
    """As the node sees it; the server may know less yet."""
    return sum(path.stat().st_size for path in Path(POINT, "dump").glob("*.dat"))


def written(box: Box) -> int:
    """How far the container's writer came."""
    return (Path(f"/proc/{box.guest(101).init_pid()}/root") / "writer.log").stat().st_size


def expect_alive(box: Box) -> None:
    """The container runs, and its processes do."""
    assert box.guest(101).status() == "running"
    before = written(box)
    wait_for(lambda: written(box) > before, "the container's writer")


def answers(box: Box) -> bool:
    try:
        nas(box).activate(Need("backup"))
    except StorageError:
        return False
    return True


def test_backup_and_restore(box: Box, server: Server) -> None:
    original = box.files(101)
    storage = declare(box, server.section)
    box.start(101)
    for mode in ("snapshot", "suspend"):
        outcome = box.backup(101, mode, storage="nas", notes_template="{guestname} there", protected=mode == "suspend")
        assert outcome.mode == mode
        assert outcome.path is not None
        name = os.path.basename(outcome.path)
        there = dumps(server)
        assert (there / name).stat().st_size == outcome.archive_size
        assert (there / f"{name}.notes").read_text(encoding="utf-8") == "box101 there"
        assert (there / f"{name}.protected").exists() == (mode == "suspend")
        assert (there / name.replace(".tar.zst", ".log")).exists()
        assert Path(outcome.path).stat().st_mode & 0o077 in (0, 0o40)
    found = topmost()
    assert found is not None
    assert found.type.startswith(server.kind)
    box.guest(101).stop()
    result = box.restore(outcome, 201, storage="lvm")
    assert {volume.storage for volume in result.volumes} == {"lvm"}
    assert differences(original, box.files(201)) == []
    assert storage.free_space() > 0
    assert storage.mount.release()
    assert topmost() is None
    assert not storage.mount.release()
    (archive,) = [one for one in _archives(box) if not one.protected]
    nas(box).archives.remove(archive)
    assert not (dumps(server) / archive.filename).exists()
    with open(f"{POINT}/dump/held", "w", encoding="ascii"), pytest.raises(StorageError, match=r"in use|busy"):
        apply_storage(box.host, "nas", plan_storage(box.host, "nas", None), SilentReporter())
    assert "nas" in load_storages(box.host)
    apply_storage(
        box.host, "nas", with_password(box.host, "nas", plan_storage(box.host, "nas", None), None), SilentReporter()
    )
    assert topmost() is None
    assert not Path(box.host.paths.storage_password("nas")).exists()


def _archives(box: Box) -> list[Archive]:
    storage = nas(box)
    storage.activate(Need("backup"))
    return storage.archives.list_archives(101)


@pytest.mark.parametrize("how", ["stop", "vanish"])
def test_server_gone_during_a_backup(box: Box, server: Server, how: str) -> None:
    declare(box, server.section)
    box.start(101)
    child = slow_backup(box)
    wait_for(lambda: partial_size() > 1 << 20, "the archive to grow", 120)
    (server.stop if how == "stop" else server.vanish)()
    began = time.monotonic()
    expect_alive(box)
    ended = child.wait(SECONDS)
    print(f"{server.kind} {how}: ended after {time.monotonic() - began:.0f} s:\n{ended.out}{ended.err}")
    assert ended.status == 3, ended.err
    assert "backup of CT 101 (box101) failed" in ended.out + ended.err
    expect_alive(box)
    assert "snap_vm-101-disk-0_vzdump" not in sh("lvs", "--noheadings", "-o", "lv_name", "vg0")
    # The next run says at once, and in bounded time, that there is no server.
    began = time.monotonic()
    again = slow_backup(box).wait(SECONDS)
    print(f"next run: ended after {time.monotonic() - began:.0f} s:\n{again.out}{again.err}")
    assert again.status in (1, 3)
    assert "cannot use storage 'nas'" in again.out + again.err
    expect_alive(box)
    server.come_back()
    wait_for(lambda: answers(box), "the mount to recover", 120)
    outcome = box.backup(101, "snapshot", storage="nas")
    assert list(dumps(server).glob("*.dat")) == []
    assert (dumps(server) / os.path.basename(outcome.path or "")).stat().st_size == outcome.archive_size


def test_server_gone_while_frozen(box: Box, nfs: NfsServer) -> None:
    """The working copy is on NFS because somebody wanted it there."""
    declare(box, nfs.section)
    nas(box).activate(Need("backup", write=True))
    box.start(101)
    child = slow_backup(box, "suspend", "--tmpdir", POINT, fault=Fault(HOLD, at=f"journal {THAW}"))
    child.wait_held()
    nfs.vanish()
    child.resume()
    wait_for(lambda: box.guest(101).status() == "frozen", "the second pass", 60)
    began = time.monotonic()
    wait_for(lambda: box.guest(101).status() == "running", "the container to go on", 60)
    print(f"frozen for {time.monotonic() - began:.0f} s")
    expect_alive(box)
    ended = child.wait(SECONDS)
    assert ended.status == 3, ended.out + ended.err
    assert "does not answer" in ended.out + ended.err


def test_another_folder_of_the_same_name(box: Box, nfs: NfsServer) -> None:
    declare(box, nfs.section)
    first = box.backup(101, "stop", storage="nas")
    nfs.forget()
    with pytest.raises(OSError, match="Stale file handle"):
        os.listdir(f"{POINT}/dump")
    second = box.backup(101, "stop", storage="nas")
    assert [path.name for path in dumps(nfs).glob("*.tar.zst")] == [os.path.basename(second.path or "")]
    assert first.path != second.path
    nas(box).mount.release()
    sh("mount", "-t", "nfs", "-o", "vers=4.2,soft,timeo=50", f"127.0.0.1:{nfs.folder}", POINT)
    nfs.forget()
    with pytest.raises(StorageError, match="Stale file handle"):
        nas(box).activate(Need("backup"))
    assert topmost() is not None


def test_what_is_mounted_already(box: Box, nfs: NfsServer) -> None:
    storage = declare(box, nfs.section)
    os.makedirs(POINT, exist_ok=True)
    sh("mount", "-t", "tmpfs", "other", POINT)
    with pytest.raises(StorageError, match=r"other \(tmpfs\) is mounted on /mnt/pve/nas"):
        storage.activate(Need("backup", write=True))
    sh("umount", POINT)
    sh("mount", "-t", "nfs", "-o", "vers=4.2,soft", f"127.0.0.1:{nfs.folder}/", POINT)
    storage.activate(Need("backup", write=True))
    assert len([one for one in mount_table() if one.point == POINT]) == 1
    assert not storage.mount.release()
    assert topmost() is not None


Wrong = Callable[[Server], tuple[str, str]]


@pytest.mark.parametrize(
    ("kind", "old", "new", "password", "message"),
    [
        ("cifs", "", "", "wrong", "Permission denied"),
        ("cifs", "username anna", "username nobody1", PASSWORD, "Permission denied"),
        ("cifs", "share vm data", "share other", PASSWORD, "No such file"),
        ("cifs", "subdir /backups", "subdir /none", PASSWORD, "No such file"),
        ("nfs", "export /srv/nfs", "export /srv/none", PASSWORD, "No such file|reason given by server"),
        (
            "nfs",
            "server 127.0.0.1",
            "server no.such.host.invalid",
            PASSWORD,
            "resolve|not known|temporarily unavailable",
        ),
    ],
)
def test_refused(
    box: Box, nfs: NfsServer, smb: SmbServer, kind: str, old: str, new: str, password: str, message: str
) -> None:
    section = (smb if kind == "cifs" else nfs).section
    assert old in section
    storage = declare(box, section.replace(old, new), password)
    began = time.monotonic()
    with pytest.raises(StorageError, match=message) as caught:
        storage.activate(Need("backup", write=True))
    print(f"{time.monotonic() - began:.1f} s: {caught.value.message} | {caught.value.hint}")
    assert caught.value.message.startswith("cannot use storage 'nas': ")
    assert PASSWORD not in str(caught.value)
    assert caught.value.hint
    assert topmost() is None
    assert not Path(box.host.paths.mount_record("nas")).exists()


def test_the_password_is_for_root_alone(box: Box, smb: SmbServer) -> None:
    storage = declare(box, smb.section)
    path = Path(box.host.paths.storage_password("nas"))
    assert path.read_text(encoding="utf-8") == f"password={PASSWORD}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert PASSWORD not in Path(box.host.paths.storage_cfg).read_text(encoding="utf-8")
    assert PASSWORD not in " ".join(storage.mount.spec.options)
    storage.activate(Need("backup", write=True))
    path.unlink()
    assert storage.mount.release()
    with pytest.raises(StorageError, match="no password is known"):
        storage.activate(Need("backup"))
