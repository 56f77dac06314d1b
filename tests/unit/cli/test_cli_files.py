# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking into files with ``holdfast``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from engine.cli import main
from engine.formats.vma_writer import VmaWriter
from engine.stream.sink import open_sink

CLUSTER = 65536


@pytest.fixture(params=["", ".zst"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"vzdump-qemu-100-2026_03_10-02_00_00.vma{request.param}"
    with open_sink(str(path), request.param.lstrip(".")) as sink:
        writer = VmaWriter(
            sink.write,
            uuid=bytes(range(16)),
            ctime=1_770_000_000,
            configs=[("qemu-server.conf", b"name: a\n")],
            devices=[("drive-scsi0", 3 * CLUSTER)],
        )
        writer.write_clusters(1, 0, b"\x11" * CLUSTER)
        writer.write_zero_clusters(1, 1, 1)
        writer.write_clusters(1, 2, b"\x22" * CLUSTER)
        writer.close()
    return path


def test_info(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vma", "info", str(archive), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["uuid"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert info["configs"] == [{"name": "qemu-server.conf", "size": 8}]
    assert info["devices"] == [{"id": 1, "name": "drive-scsi0", "size": 3 * CLUSTER}]


def test_verify(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vma", "verify", str(archive)]) == 0
    assert "complete and undamaged" in capsys.readouterr().out


def test_a_damaged_archive_is_noticed(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    assert main(["vma", "verify", str(archive)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    archive.write_bytes(b"this is no archive at all" * 100)
    assert main(["vma", "info", str(archive)]) == 1


def test_extract(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert main(["vma", "extract", str(archive), str(folder)]) == 0
    disk = folder / "disk-drive-scsi0.raw"
    assert disk.read_bytes() == b"\x11" * CLUSTER + bytes(CLUSTER) + b"\x22" * CLUSTER
    assert (folder / "qemu-server.conf").read_bytes() == b"name: a\n"
    assert main(["vma", "extract", str(archive), str(folder)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert main(["vma", "info", str(tmp_path / "none.vma")]) == 1


def test_config_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = tmp_path / "storage.cfg"
    storage.write_text("dir: nas\n\tpath /srv\n\tcontent backup\n\tprune-backups keep-last=2\n", encoding="utf-8")
    assert main(["config", "parse", "--kind", "storage", str(storage)]) == 0
    assert json.loads(capsys.readouterr().out)["nas"]["prune_backups"] == {"keep-last": 2}
    jobs = tmp_path / "jobs.cfg"
    jobs.write_text("vzdump: night\n\tschedule 21:00\n\tall 1\n\tstorage nas\n", encoding="utf-8")
    assert main(["config", "parse", "--kind", "jobs", str(jobs)]) == 0
    assert json.loads(capsys.readouterr().out)["night"]["all"] is True
    conf = tmp_path / "vzdump.conf"
    conf.write_text("mode: stop\nbogus: 1\n", encoding="utf-8")
    assert main(["config", "parse", "--kind", "vzdump", str(conf)]) == 0
    captured = capsys.readouterr()
    parsed = json.loads(captured.out)
    assert parsed["options"] == {"mode": "stop"}
    assert len(parsed["warnings"]) == 1
    assert "'bogus'" in captured.err
    storage.write_text("dir nas\n\tpath /x\n\ndir: other\n\tpath /o\n\tfoo 1\n", encoding="utf-8")
    assert main(["config", "parse", "--kind", "storage", str(storage)]) == 0
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)) == ["other"]
    assert "line 1: ignored with what follows" in captured.err
    assert "'foo' has no effect" in captured.err
    assert main(["config", "parse", "--kind", "storage", os.fspath(tmp_path / "none")]) == 1
