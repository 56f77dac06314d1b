# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""tar commands as the original runs them; archives that could hurt the host are refused before tar sees them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from engine.errors import IntegrityError
from engine.formats import cttar
from engine.formats.tarscan import ConfigFinder, TarGuard, TarScanner
from engine.rules.excludes import STANDARD, parse_pattern


def test_create_command() -> None:
    assert cttar.create_argv(
        config_dir="/t",
        data_root="/mnt/root",
        sources=["./", "./data"],
        excludes=[parse_pattern(text) for text in ("/a b", "core", *STANDARD)],
        idmaps=["u:0:100000:65536", "g:0:100000:65536"],
    ) == [
        *("lxc-usernsexec", "-m", "u:0:100000:65536", "-m", "g:0:100000:65536", "--", "tar", "cpf", "-", "--totals"),
        *("--one-file-system", "-p", "--sparse", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=user.*"),
        *("--xattrs-include=security.capability", "--warning=no-file-ignored", "--warning=no-xattr-write"),
        *("--directory=/t", "./etc/vzdump/pct.conf", "./etc/vzdump/pct.fw", "--directory=/mnt/root", "--no-anchored"),
        *("--exclude=lost+found", "--wildcards", "--no-wildcards-match-slash", "--no-anchored", "--exclude=core"),
        *("--anchored", "--exclude=./a b", "--exclude=./tmp/?*", "--exclude=./var/tmp/?*"),
        *("--exclude=./var/run/?*.pid", "./", "./data"),
    ]


def test_extract_command() -> None:
    argv = cttar.extract_argv("/new")
    assert argv[:4] == ["tar", "xpf", "-", "--totals"]
    assert argv[argv.index("-C") :] == ["-C", "/new", "--skip-old-files", "--anchored", "--exclude", "./dev/*"]


def tree(folder: Path) -> tuple[Path, Path]:
    """A configuration folder and a container's tree with everything that is special in tar."""
    config, root = folder / "config", folder / "root"
    (config / "etc/vzdump").mkdir(parents=True)
    (config / "etc/vzdump/pct.conf").write_text("hostname: ct\n")
    (config / "etc/vzdump/pct.fw").write_text("")
    deep = root / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_bytes(b"x" * 1000)
    (root / "link").symlink_to("/etc/" + "y" * 150)
    (root / "up").symlink_to("../../etc")
    os.link(deep / ("f" * 200), root / "hard")
    with open(root / "sparse", "wb") as file:
        for at in range(60):
            file.seek(at * 200_000)
            file.write(b"data" * 2000)
    os.setxattr(root / "sparse", "user.note", b"v" * 300)
    (root / "plain").write_bytes(os.urandom(100_000))
    (root / "dev").mkdir()
    return config, root


@pytest.mark.parametrize("form", ["posix", "gnu"])
@pytest.mark.parametrize("step", [333, 1 << 20])
def test_real_archives_pass_and_come_out_again(tmp_path: Path, form: str, step: int) -> None:
    config, root = tree(tmp_path)
    argv = cttar.create_argv(config_dir=str(config), data_root=str(root), sources=["./"])
    if form == "gnu":
        argv = [arg for arg in argv if "xattr" not in arg and arg != "--acls"]
        argv.insert(1, "--format=gnu")
        argv[2] = "-" + argv[2]
    raw = subprocess.run(argv, check=True, capture_output=True).stdout
    guard, finder = TarGuard(allow_devices=False), ConfigFinder()
    found = None
    for at in range(0, len(raw), step):
        guard.inspect(raw[at : at + step])
        found = found or finder.take(raw[at : at + step])
    guard.finish()
    assert found == b"hostname: ct\n"
    names = subprocess.run(["tar", "tf", "-"], input=raw, check=True, capture_output=True).stdout.splitlines()
    assert guard.members == len(names)
    new = tmp_path / "new"
    new.mkdir()
    subprocess.run(cttar.extract_argv(str(new)), input=raw, check=True, capture_output=True)
    assert (new / "plain").read_bytes() == (root / "plain").read_bytes()
    assert (new / "sparse").read_bytes() == (root / "sparse").read_bytes()
    assert os.readlink(new / "up") == "../../etc"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    raw = info.tobuf(tarfile.GNU_FORMAT)
    return raw + data + bytes(-len(data) % 512)


def inspect(raw: bytes, *, allow_devices: bool = False) -> TarGuard:
    guard = TarGuard(allow_devices=allow_devices)
    guard.inspect(raw)
    return guard


def pax(**records: str) -> bytes:
    body = b""
    for key, value in records.items():
        part = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(part) + 1
        while len(str(length)) + len(part) != length:
            length = len(str(length)) + len(part)
        body += str(length).encode() + part
    return member("pax", tarfile.XHDTYPE, data=body)


def ustar(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def old_sparse(size: int, *parts: tuple[int, int], more: int = 0, posix: bool = False) -> bytes:
    """The header of a sparse file in GNU tar's old form; ``more`` says that its map goes on behind the header."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, size
    head = bytearray(info.tobuf(tarfile.USTAR_FORMAT if posix else tarfile.GNU_FORMAT))
    for number, part in enumerate(parts):
        head[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % part
    head[482] = more
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


HIDDEN = member("./hidden", tarfile.CHRTYPE)
HIDING = member("y", data=bytes(512) + HIDDEN)
"""A file whose data is a device node, for a tar that takes its header for the data of the file before."""
SPARSE = {"GNU__sparse__major": "1", "GNU__sparse__minor": "0", "GNU__sparse__realsize": "1024"}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (member("../../etc/cron.d/x"), "leaves the container"),
        (member("./a/../../x"), "leaves the container"),
        (member("/.."), "leaves the container"),
        (member("a", tarfile.SYMTYPE, "/") + member("a/b"), "below the symbolic link 'a'"),
        (member("./a", tarfile.SYMTYPE, "/") + member("a//./b/c"), "below the symbolic link 'a'"),
        (member("b", tarfile.SYMTYPE, "..") + member("x", tarfile.LNKTYPE, "b/etc/shadow"), "below the symbolic link"),
        (
            member("b", tarfile.SYMTYPE, "/") + member("c", tarfile.LNKTYPE, "b") + member("c/x"),
            "below the symbolic link 'c'",
        ),
        (member("a/x") + member("a", tarfile.SYMTYPE, "/") + member("a/y"), "below the symbolic link"),
        (member("x", tarfile.LNKTYPE, "/etc/shadow"), "hard link to a file outside"),
        (member("x", tarfile.LNKTYPE, "./../etc/shadow"), "hard link to a file outside"),
        (member("./usr/sda", tarfile.BLKTYPE), "device node"),
        (member("x", b"M"), "multi-volume"),
        (pax(path="../x") + member("fine"), "leaves the container"),
        (pax(**SPARSE, GNU__sparse__name="../x") + ustar("fine"), "leaves the container"),
        (pax(GNU__sparse__name="./x") + ustar("fine"), "unknown form"),
        (pax(**SPARSE) + ustar("x", data=b"1\n0\n1024\n".ljust(512)) + HIDING, "map does not fit its size"),
        (pax(**SPARSE) + ustar("x", data=b"1\n0\n-512\n".ljust(1024)) + HIDING, "map that cannot be understood"),
        (pax(**SPARSE) + ustar("x", data=b"2\n0\n".ljust(512, b"1")) + HIDING, "map"),
        (pax(**SPARSE) + ustar("x", tarfile.DIRTYPE), "unknown form"),
        (pax(GNU__sparse__size="1024", GNU__sparse__map="0,1024") + ustar("x") + HIDING, "obsolete key"),
        (old_sparse(0, (0, 1024)) + HIDING, "map does not fit its size"),
        (old_sparse(512, (0, 512), more=1) + bytes(512) + HIDING, "goes on behind its end"),
        (old_sparse(0, posix=True), "unknown form"),
        (member("d/", data=HIDDEN), "a folder with data"),
        (member("x", b"X", data=HIDDEN), "unknown type"),
        (member("x", b"D", data=HIDDEN), "unknown type"),
        (pax(path="one") + pax(path="two") + member("x"), "two headers"),
        (member("x", b"L", data=b"one") * 2 + member("x"), "two names"),
        (pax(linkpath="/etc/shadow") + member("x", tarfile.LNKTYPE, "fine"), "hard link to a file outside"),
        (member("../" + "x" * 200), "leaves the container"),
        (member("x", tarfile.LNKTYPE, "/" + "x" * 200), "hard link to a file outside"),
        (pax(path="a\0b") + member("fine"), "NUL"),
        (pax(size="-1") + member("fine"), "size that is no number"),
        (b"\1" * 512, "no number|does not match"),
        (member("x")[:148] + b"0000001\0" + member("x")[156:], "checksum of a header"),
        (member("x", tarfile.SYMTYPE, "y", b"data"), "with data"),
    ],
)  # fmt: skip
def test_hostile_members_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        inspect(raw.ljust(-(-len(raw) // 512) * 512, b"\0"))


def test_a_global_header_must_not_rename() -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {}
    raw = tarfile.TarInfo.create_pax_global_header({"path": "../x"})
    with pytest.raises(IntegrityError, match="global header"):
        inspect(raw + member("fine"))
    inspect(tarfile.TarInfo.create_pax_global_header({"comment": "hello"}) + member("fine"))


def test_what_is_allowed() -> None:
    assert inspect(member("/absolute") + member("./dev/sda", tarfile.BLKTYPE)).members == 2
    assert inspect(member("./usr/sda", tarfile.BLKTYPE), allow_devices=True).members == 1
    assert inspect(member("etc/mtab", tarfile.SYMTYPE, "../proc/self/mounts") + member("etc/passwd")).members == 2
    assert inspect(member("a") + bytes(512) + member("b") + bytes(1024) + b"anything").members == 2


def test_an_archive_without_end_is_noticed() -> None:
    scanner = TarScanner()
    assert [found.name for found, _rest in scanner.feed(member("a", data=b"1234"))] == [b"a"]
    with pytest.raises(IntegrityError, match="cut short"):
        scanner.finish()


def test_only_the_first_configuration_counts() -> None:
    first, second = (member("./etc/vzdump/pct.conf", data=data) for data in (b"first", b"second"))
    assert ConfigFinder().take(first + second) == b"first"
    with pytest.raises(IntegrityError, match="not a configuration file"):
        ConfigFinder().take(member("./etc/vzdump/pct.conf", tarfile.SYMTYPE, "/etc/shadow"))
    assert ConfigFinder().take(member("other") + bytes(1024)) is None


def test_python_tarfile_agrees_on_names(tmp_path: Path) -> None:
    config, root = tree(tmp_path)
    argv = cttar.create_argv(config_dir=str(config), data_root=str(root), sources=["./"])
    raw = subprocess.run(argv, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        want = [os.path.normpath(info.name) for info in archive]
    got = [os.path.normpath(found.name.decode()) for found, _rest in TarScanner().feed(raw)]
    assert got == want
