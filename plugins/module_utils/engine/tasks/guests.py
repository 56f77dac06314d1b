# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests of this node: finding them, opening them, starting and stopping them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import HoldfastError, StorageError, UsageError
from ..guests.model import GuestInfo, Resolve, ResolvedVolume
from ..rules.selection import GuestRef
from ..storages.base import Need, Storage
from ..system.host import Host
from ..system.report import Reporter
from .locking import guest_lock
from .stores import get_storage

if TYPE_CHECKING:
    from ..guests.registry import Guest


def list_guests(host: Host) -> list[GuestInfo]:
    """Every guest of this node, by id."""
    from ..guests.registry import list_guests as registered

    return sorted(registered(host), key=lambda info: info.vmid)


def guest_refs(host: Host) -> list[GuestRef]:
    """The same in the terms of the selection rules."""
    return [
        GuestRef(vmid=info.vmid, name=info.name, kind=info.kind, node=host.node, pool=info.pool, tags=info.tags)
        for info in list_guests(host)
    ]


def find_by_id(host: Host, vmid: int) -> GuestInfo | None:
    """The guest with that id, whatever its kind."""
    return next((info for info in list_guests(host) if info.vmid == vmid), None)


def find_guest(host: Host, text: str | int) -> GuestInfo:
    """The guest of that id or name.

    :raises UsageError: there is none, or several have that name.
    """
    found = [info for info in list_guests(host) if str(text) in (str(info.vmid), info.name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{text!r} names {len(found)} guests: {', '.join(str(info.vmid) for info in found)}", hint="give the id"
        )
    raise UsageError(f"there is no guest {text!r} on node {host.node!r}", hint="`holdfast guests` lists them")


def make_resolver(host: Host) -> Resolve:
    """Turns volume ids of guest configs into paths; storages are activated when they are first met."""
    opened: dict[str, Storage] = {}

    def resolve(volid: str) -> ResolvedVolume:
        if os.path.isabs(volid):
            suffix = os.path.splitext(volid)[1].lstrip(".")
            fmt = "subvol" if os.path.isdir(volid) else suffix if suffix in ("raw", "qcow2") else "raw"
            return ResolvedVolume(volid, fmt)
        name, colon, volname = volid.partition(":")
        if not colon:
            raise StorageError(f"{volid!r} is neither a volume id nor an absolute path")
        if name not in opened:
            storage = get_storage(host, name)
            storage.activate(Need())
            opened[name] = storage
        return ResolvedVolume(*opened[name].volumes.locate(volname))

    return resolve


def open_by_info(host: Host, info: GuestInfo) -> Guest:
    """A handle on a guest."""
    from ..guests.registry import open_guest

    return open_guest(host, info, make_resolver(host))


def guest_table(host: Host) -> list[dict[str, Any]]:
    """Every guest with its state; a guest whose state cannot be told has ``status`` ``unknown`` and an ``error``."""
    rows = []
    for info in list_guests(host):
        row: dict[str, Any] = {
            "vmid": info.vmid,
            "name": info.name,
            "kind": info.kind,
            "tags": list(info.tags),
            "pool": info.pool,
            "template": info.template,
            "config_path": info.config_path,
            "status": "unknown",
            "error": None,
        }
        try:
            row["status"] = open_by_info(host, info).status()
        except HoldfastError as exc:
            row["error"] = exc.message
        rows.append(row)
    return rows


def start_guest(host: Host, text: str | int, report: Reporter) -> GuestInfo:
    """Start a guest; one that runs already is left alone."""
    info = find_guest(host, text)
    with guest_lock(host, info.vmid, f"start of guest {info.vmid}"):
        guest = open_by_info(host, info)
        if guest.status() == "stopped":
            guest.start()
            report.info(f"guest {info.vmid} ({info.name}) is started")
        else:
            report.info(f"guest {info.vmid} ({info.name}) runs already")
    return info


def stop_guest(host: Host, text: str | int, report: Reporter, *, timeout: float = 60, force: bool = False) -> GuestInfo:
    """Shut a guest down in an orderly way.

    :param timeout: seconds to wait for it; :param force: switch it off instead, or when it does not end in time.
    """
    info = find_guest(host, text)
    with guest_lock(host, info.vmid, f"stop of guest {info.vmid}"):
        guest = open_by_info(host, info)
        if guest.status() == "stopped":
            report.info(f"guest {info.vmid} ({info.name}) is stopped already")
            return info
        if force:
            guest.stop()
        else:
            guest.shutdown(timeout)
        report.info(f"guest {info.vmid} ({info.name}) is stopped")
    return info
