# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archive names: what is standard, what is only known, what is nothing."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from engine.errors import UsageError
from engine.rules.names import ArchiveName, make_archive_name, parse_archive_name, parse_name
from hypothesis import given, settings
from hypothesis import strategies as st

VIENNA = ZoneInfo("Europe/Vienna")
T = "2026_03_10-02_00_00"


@pytest.mark.parametrize(
    ("name", "kind", "vmid", "ext", "compression"),
    [
        ("vzdump-lxc-105-2009_10_09-11_04_43.tar", "lxc", 105, "tar", ""),
        (f"/x/vzdump-qemu-100-{T}.vma.zst", "qemu", 100, "vma", "zst"),
        (f"vzdump-lxc-105-{T}.tgz", "lxc", 105, "tar", "gz"),
        (f"vzdump-openvz-105-{T}.tar.bz2", "openvz", 105, "tar", "bz2"),
        (f"vzdump-qemu-999999999-{T}.vma.lzo", "qemu", 999999999, "vma", "lzo"),
        (f"vzdump-qemu-100-{T}.tar.zst", "qemu", 100, "tar", "zst"),
        (f"vzdump-lxc-100-{T}.vma", "lxc", 100, "vma", ""),
        ("vzdump-lxc-100-1970_01_02-00_00_00.tar.gz", "lxc", 100, "tar", "gz"),
        ("vzdump-lxc-100-3070_01_01-00_00_00.tar", "lxc", 100, "tar", ""),
    ],
)
def test_standard_names(name: str, kind: str, vmid: int, ext: str, compression: str) -> None:
    parsed = parse_archive_name(name, timezone.utc)
    assert (parsed.kind, parsed.vmid, parsed.ext, parsed.compression) == (kind, vmid, ext, compression)
    assert parsed.filename == name.rpartition("/")[2]


def test_companions_and_time() -> None:
    parsed = parse_archive_name(f"vzdump-lxc-105-{T}.tar.zst", timezone.utc)
    assert parsed.time == int(datetime(2026, 3, 10, 2, tzinfo=timezone.utc).timestamp())
    assert parsed.log == f"vzdump-lxc-105-{T}.log"
    assert parsed.notes == f"vzdump-lxc-105-{T}.tar.zst.notes"


@pytest.mark.parametrize(
    "name",
    [
        f"vzdump-lxc-99-{T}.tar",
        f"vzdump-lxc-0105-{T}.tar",
        f"vzdump-lxc-1234567890-{T}.tar",
        "vzdump-lxc-105-before-upgrade.tar.gz",
        f"vzdump-lxc-105-{T}-keep.tar.gz",
        "vzdump-lxc-105-2026_3_10-02_00_00.tar",
        "vzdump-lxc-105-\u0662\u0660\u0662\u0666_03_10-02_00_00.tar",
    ],
)
def test_names_that_somebody_changed_are_known_but_not_standard(name: str) -> None:
    known = parse_name(name)
    assert (known.kind, known.ext) == ("lxc", "tar")
    assert not isinstance(known, ArchiveName)
    with pytest.raises(UsageError, match="is not a standard archive name"):
        parse_archive_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "vzdump-lxc-105-2026_02_30-02_00_00.tar.zst",
        "vzdump-lxc-105-2026_13_01-02_00_00.tar.zst",
        "vzdump-lxc-105-2026_01_01-24_00_00.tar.zst",
        "vzdump-lxc-105-0000_01_01-00_00_00.tar.zst",
        *(f"vzdump-lxc-105-{T}{ext}" for ext in (".tar.xz", ".tgz.gz", ".zip", ".vma.xz", ".TAR.ZST", ".dat", ".log",
                                                 ".tar.zst.notes", ".tar.zst.protected", "", ".tar.zst\n")),
        f"vzdump-105-{T}.tar",
        f"vzdump-foo-105-{T}.tar",
        f"xvzdump-lxc-105-{T}.tar",
        f"VZDUMP-lxc-105-{T}.tar",
        "vzdump-lxc-.tar",
        "foo.tar.gz",
        "",
        "/x/",
    ],
)  # fmt: skip
def test_what_is_no_archive(name: str) -> None:
    with pytest.raises(UsageError, match="is no archive's name"):
        parse_name(name)


def test_local_times_that_do_not_exist_or_exist_twice() -> None:
    twice = parse_archive_name("vzdump-lxc-105-2026_10_25-02_30_00.tar", VIENNA)
    assert twice.time == int(datetime(2026, 10, 25, 0, 30, tzinfo=timezone.utc).timestamp())
    skipped = parse_archive_name("vzdump-lxc-105-2026_03_29-02_30_00.tar", VIENNA)
    assert skipped.time == int(datetime(2026, 3, 29, 1, 30, tzinfo=timezone.utc).timestamp())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["qemu", "lxc"]),
    st.integers(100, 999999999),
    st.integers(0, 6_000_000_000),
    st.sampled_from(["", "zst", "gz", "lzo"]),
    st.sampled_from([timezone.utc, VIENNA, ZoneInfo("Asia/Kathmandu")]),
)
def test_made_names_are_parsed_again(kind: str, vmid: int, epoch: int, compression: str, tz: ZoneInfo) -> None:
    made = make_archive_name(kind, vmid, epoch, compression, tz)
    parsed = parse_archive_name(f"/some/folder/{made.filename}", tz)
    assert parsed.time in (made.time, made.time - 3600)
    assert (parsed.kind, parsed.vmid, parsed.ext, parsed.compression) == (kind, vmid, made.ext, compression)
    if parsed.time != made.time:
        assert datetime.fromtimestamp(epoch, tz).fold == 1
