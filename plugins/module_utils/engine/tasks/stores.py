# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The storages of this node: reading and changing ``storage.cfg``, and opening what it defines.

Callers give and get plain values by the file's own keys (dashes or underscores in, underscores out).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Callable, Mapping

from ..errors import ConfigError, HoldfastError, UsageError
from ..settings.section import Section
from ..settings.storage_types import TYPES, unknown_keys
from ..settings.storages import (
    StorageDef,
    StoragesFile,
    parse_storage_cfg,
    section_from_storage,
    storage_from_section,
)
from ..system.files import read_text
from ..system.host import Host
from .changes import change_section, config_text
from .results import Change

if TYPE_CHECKING:
    from ..storages.base import Need, Storage

UNSET: dict[str, Any] = {
    "nodes": (),
    "disable": False,
    "shared": False,
    "is_mountpoint": False,
    "create_base_path": True,
    "create_subdirs": True,
    "content_dirs": {},
    "prune_backups": None,
    "max_protected_backups": None,
}
"""Values that mean that a key is not in the file."""


def read_storages(host: Host) -> StoragesFile:
    """The whole file, also what in it cannot be used."""
    return parse_storage_cfg(read_text(host.paths.storage_cfg) or "", host.paths.storage_cfg)


def load_storages(host: Host) -> dict[str, StorageDef]:
    """Every storage by name whose definition can be used."""
    return dict(read_storages(host).storages)


def get_storage(host: Host, name: str) -> Storage:
    """A storage by name, not activated yet.

    :raises UsageError: no storage of that name is defined; :raises ConfigError: its definition cannot be used.
    """
    from ..storages.registry import open_storage

    file = read_storages(host)
    if name in file.broken:
        raise ConfigError(
            f"storage {name!r} cannot be used: {file.broken[name]}", hint=f"correct it in {host.paths.storage_cfg}"
        )
    if name not in file.storages:
        raise UsageError(
            f"storage {name!r} does not exist",
            hint=f"defined in {host.paths.storage_cfg} are: {', '.join(file.storages) or 'none'}",
        )
    return open_storage(file.storages[name], host)


def open_storages(host: Host, need: Need, warn: Callable[[str], object] | None = None) -> list[Storage]:
    """Every storage that can be used for that on this node now; the others are left out.

    :param warn: is told of those that are meant for it and are away.
    """
    from ..storages.registry import open_storage

    usable = []
    for definition in load_storages(host).values():
        try:
            storage = open_storage(definition, host)
            storage.check(need)
        except HoldfastError:
            continue
        try:
            storage.activate(need)
        except HoldfastError as exc:
            if warn is not None:
                warn(f"what lies on storage {storage.name!r} is not known: {exc.message}")
            continue
        usable.append(storage)
    return usable


def storage_dict(definition: StorageDef) -> dict[str, Any]:
    """A definition for callers outside the engine: what is set, by the file's keys with underscores."""
    values = {key: value for key, value in asdict(definition).items() if key != "extra"}
    shown = {key: value for key, value in values.items() if key not in UNSET or value != UNSET[key]}
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in shown.items()}
    return {**shown, **{key.replace("-", "_"): value for key, value in definition.extra.items()}}


def plan_storage(
    host: Host, name: str, wanted: StorageDef | Mapping[str, Any] | None, *, purge: bool = False
) -> Change:
    """The change that makes a storage look as wanted; nothing is written.

    :param wanted: the whole definition, or single keys of it (``None`` values are not given), or ``None`` to remove it.
    :param purge: keys that a mapping does not give are removed; otherwise they stay as they are.
    :raises ConfigError: it would not be a valid definition, a key would change that cannot, or the file holds lines
        that writing it would lose.
    """
    text = read_text(host.paths.storage_cfg)
    file = parse_storage_cfg(text or "", host.paths.storage_cfg)
    before = file.storages.get(name)
    after = wanted if wanted is None or isinstance(wanted, StorageDef) else _merged(name, before, wanted, purge)
    if before is not None and after is not None:
        _check_fixed(before, after)
    return change_section(
        path=host.paths.storage_cfg,
        base=text,
        sections=file.sections,
        findings=file.findings,
        name=name,
        new=None if after is None else section_from_storage(after),
        same=after == before,
        before=None if before is None else storage_dict(before),
        after=None if after is None else storage_dict(after),
    )


def _fixed(kind: str) -> tuple[str, ...]:
    """Keys of a storage that cannot be changed later: archives and volumes would be lost from sight."""
    return ("path", *(TYPES[kind].required if kind in TYPES else ()))


def _check_fixed(before: StorageDef, after: StorageDef) -> None:
    old, new = ({"type": one.type, **dict(section_from_storage(one).properties)} for one in (before, after))
    for key in ("type", *_fixed(before.type)):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"cannot change {key!r} of storage {before.name!r} from {old.get(key)!r} to {new.get(key)!r}:"
                " what lies there would be lost from sight",
                hint="remove the definition first, or define another storage",
            )


def _merged(name: str, before: StorageDef | None, wanted: Mapping[str, Any], purge: bool) -> StorageDef:
    given = {key.replace("_", "-"): value for key, value in wanted.items() if value is not None and key != "name"}
    if "is-mountpoint" in given:
        given["is_mountpoint"] = given.pop("is-mountpoint")
    kind = str(given.pop("type", None) or (before.type if before is not None and not purge else "dir"))
    unknown = unknown_keys(kind, tuple(given))
    if unknown:
        raise ConfigError(f"cannot declare storage {name!r}: the type {kind} has no key {', '.join(unknown)}")
    values: dict[str, str | None] = {}
    if before is not None:
        kept = dict(section_from_storage(before).properties)
        values = {key: value for key, value in kept.items() if not purge or key in _fixed(kind)}
    values.update({key: config_text(value) for key, value in given.items()})
    try:
        return storage_from_section(Section(kind, name, list(values.items())))
    except (ConfigError, UsageError) as exc:
        raise ConfigError(f"cannot declare storage {name!r}: {exc.message}", hint=exc.hint) from exc
