# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention: which archives of a guest are kept, by which rule (the keep-* options of Proxmox VE).

N of an option counts newly kept periods, not calendar time; periods covered by an earlier option do not count.
Protected archives neither count nor cover.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Callable, Iterable, Mapping

from ..errors import UsageError

RULES = ("keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly")
_PERIOD: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "keep-hourly": lambda t: (t.year, t.month, t.day, t.hour),
    "keep-daily": lambda t: (t.year, t.month, t.day),
    "keep-weekly": lambda t: tuple(t.isocalendar())[:2],
    "keep-monthly": lambda t: (t.year, t.month),
    "keep-yearly": lambda t: (t.year,),
}
_TRUE, _FALSE = ("1", "on", "yes", "true"), ("0", "off", "no", "false")


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
    """

    name: str
    group: str | None
    time: int
    protected: bool = False


@dataclass(frozen=True)
class Marked:
    """``mark`` is ``keep``, ``remove``, ``protected`` or ``renamed``; ``rule`` is the option that decided it."""

    entry: Entry
    mark: str
    rule: str


def parse_keep(value: str | Mapping[str, object]) -> Keep:
    """Retention from ``keep-last=3,keep-daily=7`` or from a mapping (dashes or underscores, with or without ``keep-``).

    :raises UsageError: unknown or repeated key, a value that is no number, or ``keep-all`` beside another rule.
    """
    pairs = _split(value) if isinstance(value, str) else [(str(key), item) for key, item in value.items()]
    counts: dict[str, int] = {}
    keep_all = False
    seen: set[str] = set()
    for raw, item in pairs:
        key = raw.replace("_", "-")
        key = key if key.startswith("keep-") else f"keep-{key}"
        if key in seen:
            raise UsageError(f"retention: {key} is given twice")
        seen.add(key)
        if key == "keep-all":
            keep_all = _flag(item)
        elif key not in RULES:
            raise UsageError(f"retention: unknown key {raw!r}", hint="known are keep-all, " + ", ".join(RULES))
        elif item is not None:
            counts[key] = _number(key, item)
    positive = tuple((rule, counts[rule]) for rule in RULES if counts.get(rule, 0) > 0)
    if keep_all and positive:
        raise UsageError("retention: keep-all cannot be set together with other rules")
    return Keep(positive)


def format_keep(keep: Keep) -> str:
    """The property string of a retention, as configs write it."""
    return ",".join(f"{key}={count}" for key, count in sorted(keep.to_dict().items()))


def prune_plan(entries: Iterable[Entry], keep: Keep, tz: tzinfo | None = None) -> list[Marked]:
    """Mark every entry, in the given order.

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
        _mark_group(listed, sorted(members, key=lambda i: -listed[i].time), keep, tz, marks)
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
    pairs: list[tuple[str, object]] = []
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise UsageError(f"retention: {part!r} is not of the form keep-last=3")
        if not key.startswith("keep-"):
            raise UsageError(f"retention: unknown key {key!r}", hint="known are keep-all, " + ", ".join(RULES))
        pairs.append((key, value))
    return pairs


def _flag(value: object) -> bool:
    text = str(int(value) if isinstance(value, bool) else value).lower()
    if text not in _TRUE + _FALSE:
        raise UsageError(f"retention: keep-all={value} is neither yes nor no")
    return text in _TRUE


def _number(key: str, value: object) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]+", str(value), re.ASCII) or int(str(value)) < 0:
        raise UsageError(f"retention: {key}={value} is not a number of at least 0")
    return int(str(value))
