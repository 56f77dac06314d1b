# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``holdfast`` on a real container, a real VM and real file systems: backup, restore, trouble, kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import engine
import pytest

APPLETS = ("sh", "sleep", "init", "cat", "true")
CONFIG = """arch: amd64
hostname: box
memory: 64
rootfs: local:101/subvol-101-disk-0.subvol,size=1G
mp0: local:101/subvol-101-disk-1.subvol,mp=/data,backup=1,size=1G
mp1: local:101/subvol-101-disk-2.subvol,mp=/scratch,size=1G
"""


VM_CONFIG = """boot: order=scsi0
memory: 64
name: machine
scsi0: local:100/vm-100-disk-0.qcow2,size=48M
scsihw: virtio-scsi-pci
serial0: socket
virtio0: local:100/vm-100-disk-1.raw,size=16M
vmgenid: 66666666-2222-3333-4444-555555555555
"""


class Node:
    """A node whose state directories and storages are below one folder, driven by the command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dump = root / "backup" / "dump"
        self.images = root / "local" / "images"
        for folder in ("lxc", "qemu-server"):
            (root / "etc" / folder).mkdir(parents=True)
        (root / "etc" / "storage.cfg").write_text(
            f"dir: local\n\tpath {root}/local\n\tcontent images,rootdir\n\n"
            f"dir: backup\n\tpath {root}/backup\n\tcontent backup\n\n"
            f"dir: disk\n\tpath {root}/disk\n\tcontent backup\n\tis_mountpoint 1\n\n",
            encoding="utf-8",
        )
        self.env = {
            **os.environ,
            "HOLDFAST_ROOT": str(root),
            "HOLDFAST_NODE": "n1",
            "PYTHONPATH": str(Path(str(engine.__file__)).parents[1]),
        }

    def popen(self, *args: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "engine", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def call(self, *args: str, status: int = 0) -> str:
        """Output of a command that must end with that exit status; its complaints when that is not 0."""
        child = self.popen(*args)
        out, err = child.communicate(timeout=300)
        assert child.returncode == status, f"{args}: {child.returncode}\n{out}\n{err}"
        return err if status else out

    def json(self, *args: str) -> Any:
        return json.loads(self.call(*args, "--json"))

    def archives(self) -> list[str]:
        return [archive["volid"] for archive in self.json("archives")]

    def config(self, vmid: int, kind: str = "lxc") -> Path:
        return self.root / "etc" / kind / f"{vmid}.conf"

    def status(self, vmid: int) -> str:
        return next(str(guest["status"]) for guest in self.json("guests") if guest["vmid"] == vmid)

    def leftovers(self) -> list[str]:
        """Unfinished files beside archives, and journals."""
        found = [*self.root.glob("*/dump/*.dat"), *self.root.glob("*/dump/*.tmp"), *self.root.rglob("*.journal")]
        return [str(path) for path in found]


def make_container(node: Node) -> None:
    root, data, scratch = (node.images / "101" / f"subvol-101-disk-{number}.subvol" for number in range(3))
    for folder in ("bin", "dev", "proc", "sys", "etc", "data", "scratch", "tmp", "sbin"):
        (root / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin" / "init").symlink_to("../bin/busybox")
    (root / "etc" / "inittab").write_text("::sysinit:/bin/true\n::respawn:/bin/sleep 1000\n", encoding="utf-8")
    data.mkdir()
    scratch.mkdir()
    (data / "random").write_bytes(os.urandom(4 << 20))
    (data / "odd\nname").write_text("x", encoding="utf-8")
    os.chown(data / "odd\nname", 1000, 1001)
    (scratch / "temporary").write_text("not in backups", encoding="utf-8")
    node.config(101).write_text(CONFIG, encoding="utf-8")


def make_vm(node: Node) -> None:
    folder = node.images / "100"
    folder.mkdir(parents=True)
    blank = bytes(4 << 20)
    raw = folder / "vm-100-disk-1.raw"
    raw.write_bytes(os.urandom(4 << 20) + blank + os.urandom(4 << 20) + blank)
    source = folder / "source"
    source.write_bytes(os.urandom(8 << 20) + bytes(40 << 20))
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(folder / "vm-100-disk-0.qcow2")]
    subprocess.run(command, check=True)
    source.unlink()
    node.config(100, "qemu-server").write_text(VM_CONFIG, encoding="utf-8")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    make_container(node)
    yield node
    node.call("guest", "stop", "101", "--force")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    make_vm(node)
    yield node
    node.call("guest", "stop", "100", "--force")


def tree(path: Path) -> dict[str, tuple[Any, ...]]:
    """Names, kinds, owners, modes and contents below a folder."""
    found = {}
    for item in sorted(path.rglob("*")):
        info = item.lstat()
        content = item.read_bytes() if item.is_file() and not item.is_symlink() else b""
        link = os.readlink(item) if item.is_symlink() else ""
        found[str(item.relative_to(path))] = (info.st_mode, info.st_uid, info.st_gid, content, link)
    return found


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_backup_and_restore_under_a_new_id(node: Node) -> None:
    run = node.json("run", "box", "--storage", "backup", "--compress", "zstd", "--notes-template", "{guestname}")
    (guest,) = run["guests"]
    assert (guest["status"], guest["mode"], run["state"]) == ("ok", "stop", "finished")
    assert Path(guest["path"] + ".notes").read_text(encoding="utf-8") == "box"
    archive = Path(guest["path"])
    listing = subprocess.run(["tar", "--zstd", "-tf", archive], check=True, capture_output=True, text=True).stdout
    assert listing.splitlines()[0] == "./etc/vzdump/pct.conf"
    assert "temporary" not in listing
    plan = node.json("restore", "backup:latest/box", "201", "--check")
    assert [volume["key"] for volume in plan["volumes"]] == ["rootfs", "mp0", "mp1"]
    assert not node.config(201).exists()
    result = node.json("restore", "backup:latest/box", "201", "--unique")
    assert result["state"] == "restored"
    old, new = node.images / "101", node.images / "201"
    for number in (0, 1):
        assert tree(old / f"subvol-101-disk-{number}.subvol") == tree(new / f"subvol-201-disk-{number}.subvol")
    assert list((new / "subvol-201-disk-2.subvol").iterdir()) == []
    assert "already" in node.call("restore", "backup:latest/box", "201", status=2)
    node.call("guest", "start", "201")
    try:
        assert "it is running" in node.call("restore", "backup:latest/box", "201", "--force", status=1)
    finally:
        node.call("guest", "stop", "201", "--force")
    replaced = node.json("restore", "backup:latest/box", "201", "--force")
    assert len(replaced["freed"]) == 3
    assert len(list(new.iterdir())) == 3
    assert node.json("run", "101", "--storage", "backup", "--max-age", "1h")["changed"] is False
    assert node.leftovers() == []


def test_archives_that_are_damaged(node: Node) -> None:
    (guest,) = node.json("run", "101", "--storage", "backup", "--compress", "zstd")["guests"]
    archive = Path(guest["path"])
    good = archive.read_bytes()
    middle = len(good) // 2
    broken = {
        "truncated": good[:middle],
        "bit-flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "no archive": b"this is not an archive" * 1000,
        "empty": b"",
    }
    for what, data in broken.items():
        archive.write_bytes(data)
        message = node.call("restore", guest["archive"], "201", status=1)
        assert message.startswith("error: "), what
        assert not node.config(201).exists()
        assert not (node.images / "201").exists(), what
    assert node.leftovers() == []


def test_targets_that_cannot_be_used(node: Node) -> None:
    for argv, status, message in (
        (["--storage", "none"], 2, "storage 'none' does not exist"),
        (["--storage", "local"], 1, "for content 'backup'"),
        (["--storage", "disk"], 1, "expected to be a mount point"),
        (["--storage", "backup", "--mode", "warp"], 2, "warp"),
        (["--storage", "backup", "--warp"], 2, "--warp"),
    ):
        complaint = node.call("run", "101", *argv, status=status)
        assert message in complaint
        assert complaint.startswith("error: ")
    assert "there is no guest 'nobody'" in node.call("run", "nobody", "--storage", "backup", status=2)
    with mounted(node.root / "disk", "ro,size=1m"):
        assert "read-only" in node.call("run", "101", "--storage", "disk", status=1)
    (node.root / "backup").write_text("a file", encoding="utf-8")
    assert "is not a directory" in node.call("run", "101", "--storage", "backup", status=1)


def test_a_target_that_runs_full(node: Node) -> None:
    with mounted(node.root / "disk", "size=2m"):
        complaint = node.call("run", "101", "--storage", "disk", status=3)
        assert "full" in complaint or "No space" in complaint
        assert not list((node.root / "disk" / "dump").glob("*.tar.zst"))
        assert node.leftovers() == []
        assert node.archives() == []


def wait_for(condition: Any, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def growing(node: Node) -> bool:
    return any(path.stat().st_size > 0 for path in node.dump.glob("*.dat"))


def slow_run(node: Node, guest: str = "101") -> subprocess.Popen[str]:
    """A run that is in the middle of writing its archive, slowly."""
    child = node.popen("run", guest, "--storage", "backup", "--bwlimit", "512", "--compress", "0")
    wait_for(lambda: growing(node), "the archive to grow")
    return child


def test_kill_9_while_copying_and_the_next_run_heals(node: Node) -> None:
    node.call("guest", "start", "101")
    child = slow_run(node)
    child.kill()
    child.communicate()
    assert node.leftovers() != []
    assert node.archives() == []
    (run,) = node.json("status")["runs"]
    assert run["state"] == "aborted"
    node.call("run", "101", "--storage", "backup")
    assert node.leftovers() == []
    assert len(node.archives()) == 1
    (guest,) = node.json("guests")
    assert guest["status"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_undoes_everything(node: Node, number: int) -> None:
    node.call("guest", "start", "101")
    child = slow_run(node)
    child.send_signal(number)
    _out, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "interrupted by SIG" in err
    assert node.leftovers() == []
    assert node.archives() == []
    assert node.json("guests")[0]["status"] == "running"
    assert node.json("status")["runs"][0]["state"] == "interrupted"


def test_two_runs_at_once(node: Node) -> None:
    child = slow_run(node)
    complaint = node.call("run", "101", "--storage", "backup", "--lockwait", "0", status=1)
    assert f"pid {child.pid}" in complaint
    assert "hint: " in complaint
    child.terminate()
    child.communicate(timeout=60)
    assert node.leftovers() == []


def same_disks(node: Node, old: int, new: int) -> None:
    for drive in ("vm-{}-disk-0.qcow2", "vm-{}-disk-1.raw"):
        pair = [node.images / str(vmid) / drive.format(vmid) for vmid in (old, new)]
        subprocess.run(["qemu-img", "compare", *pair], check=True, capture_output=True)


@pytest.mark.parametrize("compress", ["0", "zstd", "gzip"])
def test_a_stopped_vm(machine: Node, compress: str) -> None:
    (guest,) = machine.json("run", "machine", "--storage", "backup", "--compress", compress)["guests"]
    assert (guest["status"], guest["mode"], guest["size"]) == ("ok", "stop", 64 << 20)
    assert machine.status(100) == "stopped"
    machine.call("vma", "verify", guest["path"])
    result = machine.json("restore", guest["archive"], "200")
    assert [volume["volid"] for volume in result["volumes"]] == [
        "local:200/vm-200-disk-0.qcow2",
        "local:200/vm-200-disk-1.raw",
    ]
    same_disks(machine, 100, 200)
    text = machine.config(200, "qemu-server").read_text(encoding="utf-8")
    assert "scsi0: local:200/vm-200-disk-0.qcow2,size=48M" in text
    assert "66666666-2222" not in text
    machine.call("guest", "start", "200")
    assert machine.status(200) == "running"
    machine.call("guest", "stop", "200", "--force")
    assert machine.leftovers() == []


def test_a_running_vm_stays_running(machine: Node) -> None:
    machine.call("guest", "start", "100")
    (guest,) = machine.json("run", "100", "--storage", "backup", "--compress", "zstd")["guests"]
    assert (guest["status"], guest["mode"]) == ("ok", "snapshot")
    assert machine.status(100) == "running"
    machine.call("restore", guest["archive"], "200")
    machine.call("guest", "stop", "100", "--force")
    same_disks(machine, 100, 200)
    assert machine.leftovers() == []


def test_kill_9_of_a_vm_backup_and_the_next_run_heals(machine: Node) -> None:
    machine.call("guest", "start", "100")
    child = slow_run(machine, "100")
    child.kill()
    child.communicate()
    assert machine.archives() == []
    assert machine.leftovers() != []
    (guest,) = machine.json("run", "100", "--storage", "backup")["guests"]
    assert guest["status"] == "ok"
    assert machine.status(100) == "running"
    assert machine.leftovers() == []
    machine.call("vma", "verify", guest["path"])


def test_damaged_vm_archives_leave_nothing(machine: Node) -> None:
    (guest,) = machine.json("run", "100", "--storage", "backup", "--compress", "zstd")["guests"]
    archive = Path(guest["path"])
    good = archive.read_bytes()
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for data in (good[:middle], flipped, b"nothing of this kind" * 1000, b""):
        archive.write_bytes(data)
        assert machine.call("restore", guest["archive"], "200", status=1).startswith("error: ")
        assert not machine.config(200, "qemu-server").exists()
        assert not (machine.images / "200").exists()
    assert machine.leftovers() == []
