# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timers of this node's jobs: each enabled job that concerns the node has a timer and a service in systemd.

Planned from the text of ``jobs.cfg``, so that a diff can show it before that file is written.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, Mapping

from ..errors import HoldfastError, UsageError
from ..rules.calendar import parse_event
from ..rules.systemd import to_systemd
from ..rules.units import PREFIX, service_unit, shown_lines, timer_unit, unit_name
from ..settings.jobs import JobDef, parse_jobs_cfg
from ..system import systemd
from ..system.files import read_text, write_atomic
from ..system.host import Host, Paths

COMMAND = "/usr/local/bin/holdfast"
"""The node's command, where the role ``backup_node`` installs it."""

WRITERS = 16
"""Unit files written at the same time: each waits for the disk, and together they wait once."""


@dataclass(frozen=True)
class UnitChange:
    """A unit file; its text is ``None`` where it does not exist."""

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class TimerPlan:
    """What makes the timers agree with the jobs.

    :param reasons: why a job has no timer, by id; empty when it has one.
    :param files: unit files that change; :param start: timers to start (anew); :param stop: timers to stop.
    :param refused: jobs of which no timer can be made, and why.
    """

    reasons: Mapping[str, str]
    files: tuple[UnitChange, ...] = ()
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.files or self.start or self.stop)

    def timer(self, job_id: str) -> dict[str, Any]:
        """The timer of one job for callers outside the engine: ``unit``, or ``None`` and a ``reason``."""
        reason = self.reasons.get(job_id, "the job does not exist")
        return {"unit": None if reason else f"{unit_name(job_id)}.timer", "reason": reason}

    def texts(self) -> tuple[str, str]:
        """What a review wants to see of it, before and after."""
        before: list[str] = []
        after: list[str] = []
        for change in self.files:
            name = os.path.basename(change.path)
            for side, text in ((before, change.before), (after, change.after)):
                if text is not None:
                    side += [f"{name}:", *(f"\t{line}" for line in shown_lines(text))]
        written = {os.path.basename(change.path) for change in self.files}
        for name in self.start:
            if name not in written:
                before.append(f"{name}: not active")
                after.append(f"{name}: active")
        return "".join(f"{line}\n" for line in before), "".join(f"{line}\n" for line in after)


def plan_timers(host: Host, jobs_text: str, only: Iterable[str] | None = None, *, command: str = COMMAND) -> TimerPlan:
    """What makes the node's timers agree with the jobs of ``jobs_text``; nothing is changed.

    :param only: ids of jobs, also of removed ones; ``None`` means all, and units of jobs that are gone are removed.
    :param command: the program that the services run.
    """
    file = parse_jobs_cfg(jobs_text, host.paths.jobs_cfg)
    none_here = why_no_timers(host)
    ids = [*file.jobs, *file.broken] if only is None else list(only)
    reasons = {job_id: none_here or _why_none(host, file.jobs.get(job_id), file.broken.get(job_id)) for job_id in ids}
    if none_here:
        return TimerPlan(reasons)
    wanted: dict[str, tuple[str, str]] = {}
    refused = []
    for job_id in (one for one, reason in reasons.items() if not reason):
        job = file.jobs[job_id]
        try:
            wanted[unit_name(job_id)] = _units(host, job, command)
        except UsageError as exc:
            reasons[job_id] = exc.message
            refused.append(f"job {job_id!r} has no timer: {exc.message}")
    # A job that cannot be read keeps its timer: its run fails and says why, which is better than silence.
    names = _installed() if only is None else {unit_name(job_id) for job_id in ids}
    names = {*wanted, *names} - {unit_name(job_id) for job_id in ids if job_id in file.broken}
    files = [change for name in sorted(names) for change in _changes(name, wanted.get(name))]
    changed = {os.path.basename(change.path) for change in files}
    timers = [f"{name}.timer" for name in sorted(wanted)]
    late = systemd.not_ready([timer for timer in timers if timer not in changed])
    return TimerPlan(
        reasons,
        tuple(files),
        start=tuple(timer for timer in timers if timer in changed or timer in late),
        stop=tuple(os.path.basename(one.path) for one in files if one.after is None and one.path.endswith(".timer")),
        refused=tuple(refused),
    )


def why_no_timers(host: Host) -> str:
    """Why no job at all has a timer here; empty when they have."""
    if host.paths != Paths():
        return f"the state is not in {Paths().etc} but in {host.paths.etc}, and such jobs do not run by themselves"
    return "" if systemd.runs() else "systemd does not run on this node"


@contextlib.contextmanager
def held_back(plan: TimerPlan) -> Iterator[None]:
    """While the jobs are written no timer starts a job that goes away; such a run would only fail."""
    systemd.stop(plan.stop)
    try:
        yield
    except BaseException:
        systemd.switch_on(plan.stop)
        raise


def apply_timers(plan: TimerPlan) -> None:
    """Install, start, stop and remove what was planned.

    A timer that is new or changed begins at its next event: what an older one of that name missed is not made up for.
    """
    if not plan.changed:
        return
    systemd.switch_off(plan.stop)
    for timer in (*plan.start, *plan.stop):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(systemd.STAMPS, f"stamp-{timer}"))
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(_put, plan.files))
    systemd.reload_units()
    systemd.forget_failures([f"{timer[: -len('.timer')]}.service" for timer in plan.stop])
    systemd.switch_on(plan.start)


def _put(change: UnitChange) -> None:
    if change.after is not None:
        write_atomic(change.path, change.after)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(change.path)


def _why_none(host: Host, job: JobDef | None, broken: str | None) -> str:
    """Why a job has no timer on this node; empty when it has one."""
    if job is None:
        return broken or "the job does not exist"
    if not job.enabled:
        return "the job is disabled"
    node = job.selection.get("node")
    return f"the job is for node {node!r}, this is {host.node!r}" if node not in (None, host.node) else ""


def _units(host: Host, job: JobDef, command: str) -> tuple[str, str]:
    times = to_systemd(parse_event(job.schedule))
    timer = timer_unit(job.id, job.schedule, times, persistent=job.repeat_missed)
    return timer, service_unit(job.id, [command, "run", "--job", job.id])


def _installed() -> set[str]:
    """Names of the units of jobs that were installed from here."""
    try:
        found = os.listdir(systemd.UNITS)
    except FileNotFoundError:
        return set()
    except OSError as exc:
        raise HoldfastError(f"cannot list the units in {systemd.UNITS}: {exc}") from exc
    return {name.rpartition(".")[0] for name in found if name.startswith(PREFIX)}


def _changes(name: str, texts: tuple[str, str] | None) -> Iterable[UnitChange]:
    for suffix, after in zip((".timer", ".service"), texts or (None, None)):
        path = os.path.join(systemd.UNITS, name + suffix)
        before = read_text(path)
        if before != after:
            yield UnitChange(path, before, after)
