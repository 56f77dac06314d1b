# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics of backups in a file for Prometheus' node exporter (its textfile collector)."""

from __future__ import annotations

import os
from typing import Collection, Iterable, Iterator

from ..errors import HoldfastError
from ..guests.model import GuestInfo
from ..system.files import write_atomic
from ..system.host import Host
from .definitions import load_conf, read_jobs
from .guests import list_guests
from .outcomes import Outcomes, load_outcomes, outcomes_lock

FILE = "holdfast.prom"

HELP = {
    "holdfast_guest_last_success_timestamp_seconds": (
        "When the last good backup of a guest began, by whatever job; 0 if there was none."
    ),
    "holdfast_backup_last_run_timestamp_seconds": "When the last backup of a guest in a job began.",
    "holdfast_backup_last_success_timestamp_seconds": (
        "When the last good backup of a guest in a job began; 0 if there was none."
    ),
    "holdfast_backup_success": "Whether the last backup of a guest in a job was good.",
    "holdfast_backup_duration_seconds": "How long the last backup of a guest in a job took.",
    "holdfast_backup_archive_size_bytes": "Size of the last good archive of a guest in a job; 0 if there was none.",
    "holdfast_run_timestamp_seconds": "When the last run of a job began.",
    "holdfast_run_success": "Whether the last run of a job was good for all guests.",
    "holdfast_run_duration_seconds": "How long the last run of a job took.",
    "holdfast_run_guests": "Guests of the last run of a job by what became of them.",
}
"""All are gauges. Labels are not called ``job`` and ``instance``, which Prometheus gives itself."""


def metrics_path(host: Host) -> str | None:
    """Where the node's metrics go; ``None`` when it wants none.

    That is ``metrics-file`` of ``vzdump.conf``, else the node exporter's folder if there is one.
    """
    path = load_conf(host)[0].get("metrics_file")
    if path is None and os.path.isdir(host.paths.textfiles):
        return os.path.join(host.paths.textfiles, FILE)
    return None if path == "none" else path


def write_metrics(host: Host) -> str | None:
    """Bring the file up to date; returns its path, ``None`` when the node wants no metrics.

    :raises HoldfastError: it cannot be written, or the guests cannot be listed.
    """
    path = metrics_path(host)
    if path is None:
        return None
    guests = list_guests(host)
    with outcomes_lock(host):
        file = read_jobs(host)
        text = render_metrics(load_outcomes(host), guests, {"", *file.jobs, *file.broken})
        try:
            write_atomic(path, text)
        except OSError as exc:
            raise HoldfastError(
                f"cannot write the metrics to {path}: {exc.strerror}", hint="correct metrics-file in vzdump.conf"
            ) from exc
    return path


def render_metrics(outcomes: Outcomes, guests: Iterable[GuestInfo], jobs: Collection[str]) -> str:
    """The text of the file, without guests and jobs that are gone.

    :param jobs: ids of the jobs; the empty one stands for runs without a job.
    """
    samples: dict[str, list[tuple[dict[str, str], float]]] = {name: [] for name in HELP}
    present = {info.vmid: info for info in guests}
    backups = [one for one in outcomes.guests.values() if one.vmid in present and one.job in jobs]
    for vmid, info in present.items():
        # A job that is gone has made backups all the same.
        success = max((one.success for one in outcomes.guests.values() if one.vmid == vmid), default=0)
        samples["holdfast_guest_last_success_timestamp_seconds"].append((_guest_labels(info), success))
    for one in sorted(backups, key=lambda one: (one.job, one.vmid)):
        labels = {"job_id": one.job, **_guest_labels(present[one.vmid])}
        samples["holdfast_backup_last_run_timestamp_seconds"].append((labels, one.time))
        samples["holdfast_backup_last_success_timestamp_seconds"].append((labels, one.success))
        samples["holdfast_backup_success"].append((labels, one.ok))
        samples["holdfast_backup_duration_seconds"].append((labels, one.duration))
        samples["holdfast_backup_archive_size_bytes"].append((labels, one.archive_size))
    for run in sorted(outcomes.runs.values(), key=lambda run: run.job):
        if run.job in jobs:
            labels = {"job_id": run.job}
            samples["holdfast_run_timestamp_seconds"].append((labels, run.time))
            samples["holdfast_run_success"].append((labels, run.ok))
            samples["holdfast_run_duration_seconds"].append((labels, run.duration))
            for status, count in run.counts.items():
                samples["holdfast_run_guests"].append(({**labels, "status": status}, count))
    return "".join(line for name, found in samples.items() for line in _lines(name, found))


def _guest_labels(info: GuestInfo) -> dict[str, str]:
    return {"vmid": str(info.vmid), "name": info.name, "kind": info.kind}


def _lines(name: str, samples: list[tuple[dict[str, str], float]]) -> Iterator[str]:
    """The exposition format; a metric without samples is left out."""
    if samples:
        yield f"# HELP {name} {HELP[name]}\n"
        yield f"# TYPE {name} gauge\n"
    for labels, value in samples:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{shown}}} {value:.15g}\n"


def _escaped(text: str) -> str:
    # The file is UTF-8; bytes of names that are not are shown.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
