# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What vzdump's ``compress``, ``pigz`` and ``zstd`` mean in programs and threads."""

from __future__ import annotations

from typing import Any

import pytest
from engine.rules.options import parse_options
from engine.rules.precedence import merge
from engine.stream import children, sink
from engine.stream.children import compress_argv
from engine.tasks.backup_setup import BackupSettings

CPUS = 8


@pytest.mark.parametrize(
    ("options", "argv"),
    [
        ({"compress": "lzo"}, ["lzop"]),
        ({"compress": "gzip"}, ["gzip", "--rsyncable"]),
        ({"compress": "gzip", "pigz": 1}, ["pigz", "-p", "4", "--rsyncable"]),
        ({"compress": "gzip", "pigz": 3}, ["pigz", "-p", "3", "--rsyncable"]),
    ],
)
def test_programs(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], argv: list[str]) -> None:
    monkeypatch.setattr(children, "cpu_count", lambda: CPUS)
    settings = BackupSettings(merge(parse_options(options), {}))
    assert compress_argv(settings.compression, settings.threads) == argv


@pytest.mark.parametrize(("zstd", "threads"), [(None, 1), (0, 4), (1, 1), (6, 6)])
def test_zstd_threads(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, zstd: int | None, threads: int) -> None:
    monkeypatch.setattr(sink, "cpu_count", lambda: CPUS)
    settings = BackupSettings(merge(parse_options({"compress": "zstd", "zstd": zstd}), {}))
    with sink.open_sink(str(tmp_path / "archive.zst"), settings.compression, threads=settings.threads) as archive:
        assert isinstance(archive, sink.FrameSink)
        assert archive._workers._max_workers == threads
