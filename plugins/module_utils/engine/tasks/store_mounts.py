# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What network storages need beside their definition: the password of the server, and the mount on this node."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ConfigError, StorageError, UsageError
from ..settings.network import NETWORK
from ..settings.storages import StorageDef, parse_storage_cfg
from ..system.files import read_text
from ..system.host import Host
from ..system.report import Reporter
from .changes import apply_change
from .results import Change, SecretFile
from .stores import get_storage, load_storages

if TYPE_CHECKING:
    from ..storages.network import NetworkMount


def with_password(host: Host, name: str, change: Change, password: str | None) -> Change:
    """A planned change of a storage together with its password.

    :param password: ``None`` when it is not given: the one that is known stays as long as the storage has a user.
    :raises ConfigError: the storage has no use for a password, or cannot have this one.
    """
    path = host.paths.storage_password(name)
    text = read_text(path)
    known = None if text is None else text.rstrip("\n")
    used = change.after is not None and change.after["type"] == "cifs" and "username" in change.after
    if password is not None:
        if not used:
            raise ConfigError(
                f"cannot keep a password for storage {name!r}: it is not a CIFS storage with a username",
                hint="give type: cifs and username, or leave the password out",
            )
        if not password or "\n" in password or "\0" in password:
            raise ConfigError(f"cannot keep the password of storage {name!r}: it is empty or has more than one line")
    wanted = f"password={password}" if password is not None else known if used else None
    return change if wanted == known else replace(change, secret=SecretFile(path, wanted, known is not None))


def apply_storage(host: Host, name: str, change: Change, report: Reporter) -> None:
    """Write a planned change of a storage, and unmount it where the mount does not fit the definition any more.

    Only what this program mounted is unmounted. A mount with old options that is in use stays, with a warning.

    :raises StorageError: the storage is to be removed and is in use; nothing is written.
    """
    before = load_storages(host).get(name)
    after = parse_storage_cfg(change.text).storages.get(name)
    if change.changed and before is not None and before.type in NETWORK and _differs(host, before, after, change):
        try:
            _mount(host, before).release()
        except StorageError as exc:
            if after is None:
                raise
            report.warn(f"{exc.message}; what was changed takes effect when it is mounted the next time")
    apply_change(host, change)


def mount_storage(host: Host, name: str) -> None:
    """Mount a network storage unless it is mounted.

    :raises UsageError: it is not a network storage; :raises StorageError: it cannot be mounted.
    """
    from ..storages.base import Need

    _named(host, name)
    get_storage(host, name).activate(Need())


def unmount_storage(host: Host, name: str) -> bool:
    """Unmount a network storage if this program mounted it; tells whether it did.

    :raises UsageError: it is not a network storage; :raises StorageError: it is in use.
    """
    return _mount(host, _named(host, name)).release()


def _named(host: Host, name: str) -> StorageDef:
    definition = get_storage(host, name).definition
    if definition.type not in NETWORK:
        raise UsageError(
            f"storage {name!r} is not mounted by holdfast: its type is {definition.type}",
            hint=f"this is for storages of the types {', '.join(NETWORK)}",
        )
    return definition


def _mount(host: Host, definition: StorageDef) -> NetworkMount:
    from ..storages.network import mount_of

    return mount_of(definition, host)


def _differs(host: Host, before: StorageDef, after: StorageDef | None, change: Change) -> bool:
    if after is None or after.disable or change.secret is not None:
        return True
    return _mount(host, before).spec != _mount(host, after).spec
