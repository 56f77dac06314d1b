# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``storage.cfg``: what is understood, what is told, what survives."""

from __future__ import annotations

import pytest
from engine.settings.section import write_sections
from engine.settings.storages import StorageDef, StoragesFile, parse_storage_cfg, section_from_storage
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLE = """dir: backup
\tpath /mnt/backup
\tcontent backup
\tprune-backups keep-last=7
\tmax-protected-backups 3
\tcontent-dirs backup=custom/backup/dir

nfs: nas
\texport /space/backup
\tpath /mnt/pve/nas
\tserver 10.0.0.10
\tcontent backup
\toptions vers=4.2,soft

cifs: smb
\tpath /mnt/pve/smb
\tserver 10.0.0.11
\tshare VMData
\tcontent backup
\tsubdir /data
\tusername anna

pbs: pbs1
\tdatastore main
\tserver pbs.example.org
\tcontent backup
\tfingerprint 09:54
\tnamespace site/a
\tusername archiver@pbs

"""


def one(*lines: str, kind: str = "dir") -> tuple[StoragesFile, StorageDef | None]:
    file = parse_storage_cfg("\n".join([f"{kind}: nas", *(f"\t{line}" for line in lines), ""]))
    return file, file.storages.get("nas")


def problems(file: StoragesFile) -> list[str]:
    return [finding.message.split(": ", 3)[3] for finding in file.findings]


def test_the_examples() -> None:
    file = parse_storage_cfg(EXAMPLE)
    assert (file.findings, file.broken) == ((), {})
    assert file.storages["backup"] == StorageDef(
        name="backup",
        type="dir",
        path="/mnt/backup",
        content=("backup",),
        content_dirs={"backup": "custom/backup/dir"},
        prune_backups={"keep-last": 7},
        max_protected_backups=3,
    )
    nas = file.storages["nas"]
    assert (nas.shared, nas.path) == (True, "/mnt/pve/nas")
    assert nas.extra == {"export": "/space/backup", "server": "10.0.0.10", "options": "vers=4.2,soft"}
    assert file.storages["pbs1"].extra["fingerprint"] == "09:54"
    assert write_sections(file.sections) == EXAMPLE


def test_the_order_of_writing() -> None:
    _file, storage = one(
        "nodes b,a", "content iso,backup", "max-protected-backups -1", "path /srv//", "disable", "shared 1", "mkdir 0",
        "is_mountpoint yes", "prune-backups keep-last=3,keep-daily=7", "bwlimit restore=5", "format qcow2",
    )  # fmt: skip
    assert storage is not None
    assert write_sections([section_from_storage(storage)]) == (
        "dir: nas\n\tdisable\n\tpath /srv\n\tbwlimit restore=5\n\tcontent backup,iso\n\tcreate-base-path 0\n"
        "\tcreate-subdirs 0\n\tformat qcow2\n\tis_mountpoint 1\n\tmax-protected-backups -1\n\tnodes b,a\n"
        "\tprune-backups keep-daily=7,keep-last=3\n\tshared 1\n\n"
    )


@pytest.mark.parametrize(
    ("kind", "lines", "content", "shared"),
    [
        ("dir", ["path /a"], ("images", "rootdir"), False),
        ("btrfs", ["path /a"], ("images", "rootdir"), False),
        ("zfspool", ["pool tank"], ("images", "rootdir"), False),
        ("lvmthin", ["vgname v", "thinpool t"], ("images", "rootdir"), False),
        ("nfs", ["server s", "export /e"], ("images",), True),
        ("cifs", ["server s", "share e"], ("images",), True),
        ("lvm", ["vgname v"], ("images",), False),
        ("rbd", ["pool p"], ("images",), True),
        ("pbs", ["server s", "datastore d"], ("backup",), True),
        ("cephfs", [], ("backup",), True),
        ("DIR", ["path /a"], ("images", "rootdir"), False),
    ],
)
def test_what_a_type_means(kind: str, lines: list[str], content: tuple[str, ...], shared: bool) -> None:
    file, storage = one(*lines, kind=kind)
    assert storage is not None
    assert (file.findings, storage.type, storage.content, storage.shared) == ((), kind.lower(), content, shared)


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("dir", "path"),
        ("btrfs", "path"),
        ("nfs", "export"),
        ("cifs", "server"),
        ("pbs", "datastore"),
        ("zfspool", "pool"),
    ],
)
def test_a_storage_without_what_it_needs_cannot_be_used(kind: str, missing: str) -> None:
    file, storage = one("content backup", kind=kind)
    assert storage is None
    assert file.broken == {"nas": f"'{missing}' is missing"}


@pytest.mark.parametrize("name", ["a", "1ab", "ab-", "a b", "\u00e4b"])
def test_names(name: str) -> None:
    file = parse_storage_cfg(f"dir: {name}\n\tpath /a\n\ndir: good.one_2\n\tpath /b\n")
    assert list(file.storages) == ["good.one_2"]
    assert file.findings


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("content images,foo", "content: 'foo' is not one of"),
        ("content images,none", "content: 'images,none' combines 'none' with other content types"),
        ("content", "content: None has no value"),
        ("prune-backups keep-foo=1", "prune-backups: retention: unknown key 'keep-foo'"),
        ("prune-backups keep-all=1,keep-last=1", "cannot be set together"),
        ("max-protected-backups -2", "max-protected-backups: '-2' is less than -1"),
        ("shared maybe", "shared: 'maybe' is neither yes nor no"),
        ("create-subdirs maybe", "create-subdirs: 'maybe'"),
        ("foo bar", "'foo' has no effect, it is not a key of the type dir"),
        ("path /other", "'path' is given again"),
    ],
)
def test_a_wrong_line_is_left_out_and_told(line: str, problem: str) -> None:
    file, storage = one("path /srv", line)
    assert storage is not None
    assert storage.path == "/srv"
    assert storage.prune_backups is None
    assert storage.max_protected_backups is None
    (found,) = problems(file)
    assert problem in found


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("path srv", "is not an absolute path"),
        ("path /a/../b", "is not an absolute path"),
        ("path /a b", "characters other than"),
        ("path", "'path' is missing"),
        ("is_mountpoint maybe", "is_mountpoint: 'maybe'"),
        ("disable maybe", "disable: 'maybe'"),
        ("content-dirs backup=../x", "content-dirs"),
        ("content-dirs backup=a..b", "content-dirs"),
        ("content-dirs backup=/x", "content-dirs"),
        ("content-dirs foo=x", "content-dirs"),
        ("content-dirs backup=" + "x" * 255, "content-dirs"),
        ("content-dirs backup=" + "x/" * 600, "content-dirs"),
        ("content-dirs backup", "content-dirs"),
    ],
)
def test_where_a_default_would_be_dangerous_the_storage_cannot_be_used(line: str, reason: str) -> None:
    lines = [line] if line.startswith("path") else ["path /srv", line]
    file, storage = one(*lines)
    assert storage is None
    assert reason in file.broken["nas"]


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("is_mountpoint", "is_mountpoint", True),
        ("is_mountpoint no", "is_mountpoint", False),
        ("is_mountpoint /mnt/", "is_mountpoint", "/mnt"),
        ("content none", "content", ()),
        ("content backup;images backup", "content", ("backup", "images")),
        ("nodes a, b", "nodes", ("a", "b")),
        ("prune-backups keep-last=0", "prune_backups", {"keep-all": 1}),
        ("max-protected-backups 0", "max_protected_backups", 0),
        ("mkdir 0\n\tcreate-subdirs 1", "create_subdirs", True),
        ("mkdir 0\n\tcreate-subdirs 1", "create_base_path", False),
        ("content-dirs backup=dump,iso=dump", "content_dirs", {"backup": "dump", "iso": "dump"}),
        ("disable", "disable", True),
    ],
)
def test_values(line: str, attribute: str, value: object) -> None:
    file, storage = one("path /srv", line)
    assert file.findings == ()
    assert getattr(storage, attribute) == value


def test_types_nobody_knows_are_kept() -> None:
    text = "drbd: far\n\tcontent images,foo2\n\tredundancy 2\n\n"
    file = parse_storage_cfg(text)
    assert file.storages["far"].extra == {"redundancy": "2"}
    assert write_sections(file.sections) == text


STORAGES = st.builds(
    StorageDef,
    name=st.text("abcdef", min_size=2, max_size=5),
    type=st.just("dir"),
    path=st.sampled_from(["/", "/srv/a", "/mnt/b.c_d@e-f"]),
    content=st.lists(st.sampled_from(["backup", "images", "iso"]), unique=True).map(sorted).map(tuple),
    nodes=st.sampled_from([(), ("a",), ("b", "a")]),
    disable=st.booleans(),
    shared=st.booleans(),
    is_mountpoint=st.sampled_from([False, True, "/mnt"]),
    create_base_path=st.booleans(),
    create_subdirs=st.booleans(),
    content_dirs=st.sampled_from([{}, {"backup": "b/c", "iso": "i"}]),
    prune_backups=st.sampled_from([None, {"keep-all": 1}, {"keep-last": 3, "keep-yearly": 1}]),
    max_protected_backups=st.sampled_from([None, -1, 0, 5]),
    extra=st.sampled_from([{}, {"format": "raw", "odd": None}]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STORAGES, max_size=3, unique_by=lambda storage: storage.name))
def test_round_trip(made: list[StorageDef]) -> None:
    text = write_sections(map(section_from_storage, made))
    file = parse_storage_cfg(text)
    assert list(file.storages.values()) == made
    assert write_sections(map(section_from_storage, file.storages.values())) == text
