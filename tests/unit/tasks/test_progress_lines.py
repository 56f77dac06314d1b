# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from engine.tasks.progress_lines import ProgressLines, amount, duration, summary

GIB = 1 << 30


def test_lines_come_when_the_percentage_changed_and_two_seconds_passed() -> None:
    now = 0.0
    lines = ProgressLines(lambda: now)
    assert lines.line(0, 10 * GIB, 0) is None
    now = 1.0
    assert lines.line(GIB, 10 * GIB, 0) is None
    now = 3.0
    line = lines.line(5 * GIB // 4, 10 * GIB, 5 * GIB // 8)
    assert line == " 12% (1.2 GiB of 10.0 GiB) in 3s, read: 426.7 MiB/s, write: 213.3 MiB/s"
    now = 6.0
    assert lines.line(5 * GIB // 4, 10 * GIB, 5 * GIB // 8) is None
    now = 13.0
    line = lines.line(13 * GIB // 8, 10 * GIB, GIB)
    assert line == " 16% (1.6 GiB of 10.0 GiB) in 13s, read: 38.4 MiB/s, write: 0 B/s"


def test_the_end_is_told_once_however_soon() -> None:
    now = 0.0
    lines = ProgressLines(lambda: now)
    now = 0.5
    assert lines.line(512, 512, 0) == "100% (512.0 B of 512.0 B) in 0s, read: 1.0 KiB/s, write: 1.0 KiB/s"
    assert lines.line(512, 512, 0) is None


def test_an_unknown_total_has_no_percentage() -> None:
    assert ProgressLines().line(512, 0, 0) is None


def test_summary() -> None:
    assert summary(4 * GIB, GIB, 8.5) == [
        "backup is sparse: 1.0 GiB (25%) total zero data",
        "transferred 4.0 GiB in 8 seconds (481.9 MiB/s)",
    ]
    assert summary(1 << 20, 0, 0.5) == ["transferred 1.0 MiB in <1 seconds (2.0 MiB/s)"]


def test_words_of_vzdump() -> None:
    assert [amount(size) for size in (0, 1536, 5 << 40)] == ["0.0 B", "1.5 KiB", "5.0 TiB"]
    assert [duration(seconds) for seconds in (0.4, 62, 3723, 90000)] == ["0s", "1m 2s", "1h 2m 3s", "1d 1h"]
