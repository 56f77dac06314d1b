# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A node with containers made from a static busybox, driven by the engine's tasks."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Iterator

from engine.guests.lxc.guest import LxcGuest
from engine.storages.base import Need
from engine.storages.mounts import mounts_below, unmount
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks.backup import run_backup
from engine.tasks.guests import find_by_id, list_guests, open_by_info
from engine.tasks.requests import BackupRequest, RestoreRequest, Selection
from engine.tasks.restore import run_restore
from engine.tasks.results import GuestOutcome, RestoreResult
from engine.tasks.stores import get_storage

from tests.demo.compare import Entry, tree
from tests.lab.files import awkward

OWNER = 100000
STORAGES = """\
dir: local
\tpath {root}/local
\tcontent images,rootdir

dir: backup
\tpath {root}/backup
\tcontent backup

"""
FOLDERS = ("bin", "sbin", "dev", "proc", "sys", "etc", "root", "run", "tmp", "var/tmp", "var/run")
APPLETS = ("init", "sh", "sleep", "cat", "true", "mkdir", "poweroff", "halt", "reboot", "touch")
INITTAB = """\
::sysinit:/bin/mkdir -p /var/log
::once:/bin/writer
"""
WRITER = """\
#!/bin/sh
n=0
for folder in "" /data /data/inner; do
    [ -d "$folder/" ] && : >"$folder/writer.log"
done
while :; do
    n=$((n + 1))
    echo $n >>/writer.log
    for folder in /data /data/inner; do
        [ -d $folder ] && echo $n >>$folder/writer.log
    done
    sleep 0.02
done
"""


class Box:
    """:param root: folder of the node; :param storages: more sections of ``storage.cfg``."""

    def __init__(self, root: Path, storages: str = "") -> None:
        self.root = root
        self.host = Host("n1", Paths.under(str(root)))
        os.makedirs(self.host.paths.lxc_configs)
        for name in ("local", "backup"):
            (root / name).mkdir()
        Path(self.host.paths.storage_cfg).write_text(STORAGES.format(root=root) + storages, encoding="ascii")
        self.lines: list[str] = []

    def make(
        self,
        vmid: int,
        mounts: dict[str, str],
        *,
        owner: int = 0,
        config: str = "",
        fill: Callable[[str], None] | None = None,
    ) -> None:
        """A stopped container.

        :param mounts: values of ``rootfs`` and ``mpN``; volumes are made, and all of them get awkward files.
        :param owner: host id of its root on disk. :param fill: puts more files into the assembled tree.
        """
        lines = [f"{key}: {value}\n" for key, value in mounts.items()]
        text = f"arch: amd64\nhostname: box{vmid}\nmemory: 64\nostype: unmanaged\n{''.join(lines)}{config}"
        path = os.path.join(self.host.paths.lxc_configs, f"{vmid}.conf")
        Path(path).write_text(text, encoding="ascii")
        whole = str(self.root / f"tree{vmid}")
        os.mkdir(whole)
        placed = []
        try:
            for mount in self.guest(vmid).mounts():
                if mount.type != "volume":
                    continue
                name, _colon, volname = mount.volume.partition(":")
                storage = get_storage(self.host, name)
                storage.activate(Need("rootdir", write=True))
                volume = storage.volumes.volume(volname)
                volume.create(64 << 20, owner)
                place = whole + mount.mountpoint.rstrip("/")
                os.makedirs(place, exist_ok=True)
                volume.mount(place)
                placed.append(place)
                awkward(os.path.join(place, "awkward"))
            fill_system(whole)
            if fill is not None:
                fill(whole)
            _set_times(whole)
            if owner:
                _shift(whole, owner)
        finally:
            for place in reversed(placed):
                unmount(place)
            shutil.rmtree(whole)

    def guest(self, vmid: int) -> LxcGuest:
        """The engine's handle."""
        info = find_by_id(self.host, vmid)
        assert info is not None
        guest = open_by_info(self.host, info)
        assert isinstance(guest, LxcGuest)
        return guest

    def start(self, vmid: int) -> int:
        """Start it and wait until its writer works; returns the pid of its init."""
        self.guest(vmid).start()
        self.wait_for_writer(vmid)
        return self.guest(vmid).init_pid()

    def wait_for_writer(self, vmid: int) -> None:
        log = f"/proc/{self.guest(vmid).init_pid()}/root/writer.log"
        deadline = time.monotonic() + 20
        while not (os.path.exists(log) and os.stat(log).st_size):
            assert time.monotonic() < deadline, "the writer does not write"
            time.sleep(0.02)

    def backup(self, vmid: int | str, mode: str, **options: Any) -> GuestOutcome:
        """Back it up; nothing may be left behind."""
        reporter = Lines()
        request = BackupRequest(
            selection=Selection(vmid=[vmid]), options={"storage": "backup", "mode": mode, "compress": "zstd", **options}
        )
        run = run_backup(self.host, request, reporter)
        (outcome,) = run.guests
        self.lines = reporter.lines
        assert outcome.status == "ok", outcome.error
        self.expect_clean()
        return outcome

    def restore(self, outcome: GuestOutcome, vmid: int, **options: Any) -> RestoreResult:
        result = run_restore(self.host, RestoreRequest(outcome.path or "", vmid, **options), SilentReporter())
        self.expect_clean()
        return result

    def files(self, vmid: int, *, owner: int = 0) -> dict[bytes, Entry]:
        """The files of a stopped container's included volumes as it would see them, except what its writer made."""
        guest = self.guest(vmid)
        whole = self.root / "whole"
        whole.mkdir()
        placed = []
        try:
            for mount in guest.mounts():
                if mount.included:
                    name, _colon, volname = mount.volume.partition(":")
                    place = str(whole) + mount.mountpoint.rstrip("/")
                    os.makedirs(place, exist_ok=True)
                    get_storage(self.host, name).volumes.volume(volname).mount(place)
                    placed.append(place)
            found = tree(str(whole), _not_compared)
        finally:
            for place in reversed(placed):
                unmount(place)
            shutil.rmtree(whole)
        return {
            name: replace(
                one,
                uid=one.uid - owner,
                gid=one.gid - owner,
                xattrs=tuple((key, shifted(key, value, -owner)) for key, value in one.xattrs),
            )
            for name, one in found.items()
        }

    def guest_ids(self) -> list[int]:
        return sorted(int(path.stem) for path in Path(self.host.paths.lxc_configs).glob("*.conf"))

    def expect_clean(self) -> None:
        """No journal, snapshot, scratch folder, mount or frozen container is left by a run."""
        left = [str(path) for pattern in _LEFT for path in self.root.glob(pattern)]
        storages = [str(self.root / name) for name in ("btrfs", "lxc")]
        running = str(Path(self.host.paths.lxc_run))
        left += [p for p in mounts_below(str(self.root)) if p not in storages and not p.startswith(running)]
        assert not left
        for vmid in self.guest_ids():
            assert self.guest(vmid).status() != "frozen"

    def close(self) -> None:
        """Kill what runs."""
        for info in list_guests(self.host):
            guest = self.guest(info.vmid)
            guest.thaw()
            guest.stop()


def _not_compared(name: str) -> bool:
    """What LXC mounts over, what is left out of every backup, and what the writer makes."""
    if name in ("dev", "proc", "sys") or name.endswith("lost+found"):
        return True
    return name.startswith(("dev/", "tmp/", "var/log", "var/run/")) or "writer.log" in name


_LEFT = (
    *("*/dump/*.dat", "*/dump/*.tmp", "lib/runs/*/*.journal", "lib/runs/*/vzdumptmp*", "*/images/*/*@vzdump"),
    "run/restore/*",
)


class Lines(SilentReporter):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")


@contextlib.contextmanager
def maps_allowed(scratch: Path) -> Iterator[None]:
    """With the package uidmap installed root, too, may only map ids that these files give it, as the role sees to."""
    placed = []
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        text = path.read_text(encoding="ascii") if path.exists() else ""
        if f"root:{OWNER}:65536" not in text:
            path.touch()
            other = scratch / path.name
            other.write_text(f"{text}root:{OWNER}:65536\n", encoding="ascii")
            subprocess.run(["mount", "--bind", other, path], check=True)
            placed.append(str(path))
    try:
        yield
    finally:
        for path_text in placed:
            unmount(path_text)


def members(archive: str) -> list[str]:
    """Names in an archive, in its order."""
    done = subprocess.run(
        ["tar", "--quoting-style=escape", "--zstd", "-tf", archive], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def counted(archive: str) -> list[int]:
    """How far the writer came on each volume, in an archive; at any instant they differ by at most one."""
    counts = []
    for name in members(archive):
        if name.endswith("/writer.log"):
            argv = ["tar", "--zstd", "-xOf", archive, name]
            lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
            assert lines == [str(number) for number in range(1, len(lines) + 1)]
            counts.append(len(lines))
    return counts


def fill_system(root: str) -> None:
    """The folders, programs and writer of a container."""
    for name in FOLDERS:
        os.makedirs(os.path.join(root, name), exist_ok=True)
    busybox = os.path.join(root, "bin", "busybox")
    shutil.copy(shutil.which("busybox") or "/bin/busybox", busybox)
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(root, "bin", applet))
    os.symlink("../bin/busybox", os.path.join(root, "sbin", "init"))
    for path, text, mode in (
        ("bin/writer", WRITER, 0o755),
        ("etc/inittab", INITTAB, 0o644),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644),
        ("tmp/temporary", "not part of a backup\n", 0o644),
        ("var/run/some.pid", "1\n", 0o644),
        ("var/run/somepid", "1\n", 0o644),
    ):
        with open(os.path.join(root, path), "w", encoding="ascii") as stream:
            stream.write(text)
        os.chmod(os.path.join(root, path), mode)


def _set_times(root: str) -> None:
    """Containers that are made alike are alike."""
    for folder, _folders, files in os.walk(os.fsencode(root)):
        for name in files:
            path = os.path.join(folder, name)
            if os.lstat(path).st_mtime > 1_500_000_000:
                os.utime(path, ns=(0, 1_400_000_000_123_456_789), follow_symlinks=False)


def shifted(name: str, value: bytes, by: int) -> bytes:
    """An extended attribute with the ids in it shifted."""
    if name.startswith("system.posix_acl") and by:
        entries = [value[at : at + 8] for at in range(4, len(value), 8)]
        return value[:4] + b"".join(
            one[:4] + struct.pack("<I", struct.unpack("<I", one[4:])[0] + by) if one[0] in (2, 8) else one
            for one in entries
        )
    if name == "security.capability" and by > 0 and len(value) == 20:
        return value[:3] + b"\3" + value[4:] + struct.pack("<I", by)
    if name == "security.capability" and by < 0 and len(value) == 24:
        assert struct.unpack("<I", value[20:]) == (-by,)
        return value[:3] + b"\2" + value[4:20]
    return value


def _shift(root: str, by: int) -> None:
    """Shift the owners of files as they are on disk for an unprivileged container."""
    for folder, folders, files in os.walk(os.fsencode(root)):
        for path in [folder, *(os.path.join(folder, name) for name in folders + files)]:
            info = os.lstat(path)
            if info.st_uid >= by or path.endswith(b"lost+found"):
                continue
            link = os.path.islink(path)
            kept = [] if link else [(name, os.getxattr(path, name)) for name in os.listxattr(path)]
            os.lchown(path, info.st_uid + by, info.st_gid + by)
            if not link:
                os.chmod(path, info.st_mode & 0o7777)
            for name, value in kept:
                os.setxattr(path, name, shifted(name, value, by))
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
