# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hostile input made from good archives: changed here and there, with checksums that are right again."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import tarfile
from dataclasses import dataclass
from typing import Iterable

from engine.formats import vma_layout as vma
from engine.formats.cluster_map import ClusterMapBuilder
from engine.formats.vma_writer import VmaWriter
from hypothesis import strategies as st

NUMBERS = (0, 1, 2, 58, 59, 255, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
VM_CONFIG = b"#qmdump#map:scsi0:drive-scsi0:local:raw:\nname: web\nscsi0: local:100/vm-100-disk-0.raw,size=1M\n"


@dataclass(frozen=True)
class Edit:
    """One change at a place that is a part of the whole, so that it means something for data of any size."""

    kind: str
    place: float
    number: int
    size: int

    def apply(self, data: bytearray) -> None:
        at = int(self.place * len(data))
        if self.kind == "flip" and data:
            data[min(at, len(data) - 1)] ^= 1 << self.number % 8
        elif self.kind == "number":
            raw = (self.number % (1 << 8 * self.size)).to_bytes(self.size, "big" if self.number % 2 else "little")
            data[at : at + len(raw)] = raw
        elif self.kind == "cut":
            del data[at:]
        elif self.kind == "remove":
            del data[at : at + self.size * 97]
        elif self.kind == "repeat":
            data[at:at] = data[at : at + self.size * 97]


EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["flip", "number", "number", "cut", "remove", "repeat"]),
        st.floats(0, 1),
        st.one_of(st.sampled_from(NUMBERS), st.integers(0, (1 << 64) - 1)),
        st.sampled_from([1, 2, 4, 8]),
    ),
    max_size=6,
)


def edited(data: bytes, edits: Iterable[Edit]) -> bytearray:
    changed = bytearray(data)
    for edit in edits:
        edit.apply(changed)
    return changed


def vma_archive(shape: list[int], configs: list[tuple[str, bytes]]) -> tuple[bytes, bytes]:
    """A small archive with one disk for each size in sectors, and its cluster map."""
    out = bytearray()
    index = ClusterMapBuilder()
    rng = random.Random(len(shape))
    disks = [b"".join(rng.choice([bytes(512), rng.randbytes(512)]) for _sector in range(sectors)) for sectors in shape]
    names = [f"drive-scsi{number}" for number in range(len(disks))]
    writer = VmaWriter(out.extend, bytes(range(16)), 1, configs, zip(names, map(len, disks)), index)
    for dev_id, disk in enumerate(disks, 1):
        writer.write_clusters(dev_id, 0, disk)
    writer.close()
    return bytes(out), index.frame()


VMA = st.builds(
    vma_archive,
    st.lists(st.sampled_from([1, 7, 128, 129, 1000, 8000]), max_size=3),
    st.lists(
        st.tuples(st.sampled_from(["qemu-server.conf", "qemu-server.fw"]), st.just(VM_CONFIG)), min_size=1, max_size=2
    ),
)


def reseal(data: bytearray) -> bytearray:
    """Make the checksums of header and extents right, as far as they can be found."""
    size = struct.unpack_from(">I", data, 56)[0] if len(data) >= 60 else 0
    if not vma.HEADER_FIXED <= size <= len(data):
        return data
    _seal(data, 0, size, vma.HEADER_MD5)
    uuid = data[8:24]
    at = size
    while at + vma.EXTENT_HEADER <= len(data):
        blocks = struct.unpack_from(">H", data, at + 6)[0]
        data[at + 8 : at + 24] = uuid
        _seal(data, at, vma.EXTENT_HEADER, vma.EXTENT_MD5)
        at += vma.EXTENT_HEADER + blocks * vma.BLOCK
    return data


def _seal(data: bytearray, at: int, size: int, where: slice) -> None:
    record = data[at : at + size]
    record[where] = bytes(16)
    data[at + where.start : at + where.stop] = hashlib.md5(record).digest()


def crafted_extents(head: bytes, extents: list[tuple[list[tuple[int, int, int]], int]]) -> bytearray:
    """Extents of any slots behind a good header; each has a number of blocks that is off by some."""
    data = bytearray(head)
    for slots, off in extents:
        blocks = max(0, sum(bin(mask).count("1") for mask, _dev_id, _cluster in slots) + off)
        extent = bytearray(vma.EXTENT_HEADER)
        vma.EXTENT.pack_into(extent, 0, vma.EXTENT_MAGIC, 0, blocks & 0xFFFF, head[8:24], bytes(16))
        for number, (mask, dev_id, cluster) in enumerate(slots):
            vma.SLOT.pack_into(extent, vma.SLOTS_AT + 8 * number, mask, 0, dev_id, cluster)
        data += extent + bytes(blocks * vma.BLOCK)
    return reseal(data)


EXTENTS = st.lists(
    st.tuples(
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 1, 0x8000, 0xFFFF, 0xFFFF, 0xAAAA]),
                st.sampled_from([0, 1, 1, 1, 2, 3, 254, 255]),
                st.one_of(st.integers(0, 70), st.sampled_from([0xFFFF, 0x10000, 0xFFFFFFFE, 0xFFFFFFFF])),
            ),
            max_size=59,
        ),
        st.sampled_from([0, 0, 0, 0, 1, -1, 944]),
    ),
    max_size=3,
)


def tar_archive(form: int, members: list[tuple[str, bytes, str, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, kind, link, size in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = size if kind == tarfile.REGTYPE else 0
            if form == tarfile.PAX_FORMAT and size % 2:
                info.pax_headers = {"SCHILY.xattr.user.x": "y" * size, "mtime": "1.5"}
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


_NAMES = st.sampled_from(
    [
        "./etc/vzdump/pct.conf",
        "./a",
        "./a/b",
        "../x",
        "/abs/x",
        "./" + "n" * 90,
        "./d/" + "l" * 150,
        "./a/../..",
        "x y\n",
    ]
)
TAR = st.builds(
    tar_archive,
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(
        st.tuples(
            _NAMES,
            st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
            _NAMES,
            st.sampled_from([0, 1, 511, 512, 513, 3000]),
        ),
        max_size=6,
    ),
)


def right_checksums(data: bytearray) -> bytearray:
    """Make the checksums of all tar headers right that stand at their places."""
    at = 0
    while at + 512 <= len(data):
        head = data[at : at + 512]
        digits = bytes(head[124:136]).strip(b" \0")
        size = int(digits, 8) if digits and not digits.strip(b"01234567") else 0
        if any(head):
            head[148:156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(head)
        at += 512 + -(-size // 512) * 512
    return data


_VOLUMES = [
    "local:100/vm-100-disk-0.raw,size=1M",
    "file=local:100/x,backup=0",
    "/dev/sda,media=cdrom",
    "none,media=cdrom",
    "local:100/vm-100-cloudinit.raw,media=cdrom",
    "volume=local:101/subvol-101-disk-0.subvol,mp=/../x",
    "/etc,mp=/host",
]
_WORDS = """args hookscript hostpci0 scsi0 virtio1 rootfs mp0 net0 lock lxc.hook.start dev0 usb0 serial0 smbios1
vmgenid parent unused0 name memory bios unprivileged"""
_KEYS = tuple(_WORDS.split())
_LINES = st.one_of(
    st.builds("{}: {}".format, st.sampled_from(_KEYS), st.one_of(st.sampled_from(_VOLUMES), st.text(max_size=30))),
    st.builds("#qmdump#map:{}:{}:{}:{}:".format, *[st.sampled_from(["scsi0", "", "..", "drive-scsi0", "a/b"])] * 4),
    st.sampled_from(
        ["[snap]", "#", "args:-x", "args : -x", "  args: -x", "Args: -x", "args: a\\\nargs: b", "\x0cargs: x"]
    ),
    st.text(max_size=40),
)
CONFIGS = st.lists(_LINES, max_size=12).map("\n".join)


def pieces(data: bytes | bytearray, cuts: list[float]) -> Iterable[memoryview]:
    """The data in parts, cut at these places."""
    places = sorted({0, len(data), *(int(cut * len(data)) for cut in cuts)})
    view = memoryview(bytes(data))
    for begin, end in zip(places, places[1:]):
        yield view[begin:end]
