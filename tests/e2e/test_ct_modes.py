# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Containers of all sorts, backed up in all modes and restored, on real LXC."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from engine.errors import GuestError, IntegrityError, UsageError
from engine.storages.mounts import unmount
from engine.tasks.results import GuestOutcome
from helpers.boxes import OWNER, Box, counted, maps_allowed, members
from helpers.process import wait_for
from helpers.volumes import sh

from tests.demo.compare import differences

NESTED = {
    "rootfs": "local:101/subvol-101-disk-0.subvol",
    # Out of order and nested: one inside a mount point that is left out, one inside one that is not.
    "mp0": "local:101/subvol-101-disk-1.subvol,mp=/left/out/inner,backup=1",
    "mp1": "local:101/subvol-101-disk-2.subvol,mp=/data/inner,backup=1,quota=1",
    "mp2": "local:101/subvol-101-disk-3.subvol,mp=/data,backup=1",
    "mp3": "local:101/subvol-101-disk-4.subvol,mp=/left/out",
    "mp4": "local:101/subvol-101-disk-5.subvol,mp=/fixed,backup=1,ro=1",
}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that a container's root may pass through; those of pytest are closed."""
    path = Path(tempfile.mkdtemp(prefix="ct-"))
    path.chmod(0o755)
    with maps_allowed(path):
        yield path
    shutil.rmtree(path)


@pytest.fixture
def box(scratch: Path) -> Iterator[Box]:
    box = Box(scratch / "n")
    yield box
    box.close()


@pytest.fixture
def btrfs_box(scratch: Path) -> Iterator[Box]:
    """A node with a storage on btrfs, too."""
    root = scratch / "n"
    image, mounted = scratch / "image", root / "btrfs"
    with image.open("wb") as stream:
        stream.truncate(512 << 20)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    mounted.mkdir(parents=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    try:
        box = Box(root, f"dir: btrfs\n\tpath {mounted}\n\tcontent rootdir\n")
        yield box
        box.close()
    finally:
        unmount(str(mounted))


def test_all_modes_take_the_same_from_nested_mount_points(box: Box) -> None:
    box.make(101, {**NESTED, "mp5": f"{box.root}/backup,mp=/host,backup=1"})
    # The first start makes the folders that bind mounts need.
    box.start(101)
    box.guest(101).stop()
    stopped = box.backup(101, "snapshot")
    original = box.files(101)
    box.start(101)
    before = box.guest(101).init_pid()
    suspended = box.backup(101, "suspend")
    down = box.backup(101, "stop")
    assert [one.mode for one in (stopped, suspended, down)] == ["stop", "suspend", "stop"]
    assert box.guest(101).init_pid() != before
    assert suspended.timings["freeze_seconds"] is not None and suspended.timings["downtime_seconds"] is None
    assert down.timings["downtime_seconds"] is not None and down.timings["freeze_seconds"] is None
    reasons = {disk["key"]: (disk["included"], disk["reason"]) for disk in down.disks}
    assert [key for key, (included, _reason) in reasons.items() if included] == ["rootfs", "mp0", "mp1", "mp2", "mp4"]
    assert any("excluding volume mount point mp3 ('/left/out')" in line for line in box.lines)
    assert any("excluding bind mount point mp5 ('/host')" in line for line in box.lines)
    assert "never" in reasons["mp5"][1]
    counts = counted(suspended.path or "")
    assert len(counts) == 3 and max(counts) - min(counts) <= 1
    names = [_named(one) for one in (stopped, suspended, down)]
    assert names[0] == names[1] == names[2]
    for number, outcome in enumerate((stopped, suspended, down)):
        first = members(outcome.path or "")[0]
        assert first == "./etc/vzdump/pct.conf"
        result = box.restore(outcome, 201 + number)
        assert "mp5" not in result.config and "mp5" in result.dropped[0]
        assert differences(original, box.files(201 + number)) == []
        assert "mp=/fixed,backup=1,ro=1" in result.config and "mp=/data/inner,backup=1,quota=1" in result.config
    box.guest(203).start()
    root = f"/proc/{box.guest(203).init_pid()}/root"
    assert os.path.exists(f"{root}/left/out/inner/awkward/plain")
    assert not os.path.exists(f"{root}/left/out/awkward")
    with pytest.raises(OSError, match="Read-only"):
        open(f"{root}/fixed/new", "w", encoding="ascii").close()


def _named(outcome: GuestOutcome) -> list[str]:
    """Names in the archive; the config is a file of the copy in mode suspend, folders may come twice."""
    ignored = ("./etc/vzdump", "./dev/", "./var/log", "./run", "./proc/", "./sys/")
    return sorted(
        {name for name in members(outcome.path or "") if not name.startswith(ignored) and "writer.log" not in name}
    )


@pytest.mark.parametrize("mode", ["stop", "suspend"])
def test_a_target_behind_a_link(mode: str, box: Box) -> None:
    box.make(101, {key: NESTED[key] for key in ("rootfs", "mp1", "mp2")})
    (box.root / "backup").rename(box.root / "real")
    (box.root / "backup").symlink_to("real")
    box.start(101)
    outcome = box.backup(101, mode)
    box.guest(101).stop()
    box.restore(outcome, 201)
    assert differences(box.files(101), box.files(201)) == []


def test_snapshots_are_of_one_instant_and_stale_ones_go(btrfs_box: Box) -> None:
    box = btrfs_box
    box.make(
        101,
        {
            "rootfs": "btrfs:101/subvol-101-disk-0.subvol",
            "mp0": "btrfs:101/subvol-101-disk-1.subvol,mp=/data,backup=1",
            "mp1": "local:101/subvol-101-disk-0.subvol,mp=/cache",
        },
    )
    box.start(101)
    volume = f"{box.root}/btrfs/images/101/subvol-101-disk-0.subvol"
    subprocess.run(["btrfs", "-q", "subvolume", "snapshot", "-r", volume, f"{volume}@vzdump"], check=True)
    outcome = box.backup(101, "snapshot")
    assert outcome.mode == "snapshot"
    assert any("found old vzdump snapshot of rootfs" in line for line in box.lines)
    assert 0 < outcome.timings["freeze_seconds"] < 5
    counts = counted(outcome.path or "")
    assert len(counts) == 2 and max(counts) - min(counts) <= 1


def test_subvolumes_inside_a_container_are_named(btrfs_box: Box) -> None:
    box = btrfs_box

    def fill(root: str) -> None:
        for name in ("machines", "docker"):
            path = Path(root, "srv", name)
            path.parent.mkdir(exist_ok=True)
            subprocess.run(["btrfs", "-q", "subvolume", "create", path], check=True)
            (path / "inside").touch()

    box.make(101, {"rootfs": "btrfs:101/subvol-101-disk-0.subvol"}, fill=fill)
    box.start(101)
    for mode in ("snapshot", "suspend", "stop"):
        outcome = box.backup(101, mode, exclude_path=["/srv/docker"])
        names = members(outcome.path or "")
        assert "./srv/machines/" in names
        assert "./srv/machines/inside" not in names
        (warning,) = [line for line in outcome.warnings if "subvolume" in line]
        assert "/srv/machines is a btrfs subvolume of its own inside rootfs" in warning


def test_a_copy_that_does_not_fit_is_refused_before_the_container_is_frozen(box: Box, scratch: Path) -> None:
    box.make(101, {"rootfs": "local:101/subvol-101-disk-0.subvol"})
    box.start(101)
    small = scratch / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", small], check=True)
    try:
        with pytest.raises(AssertionError, match=r"its files need more than the [0-9]+ bytes that are free"):
            box.backup(101, "suspend", tmpdir=str(small))
        assert not any("suspending container" in line for line in box.lines)
        assert os.listdir(small) == []
        subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
        assert box.backup(101, "suspend", tmpdir=str(small)).mode == "suspend"
    finally:
        unmount(str(small))
    box.expect_clean()


def test_raw_images_are_mounted_to_start_to_back_up_and_to_restore(btrfs_box: Box) -> None:
    box = btrfs_box
    box.make(
        101,
        {
            "rootfs": "local:101/vm-101-disk-0.raw,size=64M",
            "mp0": "local:101/vm-101-disk-1.raw,mp=/data,backup=1,size=64M",
        },
        owner=OWNER,
        config="unprivileged: 1\n",
    )
    original = box.files(101, owner=OWNER)
    box.start(101)
    outcome = box.backup(101, "snapshot")
    assert outcome.mode == "suspend"
    assert any("mode failure - some volumes do not support snapshots" in line for line in box.lines)
    down = box.backup(101, "stop")
    box.wait_for_writer(101)
    same = box.restore(outcome, 201)
    assert [volume.format for volume in same.volumes] == ["raw", "raw"]
    assert differences(original, box.files(201, owner=OWNER)) == []
    wishes = {"rootfs": {"storage": "btrfs", "format": "subvol"}, "mp0": {"size": "96M"}}
    other = box.restore(down, 202, volumes=wishes)
    assert [(volume.storage, volume.format) for volume in other.volumes] == [("btrfs", "subvol"), ("local", "raw")]
    assert "mp=/data,backup=1,size=96M" in other.config
    assert differences(original, box.files(202, owner=OWNER)) == []
    for vmid in (201, 202):
        box.start(vmid)
    for vmid in (101, 201, 202):
        box.guest(vmid).stop()
    assert "/mounts/" not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    # The kernel lets go of a loop device a little after its mount.
    wait_for(lambda: f"{box.root}/local" not in sh("losetup", "--output", "BACK-FILE"), "the loop devices to be free")
    with pytest.raises(UsageError, match="no containers' volumes"):
        box.restore(down, 203, volumes={"rootfs": {"format": "qcow2"}})


def test_shifted_files_and_mapped_mounts_archive_alike(box: Box) -> None:
    def beyond(root: str) -> None:
        Path(root, "etc/beyond").touch()
        os.mknod(os.path.join(root, "etc/device"), 0o600 | 0o020000, os.makedev(1, 3))

    root = {"rootfs": "local:101/subvol-101-disk-0.subvol"}
    box.make(101, root, owner=OWNER, config="unprivileged: 1\n", fill=beyond)
    mapped = {"rootfs": "local:102/subvol-102-disk-0.subvol"}
    box.make(102, mapped, config="unprivileged: 1\nlxc.rootfs.options: idmap=container\n", fill=beyond)
    # The host's own root is nobody inside; so is whoever lies beyond the map.
    os.chown(f"{box.root}/local/images/101/subvol-101-disk-0.subvol/etc/beyond", 7, 7)
    os.chown(f"{box.root}/local/images/102/subvol-102-disk-0.subvol/etc/beyond", 65534, 65534)
    for vmid in (101, 102):
        box.start(vmid)
    outcomes = {(vmid, mode): box.backup(vmid, mode) for vmid in (101, 102) for mode in ("suspend", "stop")}
    expected = box.files(102)
    assert expected[b"etc/beyond"].uid == 65534
    for number, outcome in enumerate(outcomes.values()):
        with pytest.raises(IntegrityError, match="device node"):
            box.restore(outcome, 301)
        assert box.guest_ids() == [101, 102, *range(201, 201 + number)]
        box.restore(outcome, 201 + number, unprivileged=False)
        assert differences(expected, box.files(201 + number)) == []
    again = box.restore(outcomes[101, "stop"], 301, ignore_unpack_errors=True)
    assert any("etc/device" in warning for warning in again.warnings)
    expected.pop(b"etc/device")
    assert differences(expected, box.files(301, owner=OWNER)) == []
    box.start(301)


PATTERNS = ("/var/cache/*", "*.bak", "/srv/**/tmp/", "secret/key?", "/opt/[ab]", "build/", "/data/x")
GONE = (
    "tmp/temporary", "var/run/some.pid", "var/cache/one", "var/cache/deep/two", "srv/a.bak", "srv/tmp/x",
    "srv/a/b/tmp/x", "etc/secret/key1", "opt/a/file", "opt/b", "home/build/x", "data/x/file",
)  # fmt: skip
KEPT = (
    "var/run/somepid", "var/cached/*", "srv/a.bak2", "srv/tmp2/x", "etc/secret/key", "etc/secret/key10", "opt/c/file",
    "home/file/build", "data/y/x/file",
)  # fmt: skip


def test_patterns_mean_the_same_in_all_modes(btrfs_box: Box) -> None:
    box = btrfs_box

    def fill(root: str) -> None:
        for name in (*GONE, *KEPT):
            path = Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        Path(root, "srv/x").mkdir()
        Path(root, "srv/x/tmp").touch()

    box.make(
        101,
        {
            "rootfs": "btrfs:101/subvol-101-disk-0.subvol",
            "mp0": "btrfs:101/subvol-101-disk-1.subvol,mp=/data,backup=1",
        },
        fill=fill,
    )
    box.start(101)
    outcomes = [box.backup(101, mode, exclude_path=list(PATTERNS)) for mode in ("suspend", "snapshot", "stop")]
    names = [_named(outcome) for outcome in outcomes]
    assert names[0] == names[1] == names[2]
    for name in GONE:
        assert f"./{name}" not in names[0]
    for name in (*KEPT, "srv/x/tmp", "var/cache/", "tmp/"):
        assert f"./{name}" in names[0]
    everything = _named(box.backup(101, "snapshot", stdexcludes=False))
    assert {f"./{name}" for name in (*GONE, *KEPT)} <= set(everything)
    without = _named(box.backup(101, "snapshot", exclude_path=["/data"]))
    assert not any(name.startswith("./data/") for name in without)


def test_the_old_guest_stays_until_the_new_one_is_in_place(box: Box) -> None:
    box.make(101, {"rootfs": "local:101/subvol-101-disk-0.subvol"}, config="net0: name=eth0,hwaddr=BC:24:11:00:00:01\n")
    outcome = box.backup(101, "stop")
    original = box.files(101)
    volume = Path(box.root, "local/images/101/subvol-101-disk-0.subvol")
    (volume / "mark").touch()
    whole = Path(outcome.path or "").read_bytes()
    Path(outcome.path or "").write_bytes(whole[: len(whole) // 2])
    with pytest.raises((GuestError, IntegrityError)):
        box.restore(outcome, 101, force=True)
    assert (volume / "mark").exists()
    box.expect_clean()
    assert os.listdir(volume.parent) == [volume.name]
    kept = box.restore(outcome, 102, ignore_unpack_errors=True)
    assert any("damaged" in warning for warning in kept.warnings)
    assert b"bin/busybox" in box.files(102)
    Path(outcome.path or "").write_bytes(whole)
    box.start(101)
    with pytest.raises(GuestError, match="it is running"):
        box.restore(outcome, 101, force=True)
    box.guest(101).stop()
    result = box.restore(outcome, 101, force=True, unique=True, bwlimit=200000)
    assert "BC:24:11:00:00:01" not in result.config and "hwaddr=BC:24:11" in result.config
    assert differences(original, box.files(101)) == []
    assert len(os.listdir(volume.parent)) == 1


def test_what_is_no_container_archive_is_refused(box: Box, scratch: Path) -> None:
    other = scratch / "vzdump-lxc-101-2026_01_01-00_00_00.tar"
    subprocess.run(["tar", "cf", other, "-C", "/etc", "hostname"], check=True)
    with pytest.raises(IntegrityError, match="no etc/vzdump"):
        box.restore(GuestOutcome(101, "x", "lxc", path=str(other)), 101)
