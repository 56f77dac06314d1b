# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests nobody takes care of, from what :mod:`.info` found out about guests and jobs."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

Row = Mapping[str, Any]


def coverage(guests: Iterable[Row], jobs: Iterable[Row], max_age: int | None) -> dict[str, Any]:
    """Guests without a job, guests without a fresh backup, and what runs next.

    :param max_age: seconds that the newest good archive of a guest may be old; ``None`` asks only that there is one.
    :returns: ``uncovered``: guests that no enabled job backs up; ``stale``: guests whose newest good archive is too
        old, or that have none; ``next_runs``: of every enabled job the next one, the earliest first. Templates do not
        change and need no job.
    """
    real = [guest for guest in guests if not guest["template"]]
    runs = [{"job": job["id"], **job["next_runs"][0]} for job in jobs if job["next_runs"]]
    return {
        "max_age": max_age,
        "uncovered": [_brief(guest) for guest in real if not guest["jobs"]],
        "stale": [_brief(guest) for guest in real if _stale(guest["newest_age"], max_age)],
        "next_runs": sorted(runs, key=lambda run: (run["epoch"], run["job"])),
    }


def _stale(age: int | None, max_age: int | None) -> bool:
    return age is None or (max_age is not None and age > max_age)


def _brief(guest: Row) -> dict[str, Any]:
    return {key: guest[key] for key in ("vmid", "name", "kind", "newest_age")}
