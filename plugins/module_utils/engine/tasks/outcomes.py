# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the last run of each job went, and for each guest in it: kept for metrics, and to tell what has changed.

Run records come and go; this stays. Runs without a job have the empty id.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace

from ..system.files import read_text, write_atomic
from ..system.host import Host
from ..system.locks import hold
from .results import RunResult

FORGET_SECONDS = 90 * 86400
"""Outcomes that are not renewed for this long are dropped; until then a guest that comes back is known."""
LOCK_SECONDS = 30.0


@dataclass(frozen=True)
class LastRun:
    """The last run of a job.

    :param time: when it began, epoch; :param broken: it failed as a whole; :param counts: guests by status.
    """

    job: str
    time: int
    duration: float
    ok: bool
    broken: bool
    counts: dict[str, int]


@dataclass(frozen=True)
class LastBackup:
    """The last backup of a guest in the runs of a job.

    :param time: when it began, epoch; :param success: when the last good one began, 0 if there was none.
    :param archive_size: bytes of the last good archive, 0 if there was none.
    """

    job: str
    vmid: int
    name: str
    kind: str
    time: int
    duration: float
    ok: bool
    success: int
    archive_size: int

    @property
    def key(self) -> tuple[str, str]:
        # What was asked for and does not exist may have no id.
        return self.job, str(self.vmid or self.name)


@dataclass(frozen=True)
class Outcomes:
    """Of all jobs and guests."""

    runs: dict[str, LastRun] = field(default_factory=dict)
    guests: dict[tuple[str, str], LastBackup] = field(default_factory=dict)

    def after(self, result: RunResult) -> Outcomes:
        """The same with one more run."""
        run, guests = _last_run(result), _last_backups(result, self)
        oldest = time.time() - FORGET_SECONDS
        return Outcomes(
            {job: one for job, one in {**self.runs, run.job: run}.items() if one.time >= oldest},
            {key: one for key, one in {**self.guests, **guests}.items() if one.time >= oldest},
        )

    def differ(self, result: RunResult) -> bool:
        """Whether a run went otherwise than the one of that job before; what is new counts as having been good."""
        run = self.runs.get(result.job or "")
        if (run is not None and run.broken) != (result.error is not None):
            return True
        now = _last_backups(result, self)
        return any((key not in self.guests or self.guests[key].ok) != one.ok for key, one in now.items())


def load_outcomes(host: Host) -> Outcomes:
    """What is known; nothing when the file cannot be understood, since the next runs make it anew."""
    try:
        data = json.loads(read_text(host.paths.outcomes) or "{}")
        runs = [LastRun(**row) for row in data.get("runs", [])]
        guests = [LastBackup(**row) for row in data.get("guests", [])]
    except (ValueError, TypeError, AttributeError):
        return Outcomes()
    return Outcomes({one.job: one for one in runs}, {one.key: one for one in guests})


def remember(host: Host, result: RunResult) -> bool:
    """Keep how a run went; returns whether it went otherwise than the one before, see :meth:`Outcomes.differ`."""
    with outcomes_lock(host):
        before = load_outcomes(host)
        after = before.after(result)
        data = {"runs": [*map(asdict, after.runs.values())], "guests": [*map(asdict, after.guests.values())]}
        write_atomic(host.paths.outcomes, json.dumps(data, indent=1) + "\n", 0o640)
    return before.differ(result)


def outcomes_lock(host: Host) -> AbstractContextManager[None]:
    """Held while they are changed, or while something is made from them that must not be older than they are."""
    return hold(os.path.join(host.paths.locks, "outcomes.lock"), "the outcomes of runs", wait=LOCK_SECONDS)


def _last_run(result: RunResult) -> LastRun:
    shown = result.to_dict()
    return LastRun(
        job=result.job or "",
        time=int(result.started),
        duration=shown["duration"] or 0.0,
        ok=result.ok,
        broken=result.error is not None,
        counts=shown["counts"],
    )


def _last_backups(result: RunResult, before: Outcomes) -> dict[tuple[str, str], LastBackup]:
    """Of the guests that were tried."""
    found = {}
    for guest in result.guests:
        if guest.status not in ("ok", "failed"):
            continue
        ok, began = guest.status == "ok", int(guest.started or result.started)
        one = LastBackup(
            job=result.job or "",
            vmid=guest.vmid,
            name=guest.name,
            kind=guest.kind,
            time=began,
            duration=round(guest.duration or 0.0, 3),
            ok=ok,
            success=began if ok else 0,
            archive_size=guest.archive_size or 0 if ok else 0,
        )
        last = before.guests.get(one.key)
        if last is not None and not ok:
            # A failure does not take the last good backup away.
            one = replace(one, success=last.success, archive_size=last.archive_size)
        found[one.key] = one
    return found
