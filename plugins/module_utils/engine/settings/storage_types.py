# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Proxmox VE's storage types are declared with. Types that are not in the table are kept, and never judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

CONTENT = ("images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import", "none")
_VOLUMES = ("images", "rootdir")
_FILES = ("images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import")
_COMMON = ("content", "nodes", "disable")
_RETENTION = ("prune-backups", "max-protected-backups")
_FOLDERS = ("create-base-path", "create-subdirs", "mkdir", "format", "preallocation")


@dataclass(frozen=True)
class StorageType:
    """:param required: keys without which there is no such storage; :param optional: the other keys it knows.

    :param content: content types it can hold; :param default: those it has when the definition says nothing.
    :param shared: always shared between the nodes, whatever the definition says.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    content: tuple[str, ...] = _VOLUMES
    default: tuple[str, ...] = _VOLUMES
    shared: bool = False


TYPES: dict[str, StorageType] = {
    "dir": StorageType(
        ("path",),
        (*_COMMON, *_RETENTION, *_FOLDERS, "content-dirs", "is_mountpoint", "shared", "bwlimit"),
        (*_FILES, "none"),
    ),
    "btrfs": StorageType(
        ("path",), (*_COMMON, *_RETENTION, *_FOLDERS, "is_mountpoint", "shared"), (*_FILES, "none")
    ),
    "nfs": StorageType(
        ("export", "server"),
        (*_COMMON, *_RETENTION, *_FOLDERS, "path", "options", "content-dirs", "bwlimit"),
        _FILES,
        ("images",),
        shared=True,
    ),
    "cifs": StorageType(
        ("server", "share"),
        (*_COMMON, *_RETENTION, *_FOLDERS, "path", "options", "content-dirs", "bwlimit", "subdir", "username",
         "domain", "smbversion"),
        _FILES,
        ("images",),
        shared=True,
    ),
    "pbs": StorageType(
        ("datastore", "server"),
        (*_COMMON, *_RETENTION, "username", "password", "port", "namespace", "fingerprint", "encryption-key",
         "master-pubkey"),
        ("backup",),
        ("backup",),
        shared=True,
    ),
    "zfspool": StorageType(("pool",), (*_COMMON, "sparse", "blocksize", "mountpoint", "bwlimit")),
    "lvmthin": StorageType(("thinpool", "vgname"), (*_COMMON, "bwlimit")),
}  # fmt: skip

ALWAYS_SHARED = (*(name for name, kind in TYPES.items() if kind.shared), "rbd", "cephfs", "iscsi", "iscsidirect", "zfs")


def default_content(kind: str) -> tuple[str, ...]:
    """Content of a storage whose definition does not say."""
    if kind in TYPES:
        return TYPES[kind].default
    return {"lvm": ("images",), "rbd": ("images",), "cephfs": ("backup",)}.get(kind, _VOLUMES)


def possible_content(kind: str) -> tuple[str, ...]:
    """Content that a storage of that type can hold."""
    return TYPES[kind].content if kind in TYPES else CONTENT


def unknown_keys(kind: str, keys: Sequence[str]) -> list[str]:
    """Keys that storages of that type do not have."""
    known = TYPES[kind].required + TYPES[kind].optional if kind in TYPES else keys
    return [key for key in keys if key not in known]
