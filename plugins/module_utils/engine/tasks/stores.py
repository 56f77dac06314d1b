# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The storages of this node: reading and changing ``storage.cfg``, and opening what it defines.

Callers give and get plain values by the file's own keys (dashes or underscores in, underscores out).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Mapping

from ..errors import ConfigError, HoldfastError, UsageError
from ..settings.section import Section
from ..settings.storages import (
    StorageDef,
    parse_storage_cfg,
    section_from_storage,
    storage_from_section,
    write_storage_cfg,
)
from ..system.files import read_text
from ..system.host import Host
from .changes import config_text, make_change
from .results import Change

if TYPE_CHECKING:
    from ..storages.base import Need, Storage

FIXED = ("type", "path")
"""Keys of a storage that cannot be changed later: archives and volumes would be lost from sight."""

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


def load_storages(host: Host) -> dict[str, StorageDef]:
    """Every defined storage by name.

    :raises ConfigError: the file cannot be understood.
    """
    return parse_storage_cfg(read_text(host.paths.storage_cfg) or "", host.paths.storage_cfg)


def get_storage(host: Host, name: str) -> Storage:
    """A storage by name, not activated yet.

    :raises UsageError: no storage of that name is defined.
    """
    from ..storages.registry import open_storage

    storages = load_storages(host)
    if name not in storages:
        raise UsageError(
            f"storage {name!r} does not exist",
            hint=f"defined in {host.paths.storage_cfg} are: {', '.join(storages) or 'none'}",
        )
    return open_storage(storages[name], host.node)


def open_storages(host: Host, need: Need) -> list[Storage]:
    """Every storage that can be used for that on this node now; the others are left out."""
    from ..storages.registry import open_storage

    usable = []
    for definition in load_storages(host).values():
        try:
            storage = open_storage(definition, host.node)
            storage.activate(need)
        except HoldfastError:
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
    :raises ConfigError: it would not be a valid definition, or a key would change that cannot.
    """
    storages = load_storages(host)
    before = storages.get(name)
    after = wanted if wanted is None or isinstance(wanted, StorageDef) else _merged(name, before, wanted, purge)
    if before is not None and after is not None:
        for key in FIXED:
            if getattr(before, key) != getattr(after, key):
                raise ConfigError(
                    f"cannot change {key!r} of storage {name!r} from {getattr(before, key)!r} to"
                    f" {getattr(after, key)!r}: what lies there would be lost from sight",
                    hint="remove the definition first, or define another storage",
                )
    left = {key: definition for key, definition in storages.items() if key != name or after is not None}
    if after is not None:
        left[name] = after
    return make_change(
        path=host.paths.storage_cfg,
        before=None if before is None else storage_dict(before),
        after=None if after is None else storage_dict(after),
        before_text="" if before is None else write_storage_cfg({name: before}),
        after_text="" if after is None else write_storage_cfg({name: after}),
        text=write_storage_cfg(left),
    )


def _merged(name: str, before: StorageDef | None, wanted: Mapping[str, Any], purge: bool) -> StorageDef:
    given = {key.replace("_", "-"): value for key, value in wanted.items() if value is not None and key != "name"}
    if "is-mountpoint" in given:
        given["is_mountpoint"] = given.pop("is-mountpoint")
    kind = str(given.pop("type", None) or (before.type if before is not None else "dir"))
    values: dict[str, str | None] = {}
    if before is not None:
        kept = dict(section_from_storage(before).properties)
        values = {key: value for key, value in kept.items() if not purge or key == "path"}
    values.update({key: config_text(value) for key, value in given.items()})
    try:
        return storage_from_section(Section(kind, name, list(values.items())))
    except (ConfigError, UsageError) as exc:
        raise ConfigError(f"cannot declare storage {name!r}: {exc.message}", hint=exc.hint) from exc
