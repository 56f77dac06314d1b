# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers for real: LXC, btrfs on a loop device, tar."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from engine.capture.ct import UNDO, capture_ct
from engine.capture.ct_restore import extract_ct, read_ct_config
from engine.capture.model import CaptureOptions
from engine.errors import IntegrityError
from engine.guests.lxc.guest import LxcGuest
from engine.guests.lxc.tools import UNDO as LXC_UNDO
from engine.guests.model import GuestInfo, ResolvedVolume
from engine.settings.guest_config import GuestConfig
from engine.storages.volumes.registry import UNDO as VOLUME_UNDO
from engine.stream.progress import Progress
from engine.stream.sink import open_sink
from engine.stream.source import open_source
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.system.undo import UndoStack

CONFIG = """#a container%3A of tests
hostname: writer
memory: 64
lock: backup
rootfs: local:root
mp0: local:mp0,mp=/srv/data,backup=1
mp1: local:mp1,mp=/srv/skip
mp2: {bind},mp=/srv/bind
"""
HANDLERS = {**UNDO, **LXC_UNDO, **VOLUME_UNDO}


def sh(*argv: str | Path) -> None:
    subprocess.run([str(part) for part in argv], check=True, capture_output=True)


def fill(root: Path) -> None:
    """Everything that a backup of a tree can lose."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "plain").write_text("plain\n")
    os.link(root / "plain", root / "hard")
    os.symlink("/etc/passwd", root / "absolute")
    (root / "caps").write_bytes(b"\x7fELF")
    sh("setcap", "cap_net_raw+ep", root / "caps")
    sh("setfacl", "-m", "u:1234:r", root / "plain")
    os.setxattr(root / "plain", "user.note", b"kept")
    os.chown(root / "plain", 1000, 1001)
    with open(root / "sparse", "wb") as stream:
        stream.truncate(20 << 20)
        stream.seek(10 << 20)
        stream.write(b"middle")
    for name in (b"new\nline", b"odd-\xff\xfe", b"-dash", b" blank "):
        with open(os.fsencode(root) + b"/" + name, "wb") as stream:
            stream.write(name)
    os.utime(root / "plain", (1_000_000_000, 1_000_000_000))


def manifest(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What must survive, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith("trusted.")
            }
            content: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = (Path(os.fsdecode(path)).read_bytes(), info.st_nlink)
            when = 0 if os.path.isdir(path) else int(info.st_mtime)
            found[os.path.relpath(path, os.fsencode(root))] = (
                info.st_mode, info.st_uid, info.st_gid, when, attributes, content,
            )  # fmt: skip
    return found


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    image, mounted = tmp_path / "btrfs.img", tmp_path / "btrfs"
    with open(image, "wb") as stream:
        stream.truncate(300 << 20)
    sh("mkfs.btrfs", "-q", image)
    mounted.mkdir()
    sh("mount", "-o", "loop", image, mounted)
    yield mounted
    sh("umount", mounted)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "volumes"
    path.mkdir()
    return path


@contextlib.contextmanager
def container(place: Path, tmp_path: Path, *, subvolumes: bool) -> Iterator[tuple[LxcGuest, dict[str, Path]]]:
    """A running busybox container whose writer appends numbers to the root and to a mount point in turn."""
    sh("lxc-create", "-t", "busybox", "-P", tmp_path / "made", "-n", "base")
    volumes = {}
    for name in ("root", "mp0", "mp1"):
        volumes[name] = place / f"{name}.subvol"
        if subvolumes:
            sh("btrfs", "-q", "subvolume", "create", volumes[name])
        else:
            volumes[name].mkdir()
    sh("cp", "-aT", tmp_path / "made/base/rootfs", volumes["root"])
    bind = tmp_path / "bind"
    bind.mkdir()
    (bind / "host-file").write_text("never in a backup")
    (volumes["mp1"] / "skipped").write_text("backup is not 1")
    fill(volumes["root"] / "opt/things")
    fill(volumes["mp0"] / "things")
    writer = volumes["root"] / "etc/init.d/rcS"
    writer.parent.mkdir(parents=True, exist_ok=True)
    writer.write_text(
        "#!/bin/sh\nmkdir -p /opt/log\n"
        "(n=0; while :; do n=$((n+1)); echo $n >>/opt/log/a; echo $n >>/srv/data/b; done) &\n"
    )
    writer.chmod(0o755)
    host = Host("node", Paths.under(str(tmp_path / "state")))
    config = GuestConfig.parse(CONFIG.format(bind=bind))
    guest = LxcGuest.managed(
        host,
        GuestInfo("lxc", 4711, "writer", (), "", False, ""),
        config,
        lambda volid: ResolvedVolume(str(volumes[volid.partition(":")[2]]), "subvol"),
    )
    guest.start()
    try:
        deadline = time.monotonic() + 20
        while not (volumes["mp0"] / "b").exists():
            assert time.monotonic() < deadline, "the writer does not write"
            time.sleep(0.05)
        yield guest, volumes
    finally:
        guest.thaw()
        guest.stop()


def back_up(guest: LxcGuest, mode: str, tmp_path: Path, undo: UndoStack) -> tuple[Path, str, float | None]:
    archive, work = tmp_path / f"{mode}.tar.zst", tmp_path / "work"
    work.mkdir(exist_ok=True)
    options = CaptureOptions(str(work), stopwait=30)
    report = SilentReporter()
    with capture_ct(guest, mode, options, undo, report) as captured, open_sink(str(archive), "zst") as sink:
        captured.write_to(sink, Progress(0, report))
    assert undo.pending == []
    assert guest.status() == "running"
    return archive, captured.mode, captured.timings.freeze_seconds


def check(archive: Path, volumes: dict[str, Path], tmp_path: Path, *, instant: bool) -> None:
    """Unpack an archive and compare it with its origin."""
    first = subprocess.run(["tar", "--zstd", "-tf", archive], check=True, capture_output=True).stdout.split(b"\n")[0]
    assert first == b"./etc/vzdump/pct.conf"
    with open_source(str(archive)) as source:
        text = read_ct_config(source)
    assert "lock" not in text and "mp2:" in text and text.startswith("#a container%3A")
    target = tmp_path / "restored"
    target.mkdir()
    with open_source(str(archive)) as source:
        extract_ct(source, str(target), idmaps=(), unprivileged=False, progress=Progress(0, SilentReporter()),
                   report=SilentReporter())  # fmt: skip
    assert manifest(target / "opt/things") == manifest(volumes["root"] / "opt/things")
    assert manifest(target / "srv/data/things") == manifest(volumes["mp0"] / "things")
    assert (target / "opt/things/sparse").stat().st_blocks * 512 < 4 << 20
    assert not (target / "srv/skip/skipped").exists()
    assert not (target / "srv/bind/host-file").exists()
    if instant:
        one = (target / "opt/log/a").read_text().split()
        two = (target / "srv/data/b").read_text().split()
        # The writer writes a number to the root first and to the mount point next: at any instant they differ by one.
        assert len(one) - len(two) in (0, 1)
        assert one == [str(n) for n in range(1, len(one) + 1)]


def test_snapshot_of_a_running_writer(btrfs: Path, tmp_path: Path) -> None:
    with container(btrfs, tmp_path, subvolumes=True) as (guest, volumes):
        archive, mode, frozen = back_up(guest, "snapshot", tmp_path, UndoStack(None, HANDLERS))
        assert mode == "snapshot"
        assert frozen is not None and frozen < 10
        assert not list(btrfs.glob("*@vzdump"))
        check(archive, volumes, tmp_path, instant=True)


def test_snapshot_falls_back_to_suspend_on_a_folder(folder: Path, tmp_path: Path) -> None:
    with container(folder, tmp_path, subvolumes=False) as (guest, volumes):
        archive, mode, frozen = back_up(guest, "snapshot", tmp_path, UndoStack(None, HANDLERS))
        assert mode == "suspend"
        assert frozen is not None
        check(archive, volumes, tmp_path, instant=True)


def test_stop_mode_starts_the_container_again(folder: Path, tmp_path: Path) -> None:
    with container(folder, tmp_path, subvolumes=False) as (guest, volumes):
        before = guest.init_pid()
        archive, mode, frozen = back_up(guest, "stop", tmp_path, UndoStack(None, HANDLERS))
        assert (mode, frozen) == ("stop", None)
        assert guest.init_pid() != before
        check(archive, volumes, tmp_path, instant=False)


def test_what_is_no_container_archive_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    sh("tar", "cf", other, "-C", "/etc", "hostname")
    with open_source(str(other)) as source, pytest.raises(IntegrityError, match="no etc/vzdump"):
        read_ct_config(source)
