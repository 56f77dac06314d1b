# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writing VMA archives, byte for byte as the stock writer does for the same order of clusters."""

from __future__ import annotations

from typing import Callable, Iterable, Protocol

from ..errors import IntegrityError, UsageError
from . import vma_layout as vma
from .vma_layout import BLOCK, BLOCKS_PER_CLUSTER, CLUSTER, FULL_MASK, Buffer, Coverage, Device, mask_ranges

_ZERO_BLOCK = bytes(BLOCK)
_ZERO_CLUSTER = bytes(CLUSTER)


class RunObserver(Protocol):
    """Is told where in the archive each run of clusters lies (see :mod:`.cluster_map`)."""

    def add(self, dev_id: int, first: int, count: int, mask: int, offset: int) -> None:
        """``count`` clusters with the same mask; their payload starts at archive byte ``offset``."""


def encode_header(uuid: bytes, ctime: int, configs: Iterable[tuple[str, bytes]], devices: Iterable[Device]) -> bytes:
    """The archive header.

    :raises UsageError: a config or the whole header is larger than the format can hold.
    """
    blobs = bytearray(1)
    table_size = 0

    def alloc(data: bytes) -> int:
        nonlocal table_size
        if len(data) > vma.MAX_BLOB:
            raise UsageError(f"cannot put {len(data)} bytes into the archive header: a VMA blob holds {vma.MAX_BLOB}")
        pointer = len(blobs)
        need = len(data) + 2
        if pointer + need > table_size:
            table_size += -(-need // 512) * 512
        blobs.extend(vma.BLOB_LENGTH.pack(len(data)) + data)
        if len(blobs) > table_size:
            table_size += 512
        return pointer

    names, contents = [0] * vma.MAX_CONFIGS, [0] * vma.MAX_CONFIGS
    for slot, (name, data) in enumerate(configs):
        if slot >= vma.MAX_CONFIGS:
            raise UsageError(f"cannot put more than {vma.MAX_CONFIGS} configs into one VMA archive")
        names[slot] = alloc(name.encode() + b"\0")
        contents[slot] = alloc(data)
    pointers = [(device, alloc(device.name.encode() + b"\0")) for device in devices]

    header_size = vma.HEADER_FIXED + table_size
    if header_size > vma.HEADER_MAX:
        raise UsageError(f"cannot write a VMA header of {header_size} bytes: the format allows {vma.HEADER_MAX}")
    header = bytearray(header_size)
    vma.HEADER.pack_into(header, 0, vma.MAGIC, 1, uuid, ctime, bytes(16), vma.HEADER_FIXED, len(blobs), header_size)
    vma.CONFIG_POINTERS.pack_into(header, vma.CONFIG_NAMES_AT, *names)
    vma.CONFIG_POINTERS.pack_into(header, vma.CONFIG_DATA_AT, *contents)
    for device, pointer in pointers:
        vma.DEVICE.pack_into(header, vma.DEVICES_AT + vma.DEVICE.size * device.dev_id, pointer, device.size)
    header[vma.HEADER_FIXED : vma.HEADER_FIXED + len(blobs)] = blobs
    header[vma.HEADER_MD5] = vma.checksum(header, vma.HEADER_MD5)
    return bytes(header)


class VmaWriter:
    """Turns clusters into an archive.

    :param write: takes all of a bytes-like object, which may be reused once the call returned.
    :param uuid: 16 random bytes; :param ctime: seconds since the epoch.
    :param configs: ``(file name, content)``, ``qemu-server.conf`` first.
    :param devices: ``(name, size in bytes)``; ids are 1, 2, ... in this order. Sizes are multiples of 512, because
        the stock reader counts in sectors.
    :param observer: is told the place of each run of clusters in the archive.
    :raises UsageError: nothing that the format can hold.
    """

    def __init__(
        self,
        write: Callable[[Buffer], object],
        uuid: bytes,
        ctime: int,
        configs: Iterable[tuple[str, bytes]],
        devices: Iterable[tuple[str, int]],
        observer: RunObserver | None = None,
    ) -> None:
        self._write = write
        self._uuid = uuid
        self._observer = observer
        self.devices = tuple(Device(index, name, size) for index, (name, size) in enumerate(devices, 1))
        if len(self.devices) > vma.MAX_DEVICES:
            raise UsageError(f"cannot archive {len(self.devices)} disks: a VMA archive holds {vma.MAX_DEVICES}")
        for device in self.devices:
            if device.size <= 0 or device.size % 512 or device.clusters > vma.MAX_CLUSTERS:
                raise UsageError(f"cannot archive {device.name} of {device.size} bytes: not a size that VMA can hold")
        self._seen = Coverage()
        self._header: bytes | None = encode_header(uuid, ctime, configs, self.devices)
        self._offset = 0
        self._slots = bytearray()
        self._used = 0
        self._blocks = 0
        # Payload of the extent being built: what earlier calls left (copied), then views of the current call's buffer.
        self._kept = bytearray(vma.EXTENT_BYTES)
        self._kept_length = 0
        self._views: list[memoryview] = []

    def write_clusters(self, dev_id: int, first_cluster: int, buffer: Buffer) -> int:
        """Add consecutive clusters: any number of whole ones, and the device's last one as it is or padded to 64 KiB.

        :returns: how many of the device's bytes were all-zero blocks and take no room in the archive.
        :raises IntegrityError: a cluster came twice or lies outside the device.
        """
        device = self._device(dev_id)
        view = memoryview(buffer).cast("B")
        count = -(-len(view) // CLUSTER)
        self._mark(device, first_cluster, count)
        whole = min(count, device.size // CLUSTER - first_cluster) if device.name != vma.VMSTATE else count
        whole = min(whole, len(view) // CLUSTER)
        zero = self._add_whole(device, first_cluster, buffer, view, whole)
        if whole < count:
            if count - whole > 1 or first_cluster + count != device.clusters:
                raise IntegrityError(f"{device.name}: {len(view)} bytes are not whole clusters and not the disk's end")
            zero += self._add_tail(device, first_cluster + whole, view[whole * CLUSTER :])
        self._keep_views()
        return zero

    def write_zero_clusters(self, dev_id: int, first: int, count: int) -> int:
        """Add clusters that are all zero; returns the device's bytes they stand for."""
        device = self._device(dev_id)
        self._mark(device, first, count)
        self._add_run(device, first, count, 0, None)
        self._keep_views()
        return min((first + count) * CLUSTER, device.size) - first * CLUSTER

    def close(self) -> None:
        """Write what is left.

        :raises IntegrityError: a device has clusters that were never written.
        """
        for device in self.devices:
            gap = self._seen.first_gap(device.dev_id, device.clusters)
            if gap is not None and device.name != vma.VMSTATE:
                raise IntegrityError(f"the archive of {device.name} is incomplete: cluster {gap} was never written")
        if self._used or self._header is not None:
            self._flush()

    def _device(self, dev_id: int) -> Device:
        if not 1 <= dev_id <= len(self.devices):
            raise IntegrityError(f"device id {dev_id} is not part of this archive")
        return self.devices[dev_id - 1]

    def _mark(self, device: Device, first: int, count: int) -> None:
        if first < 0 or first + count > (vma.MAX_CLUSTERS if device.name == vma.VMSTATE else device.clusters):
            raise IntegrityError(f"{device.name}: cluster {first + count - 1} lies beyond the disk's end")
        if device.name == vma.VMSTATE and (self._seen.first_gap(device.dev_id, first + 1) != first):
            raise IntegrityError(f"{device.name}: cluster {first} is out of order")
        twice = self._seen.add(device.dev_id, first, count) if count else None
        if twice is not None:
            raise IntegrityError(f"{device.name}: cluster {twice} was written twice")

    def _add_whole(self, device: Device, first: int, buffer: Buffer, view: memoryview, count: int) -> int:
        """Clusters entirely inside the device. One byte of each block tells most blocks from zero at C speed."""
        probe = view[: count * CLUSTER : BLOCK].tobytes()
        zero, done = 0, 0
        while done < count:
            hit = probe.find(0, done * BLOCKS_PER_CLUSTER)
            full = (count if hit < 0 else hit // BLOCKS_PER_CLUSTER) - done
            if full:
                self._add_run(device, first + done, full, FULL_MASK, view[done * CLUSTER : (done + full) * CLUSTER])
                done += full
                continue
            at = done * CLUSTER
            # Only bytes and bytearray can be compared in place; a view of something else is copied once.
            if isinstance(buffer, (bytes, bytearray)):
                mask = _mask(buffer, at, probe[done * BLOCKS_PER_CLUSTER : (done + 1) * BLOCKS_PER_CLUSTER])
            else:
                cluster = view[at : at + CLUSTER].tobytes()
                mask = _mask(cluster, 0, probe[done * BLOCKS_PER_CLUSTER : (done + 1) * BLOCKS_PER_CLUSTER])
            if mask == 0:
                zero += CLUSTER
                self._add_run(device, first + done, 1, 0, None)
            else:
                zero += (BLOCKS_PER_CLUSTER - bin(mask).count("1")) * BLOCK
                self._add_run(device, first + done, 1, mask, view[at : at + CLUSTER])
            done += 1
        return zero

    def _add_tail(self, device: Device, cluster: int, view: memoryview) -> int:
        """The last cluster of a device whose size is not a multiple of 64 KiB; nothing past the end gets out."""
        inside = device.size - cluster * CLUSTER
        raw = bytearray(CLUSTER)
        raw[: len(view)] = view
        blocks = -(-inside // BLOCK)
        mask = _mask(raw, 0, bytes(BLOCKS_PER_CLUSTER)) & ((1 << blocks) - 1)
        raw[inside:] = bytes(CLUSTER - inside)
        self._add_run(device, cluster, 1, mask, memoryview(raw) if mask else None)
        return sum(min(BLOCK, inside - block * BLOCK) for block in range(blocks) if not mask >> block & 1)

    def _add_run(self, device: Device, first: int, count: int, mask: int, view: memoryview | None) -> None:
        """Clusters with one mask; ``view`` holds all their blocks, zero ones too (``None`` if all are zero)."""
        done = 0
        while done < count:
            if self._used >= vma.EXTENT_SLOTS_USED:
                self._flush()
            take = min(count - done, vma.EXTENT_SLOTS_USED - self._used)
            if self._observer is not None:
                at = self._offset + len(self._header or b"") + vma.EXTENT_HEADER + self._blocks * BLOCK
                self._observer.add(device.dev_id, first + done, take, mask, at)
            self._slots += vma.encode_slots(mask, device.dev_id, first + done, take)
            self._used += take
            if view is not None and mask == FULL_MASK:
                self._views.append(view[done * CLUSTER : (done + take) * CLUSTER])
                self._blocks += take * BLOCKS_PER_CLUSTER
            elif view is not None:
                for begin, end in mask_ranges(mask):
                    self._views.append(view[begin * BLOCK : end * BLOCK])
                    self._blocks += end - begin
            done += take

    def _keep_views(self) -> None:
        """The caller may reuse its buffer now: send a full extent, copy the payload of one that waits for more."""
        if self._used >= vma.EXTENT_SLOTS_USED:
            self._flush()
        at = self._kept_length
        for view in self._views:
            self._kept[at : at + len(view)] = view
            at += len(view)
        self._kept_length = at
        self._views.clear()

    def _flush(self) -> None:
        if self._header is not None:
            self._write(self._header)
            self._offset += len(self._header)
            self._header = None
        head = bytearray(vma.EXTENT_HEADER)
        vma.EXTENT.pack_into(head, 0, vma.EXTENT_MAGIC, 0, self._blocks, self._uuid, bytes(16))
        head[vma.SLOTS_AT : vma.SLOTS_AT + len(self._slots)] = self._slots
        head[vma.EXTENT_MD5] = vma.checksum(head, vma.EXTENT_MD5)
        self._write(head)
        if self._kept_length:
            self._write(memoryview(self._kept)[: self._kept_length])
        for view in self._views:
            self._write(view)
        self._offset += vma.EXTENT_HEADER + self._blocks * BLOCK
        self._slots.clear()
        self._used = 0
        self._views.clear()
        self._blocks = 0
        self._kept_length = 0


def _mask(data: bytes | bytearray, at: int, probe: bytes) -> int:
    """Which blocks of the cluster at ``at`` hold anything; ``probe`` has the first byte of each block (0: look)."""
    if not any(probe) and data.startswith(_ZERO_CLUSTER, at):
        return 0
    mask = FULL_MASK
    for block in range(BLOCKS_PER_CLUSTER):
        if not probe[block] and data.startswith(_ZERO_BLOCK, at + block * BLOCK):
            mask &= ~(1 << block)
    return mask
