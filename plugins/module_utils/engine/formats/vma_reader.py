# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading VMA archives from a stream, trusting nothing in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterator, Protocol

from ..errors import IntegrityError
from . import vma_layout as vma
from .vma_layout import BLOCK, CLUSTER, FULL_MASK, Coverage, Device, Header, mask_ranges


class ByteStream(Protocol):
    """What archives are read from; ``readinto`` may return less than asked for, and 0 only at the end."""

    def readinto(self, buffer: memoryview) -> int | None: ...


@dataclass(frozen=True)
class Piece:
    """Bytes of one device: ``data`` (valid until the next piece is asked for), or zeros when it is ``None``.

    ``offset`` and ``length`` are bytes of the device, clipped to its end.
    """

    device: Device
    offset: int
    length: int
    data: memoryview | None


@dataclass(frozen=True)
class _Run:
    """Consecutive clusters of one extent with the same mask, several only if that is full or zero."""

    device: Device
    first: int
    count: int
    mask: int
    at: int


class VmaReader:
    """An archive being read once, from its first byte to its last.

    :raises IntegrityError: the header is not that of a VMA archive, damaged, or asks for the impossible.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._offset = 0
        self.header = self._read_header()
        self._by_id = {device.dev_id: device for device in self.header.devices}
        self._seen = Coverage()
        self._vmstate_next = 0
        self._buffer = bytearray(vma.EXTENT_HEADER + vma.EXTENT_MAX_BLOCKS * BLOCK)

    @property
    def offset(self) -> int:
        """Archive bytes (after decompression) read so far."""
        return self._offset

    def extents(self) -> Iterator[tuple[int, int, int, memoryview]]:
        """Every cluster as ``(dev_id, cluster, mask, payload)``; the payload is valid until the next extent.

        :raises IntegrityError: see :meth:`pieces`.
        """
        for runs, payload in self._extents():
            for run in runs:
                size = bin(run.mask).count("1") * BLOCK
                for index in range(run.count):
                    at = run.at + index * size
                    yield run.device.dev_id, run.first + index, run.mask, payload[at : at + size]

    def pieces(self) -> Iterator[Piece]:
        """The archive as large writes, in archive order: adjacent stored blocks together, adjacent zeros together.

        At the end of the iteration every cluster of every disk was seen exactly once.

        :raises IntegrityError: structure damaged, cluster twice, missing or outside its disk, archive cut short.
        """
        for runs, payload in self._extents():
            for run in runs:
                yield from _run_pieces(run, payload)

    def verify(self, skip: Callable[[int], int] | None = None) -> None:
        """Read to the end and check the structure; the payload itself has no checksum in this format.

        :param skip: passes over that many bytes of the stream instead of reading them, and returns over how many.
        :raises IntegrityError: as :meth:`pieces`.
        """
        for _runs, _payload in self._extents(skip):
            pass

    def _read(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            got = self._stream.readinto(view[done:])
            if not got:
                break
            done += got
        self._offset += done
        return done

    def _read_header(self) -> Header:
        raw = bytearray(vma.HEADER_FIXED)
        got = self._read(memoryview(raw))
        if got >= 4 and raw[:4] != vma.MAGIC:
            raise IntegrityError(f"not a VMA archive: it starts with {bytes(raw[:4])!r} instead of {vma.MAGIC!r}")
        if got < vma.HEADER_FIXED:
            raise IntegrityError(f"cannot read the VMA header: {got} bytes instead of {vma.HEADER_FIXED}")
        _magic, version, uuid, ctime, md5, blob_offset, blob_size, header_size = vma.HEADER.unpack_from(raw)
        # The stock reader accepts up to 2 GiB; the writer's limit with generous room is enough for every real archive.
        if not vma.HEADER_FIXED < header_size <= vma.HEADER_FIXED + 64 * vma.HEADER_MAX:
            raise IntegrityError(f"bad header size {header_size} in the VMA header")
        rest = bytearray(header_size - vma.HEADER_FIXED)
        if self._read(memoryview(rest)) < len(rest):
            raise IntegrityError(f"cannot read the VMA header: the archive ends before its {header_size} bytes do")
        raw += rest
        if vma.checksum(raw, vma.HEADER_MD5) != md5:
            raise IntegrityError("the checksum of the VMA header (bytes 32 to 47) does not match its content")
        if version != 1:
            raise IntegrityError(f"VMA version {version} is not supported, only 1")
        if blob_offset < vma.HEADER_FIXED:
            raise IntegrityError(f"bad blob table offset {blob_offset} in the VMA header")
        if blob_offset + blob_size > header_size:
            raise IntegrityError(f"bad blob table size {blob_size} in the VMA header: it ends behind the header")
        blobs = _parse_blobs(raw, blob_offset, blob_size)
        return Header(uuid, ctime, _parse_configs(raw, blobs), _parse_devices(raw, blobs), header_size)

    def _extents(self, skip: Callable[[int], int] | None = None) -> Iterator[tuple[list[_Run], memoryview]]:
        view = memoryview(self._buffer)
        while True:
            start = self._offset
            got = self._read(view[: vma.EXTENT_HEADER])
            if got == 0:
                break
            if got < vma.EXTENT_HEADER:
                raise IntegrityError(
                    f"short extent at byte {start}: {got} bytes instead of a {vma.EXTENT_HEADER} byte header"
                )
            blocks = self._check_extent(view[: vma.EXTENT_HEADER], start)
            payload = view[vma.EXTENT_HEADER : vma.EXTENT_HEADER + blocks * BLOCK]
            if skip is None:
                got = self._read(payload)
            else:
                got = skip(len(payload))
                self._offset += got
            if got < len(payload):
                raise IntegrityError(f"short extent at byte {start}: {got} bytes of payload instead of {len(payload)}")
            yield self._parse_slots(view[: vma.EXTENT_HEADER], blocks, start), payload
        for device in self.header.devices:
            gap = self._seen.first_gap(device.dev_id, device.clusters)
            if gap is not None and device.name != vma.VMSTATE:
                raise IntegrityError(
                    f"missing cluster {gap} of {device.name}: the archive ends at byte {self._offset} without it"
                )

    def _check_extent(self, head: memoryview, start: int) -> int:
        magic, reserved, blocks, uuid, md5 = vma.EXTENT.unpack_from(head)
        if vma.checksum(head, vma.EXTENT_MD5) != md5:
            raise IntegrityError(f"the checksum of the extent header at byte {start} does not match its content")
        if uuid != self.header.uuid:
            raise IntegrityError(f"the extent at byte {start} belongs to another archive: its uuid is {uuid.hex()}")
        if magic != vma.EXTENT_MAGIC or reserved:
            raise IntegrityError(f"the extent at byte {start} has the wrong magic")
        if blocks > vma.EXTENT_MAX_BLOCKS:
            raise IntegrityError(f"short extent at byte {start}: {blocks} blocks are more than an extent can hold")
        return int(blocks)

    def _parse_slots(self, head: memoryview, blocks: int, start: int) -> list[_Run]:
        runs: list[_Run] = []
        used = 0
        slots = vma.SLOTS.unpack_from(head, vma.SLOTS_AT)
        at = 0
        while at < len(slots):
            slot = slots[at]
            mask, dev_id, cluster = slot >> 48, slot >> 32 & 0xFF, slot & 0xFFFFFFFF
            count = 1
            if dev_id:
                device = self._by_id.get(dev_id)
                if device is None or dev_id > vma.MAX_DEVICES:
                    raise IntegrityError(f"the extent at byte {start} names the unknown device {dev_id}")
                if mask in (0, FULL_MASK):
                    end = min(len(slots) - at, vma.MAX_CLUSTERS - cluster)
                    while count < end and slots[at + count] == slot + count:
                        count += 1
                runs.append(_Run(device, cluster, count, mask, used))
                used += bin(mask).count("1") * BLOCK * count
            at += count
        for run in runs:
            self._check_run(run, start)
        if used > blocks * BLOCK:
            raise IntegrityError(
                f"too many blocks in the masks of the extent at byte {start}: {used // BLOCK}, not {blocks}"
            )
        if used < blocks * BLOCK:
            raise IntegrityError(
                f"missing blocks in the masks of the extent at byte {start}: {used // BLOCK}, not {blocks}"
            )
        return runs

    def _check_run(self, run: _Run, start: int) -> None:
        device = run.device
        if device.name == vma.VMSTATE:
            if run.first != self._vmstate_next:
                raise IntegrityError(f"out of order cluster {run.first} of {device.name} in the extent at byte {start}")
            self._vmstate_next += run.count
            return
        last = run.first + run.count - 1
        # The end of the last block that is stored (or the start of the last cluster, when none is) lies in the disk.
        needed = last * CLUSTER + max(0, run.mask.bit_length() - 1) * BLOCK
        if last >= device.clusters or needed >= device.size:
            raise IntegrityError(
                f"write beyond end of {device.name} ({device.size} bytes): cluster {last} in the extent at byte {start}"
            )
        twice = self._seen.add(device.dev_id, run.first, run.count)
        if twice is not None:
            raise IntegrityError(f"duplicated cluster {twice} of {device.name} in the extent at byte {start}")


def _run_pieces(run: _Run, payload: memoryview) -> Iterator[Piece]:
    device, base = run.device, run.first * CLUSTER
    end = base + run.count * CLUSTER
    if device.name != vma.VMSTATE:
        end = min(end, device.size)
    if run.mask == 0:
        yield Piece(device, base, end - base, None)
        return
    if run.mask == FULL_MASK:
        yield Piece(device, base, end - base, payload[run.at : run.at + end - base])
        return
    done, at = base, run.at
    for first, last in mask_ranges(run.mask):
        begin, stop = base + first * BLOCK, min(base + last * BLOCK, end)
        if begin > done:
            yield Piece(device, done, begin - done, None)
        yield Piece(device, begin, stop - begin, payload[at : at + stop - begin])
        at += (last - first) * BLOCK
        done = stop
    if done < end:
        yield Piece(device, done, end - done, None)


def _parse_blobs(raw: bytearray, offset: int, size: int) -> dict[int, bytes]:
    blobs = {}
    at, end = offset + 1, offset + size
    while at + 2 <= end:
        (length,) = vma.BLOB_LENGTH.unpack_from(raw, at)
        if at + 2 + length <= end:
            blobs[at - offset] = bytes(raw[at + 2 : at + 2 + length])
        at += 2 + length
    return blobs


def _name(blob: bytes | None) -> str | None:
    """A name blob as text: NUL-terminated, or it does not count."""
    if not blob or blob[-1]:
        return None
    return blob[:-1].split(b"\0")[0].decode("utf-8", "surrogateescape")


def _safe(name: str, what: str) -> str:
    """Names become file and image names at restore; a hostile one must not leave its folder."""
    if not name or "/" in name or name in (".", "..") or any(ord(char) < 32 for char in name):
        raise IntegrityError(f"the archive has a {what} with the unsafe name {name!r}")
    return name


def _parse_configs(raw: bytearray, blobs: dict[int, bytes]) -> tuple[tuple[str, bytes], ...]:
    names = vma.CONFIG_POINTERS.unpack_from(raw, vma.CONFIG_NAMES_AT)
    contents = vma.CONFIG_POINTERS.unpack_from(raw, vma.CONFIG_DATA_AT)
    configs = []
    for slot, (name_at, data_at) in enumerate(zip(names, contents)):
        if name_at and data_at:
            name, data = _name(blobs.get(name_at)), blobs.get(data_at)
            if name is None or data is None:
                raise IntegrityError(f"invalid data pointers in config slot {slot} of the VMA header")
            configs.append((_safe(name, "config"), data))
    return tuple(configs)


def _parse_devices(raw: bytearray, blobs: dict[int, bytes]) -> tuple[Device, ...]:
    devices: list[Device] = []
    for dev_id in range(1, 256):
        pointer, size = vma.DEVICE.unpack_from(raw, vma.DEVICES_AT + vma.DEVICE.size * dev_id)
        name = _name(blobs.get(pointer))
        if not size or name is None:
            continue
        device = Device(dev_id, _safe(name, "device"), size)
        if device.clusters > vma.MAX_CLUSTERS:
            raise IntegrityError(f"device {device.name} claims {size} bytes, more than a VMA archive can hold")
        if any(other.name == device.name for other in devices):
            raise IntegrityError(f"the archive has two devices with the name {device.name}")
        devices.append(device)
    return tuple(devices)
