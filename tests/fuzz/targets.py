# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is fuzzed: each target takes one input, lets nothing but the engine's own errors out, and checks what comes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import tempfile
import zlib
from typing import Any, Callable, Iterable
from xml.etree import ElementTree

from engine.errors import ConfigError, HoldfastError, IntegrityError, UsageError
from engine.formats import cluster_map
from engine.formats.swtpm import from_image, to_image
from engine.formats.tarscan import ConfigFinder, TarGuard, TarScanner
from engine.formats.vma_layout import VMSTATE
from engine.formats.vma_reader import VmaReader
from engine.settings.archive_record import parse_record, write_record
from engine.settings.ct_config import ct_mounts
from engine.settings.domain_rewrite import Place, restored_xml, without_secrets
from engine.settings.guest_config import GuestConfig
from engine.stream import sink as sinks
from engine.stream.frames import FrameFile
from engine.stream.source import open_source
from engine.tasks.restore_config import config_lines, disk_map, transform_ct, transform_vm
from hypothesis import strategies as st

from tests.fuzz.inputs import (
    CONFIGS,
    EDITS,
    EXTENTS,
    TAR,
    VMA,
    Edit,
    crafted_extents,
    edited,
    pieces,
    reseal,
    right_checksums,
)

Target = tuple[Any, Callable[[Any], None]]

_FORBIDDEN_VM = re.compile(r"(?:args|hookscript|hostpci\d+|parallel\d+|ivshmem|virtiofs\d+|lock|parent)\s*:")
_FORBIDDEN_CT = re.compile(r"(?:hookscript|dev\d+|lxc\..*?|lock|parent)\s*[:=]")


def _accepted(act: Callable[[], Any]) -> bool:
    try:
        act()
    except IntegrityError:
        return False
    return True


def read_vma(data: bytes | bytearray) -> None:
    """What is accepted gives each byte of each disk once; all ways to read agree whether it is."""

    def restore() -> None:
        reader = VmaReader(io.BytesIO(data))
        got = dict.fromkeys((device.name for device in reader.header.devices), 0)
        for piece in reader.pieces():
            assert piece.data is None or len(piece.data) == piece.length
            assert piece.device.name == VMSTATE or piece.offset + piece.length <= piece.device.size
            got[piece.device.name] += piece.length
        sizes = {device.name: device.size for device in reader.header.devices if device.name != VMSTATE}
        assert {name: size for name, size in got.items() if name != VMSTATE} == sizes

    def skim() -> None:
        stream = io.BytesIO(data)
        reader = VmaReader(stream)
        reader.verify(lambda count: max(0, min(count, len(data) - stream.tell()) + 0 * stream.seek(count, 1)))

    assert _accepted(restore) == _accepted(skim)


def read_map(example: tuple[bytes, bytes | bytearray]) -> None:
    """A cluster map is refused or covers the disks; it is never believed beyond the archive."""
    archive, frame = example
    header = VmaReader(io.BytesIO(archive)).header
    if _accepted(lambda: cluster_map.check_map(bytes(frame), header, len(archive))):
        found = cluster_map.ClusterMap(bytes(frame))
        for device in header.devices:
            for cluster in (0, device.clusters - 1):
                assert found.find(device.dev_id, cluster) is not None


def read_tar(example: tuple[bytearray, list[float]]) -> None:
    """Members are the same however the stream is cut; what passes the guard means the same to tar."""
    data, cuts = example

    def members(parts: Iterable[memoryview]) -> tuple[list[bytes], str]:
        scanner, names = TarScanner(), []
        try:
            for part in parts:
                for member, _rest in scanner.feed(part):
                    names.append(member.name)
            scanner.finish()
        except IntegrityError as exc:
            return names, exc.message
        return names, ""

    names, trouble = members(pieces(data, []))
    assert (names, trouble) == members(pieces(data, cuts))
    guard, finder = TarGuard(allow_devices=True), ConfigFinder()
    safe = _accepted(lambda: guard.inspect(bytes(data)))
    _accepted(lambda: finder.take(bytes(data)))
    if safe and not trouble:
        assert _names_for_tar(data) in (None, names)


def _names_for_tar(data: bytes | bytearray) -> list[bytes] | None:
    """What tar finds in an archive; ``None`` when it complains: then a restore fails, too."""
    argv = ["tar", "--list", "--file=-", "--quoting-style=escape", "--absolute-names"]
    done = subprocess.run(argv, input=bytes(data), capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return None if done.returncode else [_unquoted(line) for line in done.stdout.splitlines()]


def _unquoted(line: bytes) -> bytes:
    return line.decode("unicode_escape").encode("latin-1")


def make_seekable(content: bytes, edits: list[Edit]) -> bytes:
    """An archive of small frames, changed."""
    before, sinks.FRAME_BYTES = sinks.FRAME_BYTES, 4096
    try:
        with tempfile.NamedTemporaryFile(suffix=".tar.zst") as file:
            with sinks.open_sink(file.name, "zst", threads=1) as sink:
                sink.write(content)
            return bytes(edited(file.read(), edits))
    finally:
        sinks.FRAME_BYTES = before


def read_frames(data: bytes) -> None:
    """What is read by the seek table is what zstd reads."""
    with tempfile.NamedTemporaryFile(suffix=".tar.zst") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(IntegrityError), FrameFile(file.name) as frames:
            frames.index(cluster_map.MAGIC, 1 << 20)
            frames.check_heads()
            frames.last()
        content = b""
        try:
            with open_source(file.name) as source:
                for part in iter(lambda: source.read(65536), b""):
                    content += part
                    assert len(content) < 1 << 26
        except IntegrityError:
            return
        plain = subprocess.run(["zstd", "-q", "-d", "-c", file.name], capture_output=True, check=False)
        assert plain.returncode or plain.stdout == content


def read_configs(text: str) -> None:
    """No line of a hostile config comes to life in the restored one."""
    with contextlib.suppress(HoldfastError):
        ct_mounts(GuestConfig.parse(text, "fuzz"))
    volumes = {}
    with contextlib.suppress(IntegrityError):
        volumes = {line.key: ("local:200/vm-200-disk-0.raw", 1 << 20) for line in disk_map(text)}
    options: dict[str, Any] = {"unique": True, "trust": False, "overrides": {"memory": 7}}
    machine = transform_vm(text, volumes, **options).text
    assert not [line for line in machine.split("\n") if _FORBIDDEN_VM.match(line)]
    container = transform_ct(text, {"rootfs": ("local:200/x", None)}, **options).text
    assert not [line for line in container.split("\n") if _FORBIDDEN_CT.match(line)]
    for made in (machine, container):
        again = GuestConfig.parse(made, "restored")
        assert sorted([*again.items(), *again.raw]) == sorted(config_lines(made)[1])


def read_domain(text: str) -> None:
    """The XML of a hostile domain is refused, or rewritten without what reaches the host."""
    with contextlib.suppress(ConfigError, UsageError):
        without_secrets(text)
        disks = {"vda": Place("/new/a", "raw")}
        done = restored_xml(
            text, name="n", uuid="u", vmid=200, disks=disks, nvram="", new_macs=True, trust=False, overrides={}
        )
        for element in ElementTree.fromstring(done.text).iter():
            assert element.tag not in ("commandline", "hostdev", "filesystem", "emulator", "kernel")
            places = [element.get(name, "") for name in ("file", "dev", "dir", "path")]
            assert element.tag != "source" or not any(place.startswith("/etc") for place in places)


def read_tpm(volume: bytes) -> None:
    """The volume of a TPM is refused, or what it holds lies in it."""
    with contextlib.suppress(IntegrityError):
        assert from_image(volume) in volume


def read_record(text: str) -> None:
    """A record is refused, or is the same when it is written and read again."""
    with contextlib.suppress(ConfigError):
        record = parse_record(text)
        assert parse_record(write_record(record)) == record


_DOMAIN = """<domain type='kvm'><name>w</name><uuid>7cf798df-7725-443d-a246-a2aa9b6fd781</uuid>
<memory unit='GiB'>2</memory><os><kernel>/etc/shadow</kernel><nvram>/etc/x</nvram></os><devices>
<emulator>/etc/qemu</emulator><disk type='file' device='disk'><driver type='raw'/><source file='/etc/a'/>
<target dev='vda' bus='virtio'/></disk><serial type='file'><source path='/etc/x'/></serial><hostdev type='pci'/>
<tpm><backend type='emulator'><source type='file' path='/etc/x'/></backend></tpm>
<filesystem type='mount'><source dir='/etc/'/></filesystem></devices></domain>"""
_TPM = to_image(bytes(range(256)) * 20)[:10000]
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just("a" * 64)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["version", "size", "digests", "verified", "level", "state", "time", "causes"]), inner
        ),
    ),
)


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace")


TARGETS: dict[str, Target] = {
    "vma": (
        st.one_of(
            st.builds(lambda made, edits: reseal(edited(made[0], edits)), VMA, EDITS),
            st.builds(lambda made, edits: edited(made[0], edits), VMA, EDITS),
            st.builds(lambda made, edits: reseal(edited(made[0][:13000], edits) + made[0][13000:]), VMA, EDITS),
            st.builds(lambda made, extents: crafted_extents(_head(made[0]), extents), VMA, EXTENTS),
        ),
        read_vma,
    ),
    "map": (
        st.builds(lambda made, edits: (made[0], _repacked(made[1], edits)), VMA, EDITS),
        read_map,
    ),
    "tar": (
        st.tuples(
            st.one_of(
                st.builds(lambda made, edits: right_checksums(edited(made, edits)), TAR, EDITS),
                st.builds(edited, TAR, EDITS),
            ),
            st.lists(st.floats(0, 1), max_size=4),
        ),
        read_tar,
    ),
    "frames": (
        st.builds(make_seekable, st.one_of(TAR, VMA.map(lambda made: made[0][:40000]), st.just(b"")), EDITS),
        read_frames,
    ),
    "config": (CONFIGS, read_configs),
    "domain": (
        st.builds(lambda edits: _text(edited(_DOMAIN.encode(), edits)), EDITS),
        read_domain,
    ),
    "tpm": (
        st.one_of(
            st.builds(lambda edits: bytes(edited(_TPM, edits)), EDITS),
            st.builds(lambda states: _TPM[:12] + states + _TPM[12 + len(states) :], st.binary(max_size=180)),
        ),
        read_tpm,
    ),
    "record": (st.one_of(_JSON.map(json.dumps), st.text()), read_record),
}


def _head(archive: bytes) -> bytes:
    return archive[: VmaReader(io.BytesIO(archive)).header.header_size]


def _repacked(frame: bytes, edits: list[Edit]) -> bytes:
    """A cluster map whose records were changed, packed again; or one that was changed as it is."""
    if len(edits) % 2:
        return bytes(edited(frame, edits))
    records = zlib.decompress(frame[16:])
    body = frame[8:16] + zlib.compress(bytes(edited(records, edits)))
    return frame[:4] + len(body).to_bytes(4, "little") + body
