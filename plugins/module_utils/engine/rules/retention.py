# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention: which archives of a guest are kept, by which rule (the keep-* options of Proxmox VE).

N of an option counts newly kept periods, not calendar time; periods covered by an earlier option do not count.
Protected archives neither count nor cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Callable, Iterable, Mapping, TypeVar

from ..errors import UsageError
from .values import parse_flag, parse_pairs, whole_number

T = TypeVar("T")

RULES = ("keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly")
_PERIOD: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "keep-hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "keep-daily": lambda t: (t.year, t.month, t.day),
    "keep-weekly": lambda t: tuple(t.isocalendar())[:2],
    "keep-monthly": lambda t: (t.year, t.month),
    "keep-yearly": lambda t: (t.year,),
}
_COUNT = whole_number(0)


@dataclass(frozen=True)
class Keep:
    """Retention of one storage, job or call: number of periods per rule; no rule at all keeps everything."""

    counts: tuple[tuple[str, int], ...] = ()

    @property
    def all(self) -> bool:
        return not self.counts

    def to_dict(self) -> dict[str, int]:
        """``{"keep-last": 3}``; ``{"keep-all": 1}`` when everything is kept."""
        return dict(self.counts) or {"keep-all": 1}


@dataclass(frozen=True)
class Entry:
    """One archive.

    :param group: archives compete only within a group (``qemu/100``); ``None`` marks a renamed archive, always kept.
    :param time: seconds since 1970.
    :param good: whether a guest could be restored from it, as far as is known.
    """

    name: str
    group: str | None
    time: int
    protected: bool = False
    good: bool = True


@dataclass(frozen=True)
class Marked:
    """``mark`` is ``keep``, ``remove``, ``protected`` or ``renamed``; ``rule`` is the option that decided it."""

    entry: Entry
    mark: str
    rule: str


@dataclass(frozen=True)
class Emptied:
    """A guest that a plan would leave without a good archive: ``removed`` are the good ones that it has now."""

    group: str
    removed: tuple[str, ...]


def parse_keep(value: str | Mapping[str, object]) -> Keep:
    """Retention from ``keep-last=3,keep-daily=7`` or from a mapping (dashes or underscores, with or without ``keep-``).

    :raises UsageError: unknown or repeated key, a value that is no number, or ``keep-all`` beside another rule.
    """
    pairs: list[tuple[str, object]] = (
        _split(value) if isinstance(value, str) else [(str(key), item) for key, item in value.items()]
    )
    counts: dict[str, int] = {}
    keep_all = False
    seen: set[str] = set()
    for raw, item in pairs:
        key = raw.replace("_", "-")
        key = key if key.startswith("keep-") else f"keep-{key}"
        if key in seen:
            raise UsageError(f"retention: {key} is given twice")
        seen.add(key)
        if item is None:
            continue
        if key == "keep-all":
            keep_all = _checked(parse_flag, key, item)
        elif key not in RULES:
            raise UsageError(f"retention: unknown key {raw!r}", hint="known are keep-all, " + ", ".join(RULES))
        else:
            counts[key] = _checked(_COUNT, key, item)
    positive = tuple((rule, counts[rule]) for rule in RULES if counts.get(rule, 0) > 0)
    if keep_all and positive:
        raise UsageError("retention: keep-all cannot be set together with other rules")
    return Keep(positive)


def format_keep(keep: Keep) -> str:
    """The property string of a retention, as configs write it."""
    return ",".join(f"{key}={count}" for key, count in sorted(keep.to_dict().items()))


def emptied(marked: Iterable[Marked]) -> list[Emptied]:
    """The guests that would lose their last good archive.

    Retention alone always leaves the newest archive of a guest, but the newest may be known to be damaged.
    """
    groups: dict[str, list[Marked]] = {}
    for one in marked:
        if one.entry.group is not None and one.entry.good:
            groups.setdefault(one.entry.group, []).append(one)
    return [
        Emptied(group, tuple(one.entry.name for one in good))
        for group, good in groups.items()
        if all(one.mark == "remove" for one in good)
    ]


def prune_plan(entries: Iterable[Entry], keep: Keep, tz: tzinfo | None = None) -> list[Marked]:
    """Mark every entry; the answer has the order of the entries. Of two in the same second the name decides.

    :param tz: zone whose days, weeks and months count; ``None`` is the node's.
    """
    listed = list(entries)
    groups: dict[str, list[int]] = {}
    for index, entry in enumerate(listed):
        if entry.group is not None:
            groups.setdefault(entry.group, []).append(index)
    marks: dict[int, tuple[str, str]] = {}
    for index, entry in enumerate(listed):
        if entry.protected:
            marks[index] = ("protected", "protected")
        elif entry.group is None:
            marks[index] = ("renamed", "no standard name")
    for members in groups.values():
        _mark_group(listed, sorted(members, key=lambda i: (-listed[i].time, listed[i].name)), keep, tz, marks)
    return [Marked(entry, *marks[index]) for index, entry in enumerate(listed)]


def _mark_group(
    entries: list[Entry], newest_first: list[int], keep: Keep, tz: tzinfo | None, marks: dict[int, tuple[str, str]]
) -> None:
    if keep.all:
        for index in newest_first:
            marks.setdefault(index, ("keep", "keep-all"))
        return
    kept: list[int] = []
    for rule, count in keep.counts:
        period = {index: _period(rule, entries[index].time, tz) for index in newest_first}
        covered = {period[index] for index in kept}
        new: dict[tuple[int, ...], int] = {}
        for index in newest_first:
            if index in marks or period[index] in covered:
                continue
            if period[index] in new:
                marks[index] = ("remove", f"{rule} keeps a newer one of the same period")
            elif len(new) >= count:
                break
            else:
                new[period[index]] = index
                marks[index] = ("keep", rule)
                kept.append(index)
    for index in newest_first:
        marks.setdefault(index, ("remove", "no rule keeps it"))


def _period(rule: str, time: int, tz: tzinfo | None) -> tuple[int, ...]:
    return (time,) if rule == "keep-last" else _PERIOD[rule](datetime.fromtimestamp(time, tz))


def _split(text: str) -> list[tuple[str, object]]:
    try:
        pairs = parse_pairs(text)
    except ValueError as exc:
        raise UsageError(f"retention: {text!r} {exc}", hint="the form is keep-last=3,keep-daily=7") from exc
    for key in pairs:
        if not key.startswith("keep-"):
            raise UsageError(f"retention: unknown key {key!r}", hint="known are keep-all, " + ", ".join(RULES))
    return list(pairs.items())


def _checked(check: Callable[[object], T], key: str, value: object) -> T:
    try:
        return check(value)
    except ValueError as exc:
        raise UsageError(f"retention: {key}={value} {exc}") from exc
