# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``guests.d/<name>.yml``: a VM that somebody else starts, and how it is reached."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Mapping

from ..errors import ConfigError
from .guest_config import GuestConfig
from .vm_config import vm_disks

_KEYS = {"vmid", "name", "qmp", "agent", "start", "start_paused", "stop", "disks", "config"}
_DISK_KEYS = {"key", "path", "format", "node", "backup"}
_FORMATS = ("raw", "qcow2")


@dataclass(frozen=True)
class AdoptedDisk:
    """One disk.

    :param key: drive key in Proxmox VE syntax; :param node: name of its block node, empty to look for its path.
    """

    key: str
    path: str
    format: str
    node: str


@dataclass(frozen=True)
class Adopted:
    """A VM of somebody else.

    :param config: what is known of it in Proxmox VE syntax, with its disks.
    :param qmp: path of the QMP socket; :param agent: of the guest agent's, empty without.
    :param start: command that returns when QEMU runs; :param start_paused: the same with QEMU's ``-S``;
    :param stop: command that shuts the guest down. Empty commands were not given.
    """

    vmid: int
    name: str
    config: GuestConfig
    disks: tuple[AdoptedDisk, ...]
    qmp: str
    agent: str
    start: tuple[str, ...]
    start_paused: tuple[str, ...]
    stop: tuple[str, ...]


def parse_adopted(text: str, name: str, source: str) -> Adopted:
    """Understand a definition.

    :param name: of the guest, if it gives no other; :param source: file name, for messages.
    :raises ConfigError: it is not a valid definition.
    """
    data = _load(text, source)
    _check_keys(data, _KEYS, source)
    vmid = data.get("vmid")
    if not isinstance(vmid, int) or not 100 <= vmid <= 999_999_999:
        raise ConfigError(f"{source}: vmid: {vmid!r} is not a guest id", hint="write a number from 100 on")
    disks, lines = [], {}
    for item in _sequence(data, "disks", source):
        _check_keys(item, _DISK_KEYS, f"{source}: disks")
        disk = AdoptedDisk(
            key=_text(item, "key", source),
            path=_path(item, "path", source),
            format=_text(item, "format", source),
            node=_text(item, "node", source, ""),
        )
        if disk.format not in _FORMATS:
            raise ConfigError(f"{source}: {disk.key}: format {disk.format!r} is not known", hint="write raw or qcow2")
        if "," in disk.path:
            raise ConfigError(f"{source}: {disk.key}: a path with a comma cannot stand in a config: {disk.path}")
        disks.append(disk)
        lines[disk.key] = disk.path + ("" if item.get("backup", True) else ",backup=0")
    agent = _path(data, "agent", source, "")
    given = {str(key): _value(value) for key, value in (data.get("config") or {}).items()}
    own = {"name": _text(data, "name", source, name), **({"agent": "1"} if agent else {})}
    config = GuestConfig().with_changes({**own, **given, **lines})
    if len(vm_disks(config)) != len(disks):
        raise ConfigError(f"{source}: disks: each needs a key like scsi0 or virtio1 of its own")
    return Adopted(
        vmid=vmid,
        name=own["name"],
        config=config,
        disks=tuple(disks),
        qmp=_path(data, "qmp", source),
        agent=agent,
        start=_command(data, "start", source),
        start_paused=_command(data, "start_paused", source),
        stop=_command(data, "stop", source),
    )


def _load(text: str, source: str) -> Mapping[str, Any]:
    """YAML where its library is installed; else JSON, which is YAML as well."""
    try:
        import yaml
    except ImportError:
        load, errors, hint = json.loads, (ValueError,), "write it as JSON, or install the package python3-yaml"
    else:
        load, errors, hint = yaml.safe_load, (yaml.YAMLError,), ""
    try:
        data = load(text)
    except (*errors, RecursionError) as exc:
        raise ConfigError(f"cannot understand {source}: {exc}", hint=hint) from exc
    if not isinstance(data, Mapping):
        raise ConfigError(f"{source}: this is not a mapping of settings")
    return data


def _check_keys(data: Any, known: set[str], source: str) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{source}: {data!r} is not a mapping of settings")
    unknown = sorted(map(str, set(data) - known))
    if unknown:
        raise ConfigError(f"{source}: there is no setting {unknown[0]!r}", hint=f"known are {', '.join(sorted(known))}")


def _sequence(data: Mapping[str, Any], key: str, source: str) -> list[Any]:
    value = data.get(key) or []
    if not isinstance(value, list):
        raise ConfigError(f"{source}: {key}: {value!r} is not a list")
    return value


def _text(data: Mapping[str, Any], key: str, source: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str) or (default is None and not value) or re.search(r"[\r\n]", value):
        raise ConfigError(f"{source}: {key}: {value!r} is not a text" if key in data else f"{source}: {key} is missing")
    return value


def _path(data: Mapping[str, Any], key: str, source: str, default: str | None = None) -> str:
    value = _text(data, key, source, default)
    if value and not value.startswith("/"):
        raise ConfigError(f"{source}: {key}: {value!r} is not an absolute path")
    return value


def _command(data: Mapping[str, Any], key: str, source: str) -> tuple[str, ...]:
    value = _sequence(data, key, source)
    if not all(isinstance(part, str) for part in value):
        raise ConfigError(f"{source}: {key}: {value!r} is not a list of texts", hint="write [program, argument, ...]")
    return tuple(value)


def _value(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
