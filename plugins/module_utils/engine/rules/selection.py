# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests a backup takes: ids or names, all, all but some, or a pool (rules of vzdump); and tags, and queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Iterable, Mapping, Sequence

from ..errors import UsageError

WAYS = ("vmid", "all", "exclude", "pool", "tags", "query")
"""Ways of selecting guests."""

DESCRIBED = ("tags", "query")
"""Those that describe guests; with both, a guest must meet both. Proxmox VE does not know them."""


@dataclass(frozen=True)
class GuestRef:
    """A guest as far as selection needs it."""

    vmid: int
    name: str
    kind: str
    node: str = ""
    pool: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """:param guests: ids to back up, ascending; :param skipped: ids selected but living on another node.

    :param missing: ids and names asked for that no guest has; the run goes on, and ends as failed.
    :param warnings: what of the selection has no effect.
    """

    guests: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def check_selection(wanted: Mapping[str, Any]) -> None:
    """Refuse ways of selecting that exclude each other, and a selection of nothing.

    :param wanted: those of ``WAYS`` that are given.
    """
    given = [name for name in WAYS if wanted.get(name)]
    if not given:
        raise UsageError("no guest is selected", hint=f"give one of {', '.join(WAYS)}; all means every guest")
    if "vmid" in given and len(given) > 1:
        raise UsageError(f"'vmid' and '{given[1]}' exclude each other", hint="name guests, or select all of them")
    described = [name for name in DESCRIBED if name in given]
    wider = [name for name in ("all", "pool") if name in given]
    if described and wider:
        raise UsageError(f"'{wider[0]}' and '{described[0]}' exclude each other", hint="give one of them")


def change_selection(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The selection of a job after some of its keys were set.

    Naming guests or a pool replaces every other way, ``all`` every other but ``exclude``, tags and a query the same
    but each other; ``exclude`` alone means all but these.
    """
    merged = {key: value for key, value in {**before, **changes}.items() if value not in (None, "", (), [], False)}
    if changes.get("vmid"):
        dropped: tuple[str, ...] = ("all", "exclude", "pool", *DESCRIBED)
    elif changes.get("all"):
        dropped = ("vmid", "pool", *DESCRIBED)
    elif any(changes.get(name) for name in DESCRIBED):
        dropped = ("vmid", "all", "pool")
    elif changes.get("exclude"):
        dropped = ("vmid",)
    elif changes.get("pool"):
        dropped = ("vmid", "all", "exclude", *DESCRIBED)
    else:
        dropped = ()
    result = {key: value for key, value in merged.items() if key not in dropped or changes.get(key)}
    if "exclude" in result and not any(name in result for name in ("pool", *DESCRIBED)):
        result["all"] = True
    return result


def select(
    guests: Iterable[GuestRef],
    *,
    here: str,
    vmid: Sequence[str | int] = (),
    all: bool = False,  # vzdump's own name of the option
    exclude: Sequence[str | int] = (),
    pool: str | None = None,
    node: str | None = None,
    tags: Sequence[str] = (),
    found: Collection[int] | None = None,
) -> Selection:
    """Apply a selection on the node ``here``.

    :param tags: guests that have one of these; :param found: ids of the guests that a query found, ``None`` without.
    :param node: the run concerns only this node; elsewhere nothing is selected.
    :raises UsageError: nothing or contradicting things are asked for, or a name belongs to several guests.
    """
    asked = {"vmid": vmid, "all": all, "exclude": exclude, "pool": pool, "tags": tags, "query": found is not None}
    check_selection(asked)
    if node is not None and node != here:
        return Selection()
    known = list(guests)
    missing: list[str] = []
    warnings: list[str] = []
    if pool:
        if not any(guest.pool == pool for guest in known):
            raise UsageError(f"there is no guest in the pool {pool!r}", hint="`holdfast guests` lists pools")
        ignored = [name for name, value in (("all", all), ("exclude", exclude)) if value]
        warnings += [f"{name!r} has no effect beside 'pool': every member of {pool!r} is taken" for name in ignored]
        chosen = {guest.vmid for guest in known if guest.pool == pool}
    elif vmid:
        named = {str(text).strip(): find(known, text) for text in vmid}
        chosen = {number for number in named.values() if number is not None}
        missing = [text for text, number in named.items() if number is None and text.strip("0")]
    else:
        left_out = {find(known, text) for text in exclude}
        chosen = {
            guest.vmid
            for guest in known
            if guest.vmid not in left_out
            and (not tags or set(tags) & set(guest.tags))
            and (found is None or guest.vmid in found)
        }
    away = {guest.vmid for guest in known if guest.vmid in chosen and guest.node not in ("", here)}
    return Selection(
        guests=tuple(sorted(chosen - away)),
        # Whoever names the node does not care about others.
        skipped=() if node is not None else tuple(sorted(away)),
        missing=tuple(missing),
        warnings=tuple(warnings),
    )


def find(guests: Sequence[GuestRef], text: str | int) -> int | None:
    """Id of a guest given by id or name, ``None`` when there is none; an id wins over a name that looks like one.

    :raises UsageError: several guests bear that name.
    """
    wanted = str(text).strip()
    if wanted.isascii() and wanted.isdecimal() and any(guest.vmid == int(wanted) for guest in guests):
        return int(wanted)
    named = sorted(guest.vmid for guest in guests if guest.name == wanted)
    if len(named) > 1:
        listed = ", ".join(map(str, named))
        raise UsageError(f"the name {wanted!r} belongs to several guests ({listed})", hint="give the id")
    return named[0] if named else None
