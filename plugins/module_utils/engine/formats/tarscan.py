# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Following the headers of a tar stream as it passes, and refusing what must never reach tar.

Every header is understood the way GNU tar understands it (ustar, old GNU and pax, sparse files included), so that what
is checked here is what tar would make. Anything unclear is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator

from ..errors import IntegrityError
from .tarsparse import BLOCK, OldMap, PaxMap, blocks

#: Longest pax header or long name taken into memory; real ones hold a path and a few extended attributes.
MAX_META = 4 * 1024 * 1024
#: Largest configuration file taken into memory.
MAX_CONFIG = 1024 * 1024
_ZERO = bytes(BLOCK)
_REGULAR = (b"0", b"\0", b"7", b"S")
_KINDS = frozenset(b"01234567SMVN\0")
"""Types of members that are known here; the guard refuses some of them."""
_NUMBER = re.compile(rb" *([0-7]+)[ \0]*")
_SPARSE = (b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name", b"GNU.sparse.realsize")


@dataclass(frozen=True)
class Member:
    """One entry: ``kind`` is the type flag, ``name`` and ``link`` as tar would use them, ``offset`` of its header."""

    name: bytes
    kind: bytes
    link: bytes
    size: int
    offset: int

    @property
    def text(self) -> str:
        """The name for messages."""
        return self.name.decode("utf-8", "backslashreplace")


class TarScanner:
    """Takes a stream in parts of any size and names its members.

    :raises IntegrityError: from :meth:`feed`, when the stream is no tar archive that can be followed with certainty.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._meta = bytearray()
        self._meta_kind = b""
        self._meta_left = 0
        self._skip = 0
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None
        self._pax: dict[bytes, bytes] = {}
        self._pending: tuple[Member, OldMap] | None = None
        self._map: PaxMap | None = None
        self._zeros = 0
        self.offset = 0
        self.ended = False

    def feed(self, part: memoryview | bytes) -> Iterator[tuple[Member, memoryview]]:
        """Members whose header is complete within ``part``, each with what follows it in ``part``.

        The iteration must be carried through. Behind the two zero blocks that end an archive tar reads nothing.
        """
        view = memoryview(part)
        while view and not self.ended:
            if self._skip and self._map is None:
                step = min(self._skip, len(view))
                self._skip -= step
            elif self._meta_left:
                step = min(self._meta_left, len(view))
                self._meta += view[:step]
                self._meta_left -= step
                if not self._meta_left:
                    self._take_meta()
            else:
                step = min(BLOCK - len(self._head), len(view))
                self._head += view[:step]
            self.offset += step
            view = view[step:]
            if len(self._head) == BLOCK:
                head, self._head = bytes(self._head), bytearray()
                try:
                    member = self._take_head(head)
                except ValueError as exc:
                    raise self._fail(str(exc)) from exc
                if member is not None:
                    yield member, view

    @property
    def ahead(self) -> int:
        """Bytes of a member's content that come next."""
        return self._skip

    def passed(self, count: int) -> None:
        """``count`` bytes of that content were passed over instead of being fed."""
        self._skip -= count
        self.offset += count

    def finish(self) -> None:
        """The stream is over.

        :raises IntegrityError: it stopped before the end of the archive.
        """
        if not self.ended:
            raise IntegrityError(f"the tar archive is cut short: it ends at byte {self.offset} without an end mark")

    def _fail(self, why: str) -> IntegrityError:
        return IntegrityError(f"the tar archive is damaged at byte {max(0, self.offset - BLOCK)}: {why}")

    def _take_head(self, head: bytes) -> Member | None:
        if self._pending is not None:
            member, old = self._pending
            old.extend(head)
            return self._start_old(member, old)
        if self._map is not None:
            self._take_map(self._map, head)
            return None
        if head == _ZERO:
            self._zeros += 1
            self.ended = self._zeros == 2
            return None
        self._zeros = 0
        stored = self._number(head[148:156], "checksum")
        if stored != sum(head) - sum(head[148:156]) + 8 * 32:
            raise self._fail("the checksum of a header does not match")
        kind, size = head[156:157], self._number(head[124:136], "size")
        if kind in (b"L", b"K", b"x", b"g"):
            if size > MAX_META:
                raise self._fail(f"a header of {size} bytes")
            if (kind == b"L" and self._long_name is not None) or (kind == b"K" and self._long_link is not None):
                raise self._fail("a member with two names")
            if kind == b"x" and self._pax:
                raise self._fail("a member with two headers")
            self._meta, self._meta_kind = bytearray(), kind
            self._meta_left = blocks(size) * BLOCK
            self._meta_size = size
            if not size:
                self._take_meta()
            return None
        if kind[0] not in _KINDS:
            raise self._fail(f"a member of the unknown type {kind!r}")
        return self._take_member(head, kind, size)

    def _take_member(self, head: bytes, kind: bytes, size: int) -> Member | None:
        name, link = _string(head[:100]), _string(head[157:257])
        if head[257:263] == b"ustar\0" and head[345] != 0:
            name = _string(head[345:500]) + b"/" + name
        pax, self._pax = self._pax, {}
        name = pax.get(b"path", self._long_name if self._long_name is not None else name)
        # Sparse files carry a made-up path; this is the one that tar uses.
        name = pax.get(b"GNU.sparse.name", name)
        link = pax.get(b"linkpath", self._long_link if self._long_link is not None else link)
        self._long_name = self._long_link = None
        if b"size" in pax:
            if not pax[b"size"].isdigit() or len(pax[b"size"]) > 20:
                raise self._fail("a size that is no number")
            size = int(pax[b"size"])
        if not name:
            raise self._fail("a member without a name")
        if kind in (b"1", b"2", b"3", b"4", b"5", b"6"):
            # Only some archivers give links a size; data never follows these kinds in archives that GNU tar writes.
            if size and kind != b"1":
                raise self._fail(f"a member of type {kind.decode()} with data")
            size = 0 if kind != b"1" else size
        if kind == b"1" and size:
            raise self._fail("a hard link with data")
        if name.endswith(b"/") and size:
            # tar makes a folder of it, and takes its data for headers when there is such a folder already.
            raise self._fail("a folder with data")
        member = Member(name, kind, link, size, self.offset - BLOCK)
        if kind == b"S":
            return self._start_old(member, OldMap(head))
        self._skip = blocks(size) * BLOCK
        if any(key in _SPARSE for key in pax):
            version = pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor")
            if version != (b"1", b"0") or kind not in _REGULAR or head[257:263] != b"ustar\0":
                raise self._fail("a sparse file of an unknown form")
            self._map = PaxMap()
        return member

    def _start_old(self, member: Member, old: OldMap) -> Member | None:
        """Its data follows the last block of the map."""
        if old.more:
            self._pending = member, old
            return None
        self._pending = None
        if old.data != blocks(member.size):
            raise self._fail("a sparse file whose map does not fit its size")
        self._skip = old.data * BLOCK
        return member

    def _take_map(self, sparse: PaxMap, block: bytes) -> None:
        """The first blocks of a sparse file's data; what remains of it is skipped."""
        sparse.take(block)
        self._skip -= BLOCK
        if sparse.done:
            self._map = None
        if self._skip < 0 or (sparse.done and sparse.data * BLOCK != self._skip):
            raise self._fail("a sparse file whose map does not fit its size")

    def _take_meta(self) -> None:
        data, kind = bytes(self._meta[: self._meta_size]), self._meta_kind
        self._meta = bytearray()
        if kind == b"L":
            self._long_name = _string(data)
        elif kind == b"K":
            self._long_link = _string(data)
        else:
            records = dict(self._records(data))
            if kind == b"x":
                self._pax = records
            elif any(key in (b"path", b"linkpath", b"size") or key.startswith(b"GNU.") for key in records):
                raise self._fail("a global header that renames or resizes members")

    def _records(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 12)
            digits = data[at:space] if space > 0 else b""
            end = at + int(digits) if digits.isdigit() else 0
            key, equals, value = data[space + 1 : max(end - 1, 0)].partition(b"=")
            if end <= at or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
                raise self._fail("a pax header that cannot be understood")
            if key in (b"path", b"linkpath", b"GNU.sparse.name") and b"\0" in value:
                raise self._fail("a name with a NUL in it")
            if key.startswith(b"GNU.") and key not in _SPARSE:
                raise self._fail(f"a header with the obsolete key {key.decode('utf-8', 'backslashreplace')}")
            yield key, value
            at = end

    def _number(self, field: bytes, what: str) -> int:
        if field[0] & 0x80:
            value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
            if field[0] & 0x40 or value >= 1 << 62:
                raise self._fail(f"a {what} that is negative or too large")
            return value
        digits = _NUMBER.fullmatch(field)
        if digits is None:
            raise self._fail(f"a {what} that is no number")
        return int(digits[1], 8)


def _string(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def parts_of(name: bytes) -> list[bytes]:
    """The components of a member's name below the root, as extraction uses it: absolute names lose their slash."""
    return [part for part in name.split(b"/") if part not in (b"", b".")]


class TarGuard:
    """Refuses the members of a container archive that could change anything outside the container's tree.

    Refused are names and hard link targets with ``..``, members that lie below a symbolic link of the same archive or
    below another name of it, hard links to absolute paths or through symbolic links, parts of multi-volume archives,
    and device nodes unless allowed. Symbolic links may point anywhere, as they do in every real container; tar strips
    the slash of absolute names. Members that tar is told not to make (``./dev/*``) pass. A later
    ``etc/vzdump/pct.conf`` is the guest's own business, the first one counts: see :class:`ConfigFinder`.

    :param allow_devices: device nodes may be made: the container is privileged.
    """

    def __init__(self, *, allow_devices: bool) -> None:
        self._allow_devices = allow_devices
        self._scanner = TarScanner()
        self._symlinks: set[bytes] = set()
        self._clean_folder: bytes | None = None
        self.members = 0

    def inspect(self, part: memoryview | bytes) -> None:
        """Look at the next part of the archive before tar sees it.

        :raises IntegrityError: it holds something that is refused; the part must not be passed on.
        """
        for member, _rest in self._scanner.feed(part):
            self.members += 1
            self._check(member)

    def finish(self) -> None:
        """The archive is over; see :meth:`TarScanner.finish`."""
        self._scanner.finish()

    def _check(self, member: Member) -> None:
        parts = parts_of(member.name)
        if b".." in parts:
            raise self._refuse(member, "its name leaves the container with '..'")
        if member.kind in (b"M", b"V", b"N"):
            raise self._refuse(member, "it belongs to a multi-volume or obsolete kind of archive")
        if member.kind in (b"3", b"4") and not self._allow_devices and parts[:1] != [b"dev"]:
            raise self._refuse(
                member, "it is a device node and the container is unprivileged", "restore it as a privileged container"
            )
        self._check_folders(member, parts)
        symbolic = member.kind == b"2"
        if member.kind == b"1":
            target = parts_of(member.link)
            if member.link.startswith(b"/") or b".." in target or not target:
                raise self._refuse(member, "it is a hard link to a file outside the container")
            self._check_folders(member, target)
            symbolic = b"/".join(target) in self._symlinks
        if symbolic:
            self._symlinks.add(b"/".join(parts))
            self._clean_folder = None

    def _check_folders(self, member: Member, parts: list[bytes]) -> None:
        folder = b"/".join(parts[:-1])
        if folder == self._clean_folder:
            return
        for depth in range(1, len(parts)):
            if b"/".join(parts[:depth]) in self._symlinks:
                raise self._refuse(
                    member, f"it lies below the symbolic link {parts[depth - 1].decode('utf-8', 'replace')!r}"
                )
        self._clean_folder = folder

    @staticmethod
    def _refuse(member: Member, why: str, hint: str = "the archive was not made by an honest backup") -> IntegrityError:
        return IntegrityError(
            f"refused to unpack {member.text!r} (byte {member.offset} of the archive): {why}", hint=hint
        )


class ConfigFinder:
    """Finds the configuration at the start of a container archive: the first member of that name, a regular file.

    :param suffix: how the member's name ends.
    """

    def __init__(self, suffix: str = "./etc/vzdump/pct.conf") -> None:
        self._suffix = suffix.encode()
        self._scanner = TarScanner()
        self._member: Member | None = None
        self._data = bytearray()

    def take(self, part: memoryview | bytes) -> bytes | None:
        """Look at the next part; returns the content once it is complete.

        :raises IntegrityError: the archive is damaged, or the configuration is not a small regular file.
        """
        view = memoryview(part)
        if self._member is not None:
            self._data += view[: self._member.size - len(self._data)]
        else:
            for member, rest in self._scanner.feed(view):
                if member.name.endswith(self._suffix):
                    if member.kind not in _REGULAR or member.size > MAX_CONFIG:
                        raise IntegrityError(f"{member.text!r} in the archive is not a configuration file")
                    self._member = member
                    self._data += rest[: member.size]
                    break
        complete = self._member is not None and len(self._data) == self._member.size
        return bytes(self._data) if complete else None
