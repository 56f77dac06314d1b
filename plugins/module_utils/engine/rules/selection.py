# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests a backup takes: ids or names, all, all but some, or a pool (rules of vzdump)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Sequence

from ..errors import UsageError


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
    """:param guests: ids to back up, ascending; :param skipped: ids selected but living on another node."""

    guests: tuple[int, ...]
    skipped: tuple[int, ...] = ()


def select(
    guests: Iterable[GuestRef],
    *,
    here: str,
    vmid: Sequence[str | int] = (),
    all: bool = False,  # vzdump's own name of the option
    exclude: Sequence[str | int] = (),
    pool: str | None = None,
    node: str | None = None,
) -> Selection:
    """Apply a selection on the node ``here``.

    :param node: the run concerns only this node; elsewhere nothing is selected.
    :raises UsageError: nothing or contradicting things are asked for, or a guest is unknown or ambiguous.
    """
    known = list(guests)
    if vmid and (all or pool or exclude):
        other = "all" if all else "pool" if pool else "exclude"
        raise UsageError(f"'vmid' and '{other}' exclude each other", hint="name guests, or select all of them")
    if all and pool:
        raise UsageError("'all' and 'pool' exclude each other")
    if not (vmid or all or pool or exclude):
        raise UsageError("no guest is selected", hint="give vmid, all, exclude or pool")
    if node is not None and node != here:
        return Selection(())
    if vmid:
        chosen = {find(known, text) for text in vmid}
    else:
        left_out = {find(known, text, missing_ok=True) for text in exclude}
        chosen = {g.vmid for g in known if g.vmid not in left_out and (pool is None or g.pool == pool)}
        if pool is not None and not any(g.pool == pool for g in known):
            raise UsageError(f"there is no guest in the pool {pool!r}", hint="`holdfast guests` lists pools")
    away = {g.vmid for g in known if g.vmid in chosen and g.node not in ("", here)}
    return Selection(tuple(sorted(chosen - away)), tuple(sorted(away)))


def find(guests: Sequence[GuestRef], text: str | int, *, missing_ok: bool = False) -> int:
    """Id of a guest given by id or name; an id always wins over a name that looks like one.

    :param missing_ok: an unknown guest gives 0 (nothing is lost by excluding what does not exist).
    :raises UsageError: there is none, or several guests bear that name.
    """
    wanted = str(text).strip()
    ids = {guest.vmid for guest in guests}
    if wanted.isdigit() and int(wanted) in ids:
        return int(wanted)
    named = sorted(guest.vmid for guest in guests if guest.name == wanted)
    if len(named) > 1:
        listed = ", ".join(map(str, named))
        raise UsageError(f"the name {wanted!r} belongs to several guests ({listed})", hint="give the id")
    if named:
        return named[0]
    if missing_ok:
        return 0
    present = ", ".join(f"{g.vmid} ({g.name})" for g in sorted(guests, key=lambda g: g.vmid)[:20]) or "none at all"
    raise UsageError(f"there is no guest {wanted!r} on this node", hint=f"guests here: {present}")
