# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``storage.cfg``: definitions of storages.

A wrong value is left out with a finding, as in the original, and the storage goes on with the default. Where the
default could lead data to the wrong place, the storage cannot be used until the value is corrected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Callable, Mapping, TypeVar

from ..errors import ConfigError, UsageError
from ..rules.retention import format_keep, parse_keep
from ..rules.values import parse_flag, split_words, whole_number
from .network import NETWORK, default_path, network_mount
from .propstring import parse_property_string
from .section import Finding, Section, parse_sections
from .storage_types import ALWAYS_SHARED, CONTENT, TYPES, default_content, possible_content, unknown_keys

T = TypeVar("T")

CRITICAL = ("path", "disable", "is_mountpoint", "content-dirs")
"""Keys whose default must not stand in for a value that nobody understands."""

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]*[a-zA-Z0-9]")


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


@dataclass(frozen=True)
class StoragesFile:
    """A whole file.

    :param storages: what can be used, by name; :param broken: why the others cannot, by name.
    :param sections: all sections; :param findings: what has no effect.
    """

    storages: Mapping[str, StorageDef]
    broken: Mapping[str, str]
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]


def parse_storage_cfg(text: str, source: str = "storage.cfg") -> StoragesFile:
    """Understand the file as far as possible; nothing in it is an error for the storages that are all right."""
    sections, findings = parse_sections(text, source)
    storages: dict[str, StorageDef] = {}
    broken: dict[str, str] = {}
    for section in sections:
        problems: list[str] = []
        try:
            storage = storages[section.id] = storage_from_section(section, problems)
            for key in unknown_keys(storage.type, tuple(storage.extra)):
                problems.append(f"{key!r} has no effect, it is not a key of the type {storage.type}")
        except ConfigError as exc:
            broken[section.id] = exc.message
            problems = [f"the storage cannot be used: {exc.message}"]
        findings += [Finding(section.id, f"{source}: {section.where}: {problem}") for problem in problems]
    return StoragesFile(storages, broken, tuple(sections), tuple(findings))


def storage_from_section(section: Section, problems: list[str] | None = None) -> StorageDef:
    """Understand one section.

    :param problems: takes what has no effect; ``None`` makes all of it an error.
    :raises ConfigError: it is no storage.
    """
    values, repeated = section.single()
    kind = section.type.lower()
    reader = _Reader(values, problems)
    for key in repeated:
        reader.problem(f"{key!r} is given again")
    if not _NAME.fullmatch(section.id):
        raise ConfigError(
            f"{section.id!r} is not a storage name",
            hint="at least two characters: a letter, then letters, digits, '_', '.', '-'",
        )
    for key in TYPES[kind].required if kind in TYPES else ():
        if not values.get(key):
            raise ConfigError(f"{key!r} is missing", hint=f"a storage of type {section.type} needs {key}")
    mkdir = reader.flag("mkdir", True)
    unmounted: bool | str = False
    storage = StorageDef(
        name=section.id,
        type=kind,
        path=reader.take("path", lambda text: _path(kind, text), default_path(kind, section.id)),
        content=_possible(kind, reader.take("content", _content, default_content(kind)), reader),
        nodes=reader.take("nodes", split_words, ()),
        disable=reader.flag("disable", False),
        shared=reader.flag("shared", False) or kind in ALWAYS_SHARED,
        is_mountpoint=reader.take("is_mountpoint", _mount_point, unmounted, bare="1"),
        create_base_path=reader.flag("create-base-path", mkdir),
        create_subdirs=reader.flag("create-subdirs", mkdir),
        content_dirs=reader.take("content-dirs", _content_dirs, {}),
        prune_backups=reader.take("prune-backups", lambda text: parse_keep(text).to_dict(), None),
        max_protected_backups=reader.take("max-protected-backups", whole_number(-1), None),
        extra=values,
    )
    if kind in NETWORK:
        network_mount(kind, storage.path, storage.content, storage.extra, "")
    return storage


def section_from_storage(storage: StorageDef) -> Section:
    """The section of a definition, in the order in which Proxmox VE writes it; defaults are not written."""
    values: dict[str, str | None] = dict(storage.extra)
    if storage.path:
        values["path"] = storage.path
    values["content"] = ",".join(storage.content) or "none"
    if storage.nodes:
        values["nodes"] = ",".join(storage.nodes)
    if storage.shared and storage.type not in ALWAYS_SHARED:
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
    required = TYPES[storage.type].required if storage.type in TYPES else ("path",)
    first = sorted(key for key in values if key in required)
    rest = sorted(key for key in values if key not in required)
    flag: list[tuple[str, str | None]] = [("disable", None)] if storage.disable else []
    return Section(storage.type, storage.name, [*flag, *((key, values[key]) for key in [*first, *rest])])


class _Reader:
    """Takes values out of a section and decides what a wrong one means."""

    def __init__(self, values: dict[str, str | None], problems: list[str] | None) -> None:
        self._values = values
        self._problems = problems

    def problem(self, message: str) -> None:
        if self._problems is None:
            raise ConfigError(message)
        self._problems.append(f"{message}; this has no effect")

    def take(self, key: str, check: Callable[[str], T], default: T, bare: str | None = None) -> T:
        """The checked value of a key; ``bare`` is what the key alone means."""
        if key not in self._values:
            return default
        value = self._values.pop(key)
        text = bare if value is None else value
        try:
            if text is None:
                raise ValueError("has no value")
            return check(text)
        except (ValueError, ConfigError, UsageError) as exc:
            reason = f"{key}: {value!r} {exc}" if isinstance(exc, ValueError) else f"{key}: {exc.message}"
            if key in CRITICAL:
                raise ConfigError(reason) from exc
            self.problem(reason)
            return default

    def flag(self, key: str, default: bool) -> bool:
        return self.take(key, parse_flag, default, bare="1")


def _path(kind: str, value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise ValueError("is not an absolute path")
    if kind in ("dir", "btrfs") and not re.fullmatch(r"[-/a-zA-Z0-9_.@]+", value):
        raise ValueError("has characters other than letters, digits and - / _ . @")
    return value.rstrip("/") or "/"


def _content(value: str) -> tuple[str, ...]:
    words = split_words(value)
    if "none" in words and len(set(words)) > 1:
        raise ValueError("combines 'none' with other content types")
    return words


def _possible(kind: str, words: tuple[str, ...], reader: _Reader) -> tuple[str, ...]:
    """What of a content list the type can hold."""
    possible = possible_content(kind)
    for word in words:
        if word not in possible:
            reader.problem(f"content: {word!r} is not one of {', '.join(possible)}, which the type {kind} can hold")
    return tuple(word for word in sorted(set(words)) if word in possible and word != "none")


def _content_dirs(value: str) -> dict[str, str]:
    folders = parse_property_string(value)
    for kind, folder in folders.items():
        parts = folder.split("/")
        too_long = len(folder) > 1022 or any(len(part) > 254 for part in parts)
        if kind not in CONTENT or folder.startswith("/") or ".." in folder or too_long:
            raise ValueError(f"has {kind}={folder}, which is not a content type and a folder below 'path'")
    return folders


def _mount_point(value: str) -> bool | str:
    return value.rstrip("/") or "/" if value.startswith("/") else parse_flag(value)
