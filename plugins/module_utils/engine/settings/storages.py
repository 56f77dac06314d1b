# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``storage.cfg``: definitions of storages."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Mapping

from ..errors import ConfigError, UsageError
from ..rules.retention import format_keep, parse_keep
from .propstring import FALSE, TRUE, parse_flag, parse_property_string
from .section import Section, parse_sections, write_sections

_REQUIRED = {"lvmthin": ("vgname", "thinpool"), "zfspool": ("pool",)}
"""Keys without which a storage of that type cannot be found."""
CONTENT = ("images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import", "none")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]*[a-zA-Z0-9]")
_DEFAULT_CONTENT = {"nfs": ("images",), "cifs": ("images",), "lvm": ("images",), "rbd": ("images",)}
_ALWAYS_BACKUP = ("pbs", "cephfs")
_ALWAYS_SHARED = ("nfs", "cifs", "pbs", "rbd", "cephfs", "iscsi", "iscsidirect", "zfs")
_LIST = re.compile(r"[,;\s]+")


@dataclass(frozen=True)
class StorageDef:
    """One storage.

    :param content: what may be put there; :param nodes: node names it is limited to, empty for all.
    :param is_mountpoint: ``path`` must be a mount point (``True``), or the given path must.
    :param content_dirs: folder below ``path`` per content type, where it is not the usual one.
    :param prune_backups: retention ``{"keep-last": 3}``; ``None`` when the storage defines none.
    :param max_protected_backups: per guest and kind; -1 for any number; ``None`` when not set.
    :param extra: keys that this version does not act on, kept as they are.
    """

    name: str
    type: str
    path: str = ""
    content: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    disable: bool = False
    shared: bool = False
    is_mountpoint: bool | str = False
    create_base_path: bool = True
    create_subdirs: bool = True
    content_dirs: Mapping[str, str] = field(default_factory=dict)
    prune_backups: Mapping[str, int] | None = None
    max_protected_backups: int | None = None
    extra: Mapping[str, str | None] = field(default_factory=dict)


def parse_storage_cfg(text: str, source: str = "storage.cfg") -> dict[str, StorageDef]:
    """Definitions by name, in file order.

    :raises ConfigError: a section makes no sense; the message names file, section and key.
    """
    result = {}
    for section in parse_sections(text, source):
        try:
            result[section.id] = storage_from_section(section)
        except (ConfigError, UsageError) as exc:
            raise ConfigError(f"{source}: {section.where}: {exc.message}", hint=exc.hint) from exc
    return result


def write_storage_cfg(storages: Mapping[str, StorageDef]) -> str:
    """The file's text."""
    return write_sections(section_from_storage(storage) for storage in storages.values())


def storage_from_section(section: Section) -> StorageDef:
    """Understand one section.

    :raises ConfigError: an impossible value; :raises UsageError: an impossible retention.
    """
    values = section.single()
    kind = section.type.lower()
    if not _NAME.fullmatch(section.id):
        raise ConfigError(
            f"{section.id!r} is not a storage name",
            hint="at least two characters: a letter, then letters, digits, '_', '.', '-'",
        )
    mkdir = _flag(values, "mkdir", True)
    storage = StorageDef(
        name=section.id,
        type=kind,
        path=_path(kind, values.pop("path", None)),
        content=_content(kind, values.pop("content", None)),
        nodes=_words(values.pop("nodes", None)),
        disable=_flag(values, "disable", False),
        shared=_flag(values, "shared", False) or kind in _ALWAYS_SHARED,
        is_mountpoint=_mount_point(values.pop("is_mountpoint", None)),
        create_base_path=_flag(values, "create-base-path", mkdir),
        create_subdirs=_flag(values, "create-subdirs", mkdir),
        content_dirs=_content_dirs(values.pop("content-dirs", None)),
        prune_backups=_retention(values.pop("prune-backups", None)),
        max_protected_backups=_integer("max-protected-backups", values.pop("max-protected-backups", None)),
        extra=values,
    )
    for key in _REQUIRED.get(kind, ()):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:+/-]*", storage.extra.get(key) or ""):
            raise ConfigError(f"a storage of type {kind} needs {key!r}")
    return storage


def section_from_storage(storage: StorageDef) -> Section:
    """The section of a definition: ``path`` first, the others in alphabetical order; defaults are not written."""
    values: dict[str, str | None] = dict(storage.extra)
    values["content"] = ",".join(storage.content) or "none"
    if storage.nodes:
        values["nodes"] = ",".join(storage.nodes)
    if storage.disable:
        values["disable"] = None
    if storage.shared and storage.type not in _ALWAYS_SHARED:
        values["shared"] = "1"
    if storage.is_mountpoint:
        values["is_mountpoint"] = storage.is_mountpoint if isinstance(storage.is_mountpoint, str) else "1"
    for key, wanted in (("create-base-path", storage.create_base_path), ("create-subdirs", storage.create_subdirs)):
        if not wanted:
            values[key] = "0"
    if storage.content_dirs:
        values["content-dirs"] = ",".join(f"{kind}={path}" for kind, path in sorted(storage.content_dirs.items()))
    if storage.prune_backups is not None:
        values["prune-backups"] = format_keep(parse_keep(storage.prune_backups))
    if storage.max_protected_backups is not None:
        values["max-protected-backups"] = str(storage.max_protected_backups)
    first = [("path", storage.path)] if storage.path else []
    return Section(storage.type, storage.name, [*first, *sorted(values.items())])


def _path(kind: str, value: str | None) -> str:
    if value is None:
        if kind in ("dir", "btrfs"):
            raise ConfigError("'path' is missing")
        return ""
    if not value.startswith("/") or ".." in value.split("/"):
        raise ConfigError(f"path {value!r} is not an absolute path")
    if not re.fullmatch(r"[-/a-zA-Z0-9_.@]+", value):
        raise ConfigError(
            f"path {value!r} has characters that cannot stand there", hint="letters, digits and - / _ . @ are possible"
        )
    return value.rstrip("/") or "/"


def _content(kind: str, value: str | None) -> tuple[str, ...]:
    if value is None:
        if kind in _ALWAYS_BACKUP:
            return ("backup",)
        return _DEFAULT_CONTENT.get(kind, ("images", "rootdir"))
    words = _words(value)
    unknown = [word for word in words if word not in CONTENT]
    if unknown:
        raise ConfigError(f"content: {', '.join(unknown)} is unknown", hint="known are " + ", ".join(CONTENT))
    if "none" in words and len(words) > 1:
        raise ConfigError("content: 'none' cannot be combined with other types")
    return tuple(word for word in sorted(set(words)) if word != "none")


def _content_dirs(value: str | None) -> dict[str, str]:
    folders = parse_property_string(value or "")
    for kind, folder in folders.items():
        if kind not in CONTENT or not folder or ".." in folder or folder.startswith("/"):
            raise ConfigError(f"content-dirs: {kind}={folder} is not a content type and a folder below 'path'")
    return folders


def _mount_point(value: str | None) -> bool | str:
    if value is None:
        return False
    if value.startswith("/"):
        return value
    if value.lower() not in TRUE + FALSE:
        raise ConfigError(f"is_mountpoint: {value!r} is neither yes, no, nor an absolute path")
    return value.lower() in TRUE


def _retention(value: str | None) -> dict[str, int] | None:
    return None if value is None else parse_keep(value).to_dict()


def _integer(key: str, value: str | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"-?[0-9]+", value) or int(value) < -1:
        raise ConfigError(f"{key}: {value!r} is not a number of at least -1")
    return int(value)


def _flag(values: dict[str, str | None], key: str, default: bool) -> bool:
    if key not in values:
        return default
    value = values.pop(key)
    return True if value is None else parse_flag(value, key)


def _words(value: str | None) -> tuple[str, ...]:
    return tuple(word for word in _LIST.split(value or "") if word)
