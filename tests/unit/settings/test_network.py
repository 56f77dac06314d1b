# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How sections of network storages are mounted."""

from __future__ import annotations

import pytest
from engine.errors import ConfigError
from engine.settings.network import MountSpec, network_mount
from engine.settings.storages import parse_storage_cfg, section_from_storage

NFS = {"server": "10.0.0.10", "export": "/space/backup"}
CIFS: dict[str, str | None] = {"server": "10.0.0.11", "share": "VMData"}
BACKUP = ("backup",)
SOFT = "soft,timeo=100,retrans=2"


def mount(kind: str, values: dict[str, str | None], content: tuple[str, ...] = BACKUP) -> MountSpec:
    return network_mount(kind, "/mnt/pve/nas", content, values, "/priv/nas.pw")


@pytest.mark.parametrize(
    ("values", "content", "source", "options"),
    [
        ({}, BACKUP, "10.0.0.10:/space/backup", f"{SOFT},retry=0"),
        ({"options": "vers=4.2,hard"}, BACKUP, "10.0.0.10:/space/backup", f"{SOFT},retry=0,vers=4.2,hard"),
        ({}, ("backup", "images"), "10.0.0.10:/space/backup", "retry=0"),
        ({}, ("rootdir",), "10.0.0.10:/space/backup", "retry=0"),
        ({"server": "fe80::1", "export": "/"}, BACKUP, "[fe80::1]:/", f"{SOFT},retry=0"),
    ],
)  # fmt: skip
def test_nfs(values: dict[str, str | None], content: tuple[str, ...], source: str, options: str) -> None:
    assert mount("nfs", {**NFS, **values}, content) == MountSpec(
        "nfs", values.get("server") or "10.0.0.10", source, "/mnt/pve/nas", tuple(options.split(","))
    )


@pytest.mark.parametrize(
    ("values", "content", "source", "options", "password"),
    [
        ({}, BACKUP, "", "file_mode=0600,dir_mode=0700,guest,username=guest,vers=default", False),
        ({}, ("backup", "iso"), "", "guest,username=guest,vers=default", False),
        ({"subdir": "/data/"}, ("iso",), "/data", "guest,username=guest,vers=default", False),
        (
            {"username": "anna", "domain": "EXAMPLE", "smbversion": "3.11", "options": "vers=3.0"},
            ("iso",),
            "",
            "username=anna,credentials=/priv/nas.pw,domain=EXAMPLE,vers=3.11,vers=3.0",
            True,
        ),
        ({"username": "anna", "options": "sec=krb5p"}, ("iso",), "", "vers=default,sec=krb5p", False),
    ],
)
def test_cifs(
    values: dict[str, str | None], content: tuple[str, ...], source: str, options: str, password: bool
) -> None:
    assert mount("cifs", {**CIFS, **values}, content) == MountSpec(
        "cifs",
        "10.0.0.11",
        f"//10.0.0.11/VMData{source}",
        "/mnt/pve/nas",
        ("soft", "echo_interval=10", *options.split(",")),
        password,
    )


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("nfs", {"server": "-o"}, "server: '-o'"),
        ("nfs", {"server": "a b"}, "server: 'a b'"),
        ("nfs", {"export": "space"}, "export: 'space'"),
        ("nfs", {"export": "/a\tb"}, "control characters"),
        ("nfs", {"options": "vers=4 soft"}, "has blanks"),
        ("cifs", {"share": "a/b"}, "share: 'a/b'"),
        ("cifs", {"share": "a\\b"}, "is not the name of a share"),
        ("cifs", {"subdir": "data"}, "subdir: 'data'"),
        ("cifs", {"subdir": "/data/../.."}, r"subdir: '/data/\.\./\.\.'"),
        ("cifs", {"username": "a,uid=0"}, "has a comma"),
        ("cifs", {"domain": "a,uid=0"}, "has a comma"),
        ("cifs", {"smbversion": "4"}, "smbversion: '4'"),
        ("cifs", {"options": "ro,password=x"}, "options: 'password' does not belong there"),
        ("cifs", {"options": "credentials=/etc/passwd"}, "options: 'credentials'"),
    ],
)
def test_refusals(kind: str, values: dict[str, str | None], message: str) -> None:
    whole = {**(NFS if kind == "nfs" else CIFS), **values}
    with pytest.raises(ConfigError, match=message):
        mount(kind, whole)
    # Nothing of it is guessed: such a storage is not used at all.
    lines = "".join(f"\t{key} {value}\n" for key, value in whole.items())
    file = parse_storage_cfg(f"{kind}: nas\n{lines}\tcontent backup\n")
    assert "nas" not in file.storages


def test_sections_of_network_storages() -> None:
    text = "cifs: smb\n\tserver 10.0.0.11\n\tshare VMData\n\tcontent backup\n\tsubdir /data\n\tusername anna\n"
    storage = parse_storage_cfg(text).storages["smb"]
    assert storage.path == "/mnt/pve/smb"
    assert storage.shared
    assert dict(section_from_storage(storage).properties) == {
        "server": "10.0.0.11",
        "share": "VMData",
        "content": "backup",
        "path": "/mnt/pve/smb",
        "subdir": "/data",
        "username": "anna",
    }
    found = parse_storage_cfg(text + "\tpassword secret\n")
    (finding,) = found.findings
    assert "'password' has no effect" in finding.message
    assert "secret" not in finding.message
