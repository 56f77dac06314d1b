# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verification of real archive files: whole ones, ones without record, and ones with every kind of damage."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any, Callable

import pytest
from engine.errors import HoldfastError, Interrupted, StorageError, UsageError
from engine.formats import seekable
from engine.formats.cluster_map import ClusterMapBuilder
from engine.formats.disk_digest import DiskDigest
from engine.formats.vma_layout import CLUSTER
from engine.formats.vma_writer import VmaWriter
from engine.settings.archive_record import ArchiveRecord
from engine.storages.dump import DumpFolder
from engine.stream.sink import open_sink
from engine.system.host import Host, Paths
from engine.system.report import SilentReporter
from engine.tasks import verify
from engine.tasks.archives import list_archives
from engine.tasks.changes import apply_change
from engine.tasks.info import runs_info
from engine.tasks.prune import plan_prune
from engine.tasks.record import load_records
from engine.tasks.requests import ArchiveFilter, PruneRequest, VerifyRequest
from engine.tasks.stores import plan_storage
from engine.tasks.verify_results import VerifyResult

COMPRESSIONS = ["", "zst", "gz", *(["lzo"] if shutil.which("lzop") else [])]
LEVELS = ["index", "data"]
SIZE = 150 * CLUSTER + 1536
VM_CONFIG = """#qmdump#map:scsi0:drive-scsi0:local:raw:
#qmdump#map:virtio0:drive-virtio0:local:raw:
memory: 64
name: web
scsi0: local:100/vm-100-disk-0.raw,size=10M
virtio0: local:100/vm-100-disk-1.raw,size=64K
"""
CT_CONFIG = "hostname: box\nrootfs: local:101/subvol-101-disk-0.subvol,size=1G\n"

Damage = Callable[[bytes], bytes]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host("n1", Paths.under(str(tmp_path / "root")))
    apply_change(host, plan_storage(host, "nas", {"path": str(tmp_path / "nas"), "content": ["backup"]}))
    (tmp_path / "nas" / "dump").mkdir(parents=True)
    return host


def dump(host: Host) -> Path:
    return Path(host.paths.etc).parent.parent / "nas" / "dump"


def named(kind: str, compression: str, day: int = 10) -> str:
    body = {"qemu": "100", "lxc": "101"}[kind]
    form = {"qemu": "vma", "lxc": "tar"}[kind]
    return f"vzdump-{kind}-{body}-2026_03_{day:02d}-02_00_00.{form}" + (f".{compression}" if compression else "")


def make_vm(host: Host, compression: str, *, record: bool = True, day: int = 10, config: str = VM_CONFIG) -> Path:
    """An archive of a VM as a backup makes it."""
    rng = random.Random(day)
    disk = rng.randbytes(40 * CLUSTER) + bytes(70 * CLUSTER) + rng.randbytes(4096) + bytes(SIZE - 110 * CLUSTER - 4096)
    other = b"\7" * CLUSTER
    path = dump(host) / named("qemu", compression, day)
    index = ClusterMapBuilder()
    with open_sink(str(path), compression, threads=1) as sink:
        configs = [("qemu-server.conf", config.encode())]
        devices = [("drive-scsi0", SIZE), ("drive-virtio0", CLUSTER)]
        vma = VmaWriter(sink.write, bytes(range(16)), 1, configs, devices, index)
        sink.add_trailer(index.frame)
        vma.write_clusters(1, 0, disk)
        vma.write_clusters(2, 0, other)
        vma.close()
    digests = {}
    for key, data in (("scsi0", disk), ("virtio0", other)):
        digest = DiskDigest(len(data))
        digest.add(0, len(data), data)
        digests[key] = digest.value() or ""
    return noted(host, path, digests if record else {})


def make_ct(host: Host, compression: str, *, record: bool = True, day: int = 10, config: str = CT_CONFIG) -> Path:
    """An archive of a container as a backup makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        contents = {"./etc/vzdump/pct.conf": config.encode(), "./data/random": random.Random(day).randbytes(6_000_000)}
        for name, data in {**contents, "./data/last": b"x" * 3000}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path = dump(host) / named("lxc", compression, day)
    with open_sink(str(path), compression, threads=1) as sink:
        sink.write(out.getvalue())
    return noted(host, path, {"tar": hashlib.sha256(out.getvalue()).hexdigest()} if record else {})


def noted(host: Host, path: Path, digests: dict[str, str]) -> Path:
    if digests:
        folder = DumpFolder("nas", str(path.parent))
        folder.set_record(folder.find(path.name), ArchiveRecord(path.stat().st_size, digests))
    return path


MAKE: dict[str, Callable[..., Path]] = {"qemu": make_vm, "lxc": make_ct}


def run(host: Host, **wanted: Any) -> VerifyResult:
    return verify.run_verify(host, VerifyRequest(**{"storage": "nas", **wanted}), SilentReporter())


def states(result: VerifyResult) -> list[str]:
    return [one.state for one in result.archives]


def content(path: Path) -> dict[str, bytes]:
    """The archive and what of its companions a verification leaves alone."""
    return {item.name: item.read_bytes() for item in path.parent.iterdir() if not item.name.endswith(".record")}


def test_the_speed_counts_from_the_begin_of_an_archive(host: Host) -> None:
    told = []

    class Listening(SilentReporter):
        def progress(self, done: int, total: int, zero: int, written: int) -> None:
            told.append((done, total))

    make_vm(host, "")
    verify.run_verify(host, VerifyRequest(storage="nas"), Listening())
    assert (told[0], told[-1]) == ((0, SIZE + CLUSTER), (SIZE + CLUSTER, SIZE + CLUSTER))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", MAKE)
def test_a_whole_archive_is_ok(host: Host, kind: str, compression: str, level: str) -> None:
    path = MAKE[kind](host, compression)
    before = content(path)
    result = run(host, level=level)
    assert (states(result), result.ok, result.changed, result.findings) == (["ok"], True, True, [])
    (one,) = result.archives
    assert one.name == {"qemu": "web", "lxc": "box"}[kind]
    assert [volume.key for volume in one.volumes] == (
        [] if level == "index" else {"qemu": ["scsi0", "virtio0"], "lxc": ["tar"]}[kind]
    )
    assert content(path) == before
    (entry,) = list_archives(host, ArchiveFilter("nas"))
    verified = entry.to_dict()["verified"]
    assert (verified["state"], verified["level"]) == ("ok", level)
    row = runs_info(host, pytest.fail)[0]
    assert (row["kind"], row["state"], row["summary"], row["guests"]) == ("verify", "finished", "1 ok", 1)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", MAKE)
def test_an_archive_without_record_is_unknown(host: Host, kind: str, compression: str) -> None:
    MAKE[kind](host, compression, record=False)
    result = run(host)
    assert (states(result), result.ok, result.findings) == (["unknown"], True, [])
    assert {volume.state for volume in result.archives[0].volumes} == {"unknown"}
    assert states(run(host, level="index")) == ["ok"]
    (entry,) = list_archives(host, ArchiveFilter("nas"))
    assert entry.to_dict()["verified"]["state"] == "unknown"


def test_an_archive_of_the_original_is_followed_as_a_stream(host: Host) -> None:
    path = make_vm(host, "", record=False)
    subprocess.run(["zstd", "-q", "--rm", str(path)], check=True)
    assert states(run(host, level="index")) == ["ok"]
    assert states(run(host)) == ["unknown"]
    path = Path(f"{path}.zst")
    path.write_bytes(path.read_bytes()[:-3000])
    assert states(run(host, level="index")) == states(run(host)) == ["damaged"]


def flipped(at: float) -> Damage:
    """One bit is wrong, at that part of the file (or byte, when it is negative)."""

    def flip(data: bytes) -> bytes:
        place = int(len(data) * at) if at >= 0 else len(data) + int(at)
        return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]

    return flip


def cut(at: float) -> Damage:
    return lambda data: data[: int(len(data) * at)]


DATA_DAMAGE = {"a bit at the start": 0.05, "a bit in the middle": 0.5, "a bit later": 0.8}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", MAKE)
def test_every_wrong_bit_of_the_data_is_found(host: Host, kind: str, compression: str) -> None:
    path = MAKE[kind](host, compression)
    good = path.read_bytes()
    for what, at in DATA_DAMAGE.items():
        path.write_bytes(flipped(at)(good))
        result = run(host)
        assert states(result) == ["damaged"], what
        (finding, *_more) = result.findings
        assert finding["vmid"] == {"qemu": 100, "lxc": 101}[kind]
        assert finding["archive"].endswith(path.name) and finding["path"] == str(path)
        assert finding["cause"] and finding["remedy"]
        # Only a digest sees a bit that no checksum of the format covers.
        if kind == "qemu" and not compression:
            assert (finding["volume"], finding["cause"]) == ("scsi0", "the content of scsi0 is not what was written")
        (entry,) = list_archives(host, ArchiveFilter("nas"))
        assert not entry.archive.good
        assert entry.to_dict()["verified"]["causes"]
    path.write_bytes(good)
    assert states(run(host)) == ["ok"]


STRUCTURE: dict[str, Damage] = {
    "empty": lambda data: b"",
    "something else": lambda data: b"this is not an archive\n" * 5000,
    "cut in its beginning": cut(0.001),
    "cut in the middle": cut(0.5),
    "cut at its end": cut(0.999),
    "longer than it was": lambda data: data + b"\0",
    "a bit in the first bytes": flipped(0.0),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", MAKE)
def test_a_wrong_structure_is_found_at_every_level(host: Host, kind: str, compression: str, level: str) -> None:
    path = MAKE[kind](host, compression)
    good = path.read_bytes()
    for what, damage in STRUCTURE.items():
        path.write_bytes(damage(good))
        assert states(run(host, level=level)) == ["damaged"], what


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("what", ["empty", "something else", "cut in its beginning", "cut in the middle"])
def test_a_wrong_structure_is_found_without_a_record(host: Host, kind: str, compression: str, what: str) -> None:
    path = MAKE[kind](host, compression, record=False)
    path.write_bytes(STRUCTURE[what](path.read_bytes()))
    for level in LEVELS:
        assert states(run(host, level=level)) == ["damaged"], level


INDEXES: dict[str, tuple[Damage, str]] = {
    "the footer": (flipped(-1), "which it was written with, is gone"),
    "the number of frames": (flipped(-9), "seek table"),
    "a size in the seek table": (flipped(-16), "seek table"),
    "the table's first size": (lambda data: flipped(-table_bytes(data) + 8)(data), "seek table"),
    "the cluster map": (lambda data: flipped(-table_bytes(data) - 10)(data), "cluster map"),
}


def table_bytes(data: bytes | bytearray) -> int:
    size = seekable.table_size(bytes(data[-seekable.FOOTER.size :]))
    assert size is not None
    return size


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("what", INDEXES)
def test_a_wrong_index_is_found_although_a_restore_would_do_without(host: Host, what: str, level: str) -> None:
    path = make_vm(host, "zst")
    damage, cause = INDEXES[what]
    path.write_bytes(damage(path.read_bytes()))
    result = run(host, level=level)
    assert states(result) == ["damaged"]
    assert len(result.findings) == 1
    assert cause in result.findings[0]["cause"]
    # The content is whole all the same.
    assert [volume.state for volume in result.archives[0].volumes] == ([] if level == "index" else ["ok", "ok"])


def test_frames_of_other_lengths_than_the_table_says(host: Host) -> None:
    path = make_ct(host, "zst")
    data = bytearray(path.read_bytes())
    at = len(data) - table_bytes(data) + seekable.FRAME_HEAD.size
    sizes = [seekable.FRAME_HEAD.unpack_from(data, at + 8 * n) for n in range(2)]
    for n, (size, length) in enumerate(sizes):
        seekable.FRAME_HEAD.pack_into(data, at + 8 * n, size, length + (8 if n else -8))
    path.write_bytes(data)
    (finding,) = run(host, level="index").findings
    assert "but" not in finding["cause"] and "the seek table" in finding["cause"]


def test_the_config_must_fit_the_archive(host: Host) -> None:
    path = make_vm(host, "zst", config=VM_CONFIG.replace("#qmdump#map:virtio0", "#virtio0"))
    assert "does not say where drive-virtio0 belongs" in run(host, level="index").findings[0]["cause"]
    path.unlink()
    make_ct(host, "zst", config="hostname: box\n")
    assert run(host, level="index").findings[0]["cause"] == "its config has no rootfs"


def test_companions_are_looked_at(host: Host) -> None:
    path = make_ct(host, "zst")
    Path(f"{path}.notes").write_bytes(b"\xff\xfe")
    result = run(host, level="index")
    assert states(result) == ["ok"]
    assert "its notes are no UTF-8 text" in result.archives[0].warnings[0]
    Path(f"{path}.notes").unlink()
    Path(f"{path}.record").write_text("{}", encoding="utf-8")
    result = run(host)
    assert states(result) == ["unknown"]
    assert "the archive's record cannot be read" in result.archives[0].warnings[0]


def test_a_disk_that_was_written_but_is_not_there(host: Host) -> None:
    path = make_vm(host, "")
    folder = DumpFolder("nas", str(path.parent))
    archive = folder.find(path.name)
    folder.set_record(archive, ArchiveRecord(path.stat().st_size, {**archive.record.digests, "scsi7": "0" * 64}))
    (finding,) = run(host).findings
    assert (finding["volume"], "scsi7 is missing" in finding["cause"]) == ("scsi7", True)


def test_a_hostile_container_is_told_as_a_restore_would_refuse_it(host: Host) -> None:
    path = make_ct(host, "", record=False)
    with tarfile.open(path, "a", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("./../../outside"))
    (finding,) = run(host).findings
    assert "its name leaves the container" in finding["cause"]


def test_which_archives(host: Host) -> None:
    for day in (8, 9, 10):
        make_ct(host, "zst", day=day)
        make_vm(host, "", day=day)
    everything = verify.plan_verify(host, VerifyRequest(storage="nas"))
    assert (len(everything.archives), set(states(everything)), everything.changed) == (6, {"planned"}, True)
    newest = verify.plan_verify(host, VerifyRequest(newest=True))
    assert sorted(one.archive for one in newest.archives) == [
        f"nas:backup/{named('lxc', 'zst')}",
        f"nas:backup/{named('qemu', '')}",
    ]
    assert len(verify.plan_verify(host, VerifyRequest(vmid=[100])).archives) == 3
    (one,) = run(host, storage=None, archives=["nas:latest/100"], level="index").archives
    assert (one.archive, one.state) == (f"nas:backup/{named('qemu', '')}", "ok")
    with pytest.raises(UsageError, match="name archives, or select them"):
        run(host, archives=["nas:latest/100"])
    with pytest.raises(UsageError, match="no level 'boot'"):
        run(host, level="boot")
    with pytest.raises(StorageError, match="there is no archive"):
        run(host, storage=None, archives=["nas:backup/vzdump-lxc-101-1999_01_01-00_00_00.tar"])
    with pytest.raises(UsageError):
        run(host, max_age="soon")


def test_an_archive_outside_of_storages_gets_no_record(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / named("lxc", "zst")
    path.parent.mkdir()
    shutil.copy(make_ct(host, "zst"), path)
    assert states(run(host, storage=None, archives=[str(path)])) == ["unknown"]
    assert os.listdir(path.parent) == [path.name]


def test_what_was_verified_not_long_ago_is_left_alone(host: Host) -> None:
    make_ct(host, "zst")
    assert states(run(host, level="index", max_age="1h")) == ["ok"]
    again = run(host, level="index", max_age="1h")
    assert (states(again), again.changed, again.ok) == (["fresh"], False, True)
    assert "verified at the level index less than 1h ago: ok" in again.archives[0].reason
    assert states(run(host, max_age="1h")) == ["ok"]
    assert states(run(host, level="index", max_age="1h")) == ["fresh"]
    assert states(run(host)) == ["ok"]
    path = make_ct(host, "zst")
    path.write_bytes(path.read_bytes()[:-100])
    assert states(run(host)) == ["damaged"]
    assert states(run(host, max_age="1h")) == ["damaged"]


def test_retention_knows_what_is_damaged(host: Host) -> None:
    make_ct(host, "zst", day=9)
    newest = make_ct(host, "zst", day=10)
    newest.write_bytes(flipped(0.5)(newest.read_bytes()))
    run(host)
    with pytest.raises(StorageError, match="would remove the last good archives"):
        plan_prune(host, PruneRequest("nas", "keep-last=1"))


def test_a_bad_archive_does_not_stop_the_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = make_vm(host, "", day=8)
    bad.write_bytes(bad.read_bytes()[:-5])
    make_vm(host, "gz", day=9)
    make_vm(host, "", day=10)
    monkeypatch.setattr("engine.stream.source.decompress_argv", lambda compression: ["/nowhere/gzip"])
    result = run(host)
    assert (states(result), result.ok) == (["damaged", "failed", "ok"], False)
    assert result.findings[-1]["remedy"] == "install the package gzip"
    (entry,) = [entry for entry in list_archives(host, ArchiveFilter("nas")) if entry.archive.format == "vma.gz"]
    assert entry.to_dict()["verified"] is None


class Meddler(SilentReporter):
    """Does something when the verification of an archive begins."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def info(self, message: str) -> None:
        if message.startswith("verifying"):
            self._act()


def test_an_archive_that_is_removed_meanwhile(host: Host) -> None:
    path = make_ct(host, "zst")
    result = verify.run_verify(host, VerifyRequest(storage="nas"), Meddler(path.unlink))
    assert (states(result), result.ok) == (["gone"], True)
    assert [item.name for item in path.parent.iterdir() if not item.name.endswith(".record")] == []


def test_a_signal_ends_it_and_keeps_what_was_found(host: Host) -> None:
    make_ct(host, "zst", day=9)
    make_ct(host, "zst", day=10)
    calls: list[int] = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as info:
        verify.run_verify(host, VerifyRequest(storage="nas"), Meddler(interrupt))
    assert info.value.result is not None
    assert [one["state"] for one in info.value.result["archives"]] == ["ok", "planned"]
    assert load_records(host)[0].state == "interrupted"


def test_a_storage_that_cannot_be_written_keeps_the_result_in_the_run(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ct(host, "zst")

    def refuse(*_args: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("engine.storages.dump.write_atomic", refuse)
    result = run(host)
    assert states(result) == ["ok"]
    assert "Read-only file system" in result.warnings[0]


def test_a_broken_request_is_an_error_of_its_own(host: Host) -> None:
    with pytest.raises(HoldfastError, match="storage 'nowhere' does not exist"):
        run(host, storage="nowhere")
