# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The systemd units of a backup job: a timer that knows when, and a service that knows what."""

from __future__ import annotations

import re
from typing import Sequence

from ..errors import UsageError

PREFIX = "holdfast-job-"
MOST_NAME = 200
"""Characters of a unit's name; systemd takes 255, and puts words of its own before some."""

_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-"
_SHOWN = ("OnCalendar=", "Persistent=", "ExecStart=")

_TIMER = """\
# Made by holdfast from jobs.cfg; changes here are lost.
[Unit]
Description=Backup job {job}: {schedule}

[Timer]
{times}
AccuracySec=1s
Persistent={persistent}

[Install]
WantedBy=timers.target
"""

# A job that is stopped has guests to thaw and to start again. What it runs must not be killed before it has done so.
_SERVICE = """\
# Made by holdfast from jobs.cfg; changes here are lost.
[Unit]
Description=Backup job {job}
After=network-online.target remote-fs.target

[Service]
Type=oneshot
ExecStart={command}
KillMode=mixed
TimeoutStopSec=15min
"""


def unit_name(job_id: str) -> str:
    """The name of a job's units without its suffix; different jobs have different names.

    :raises UsageError: systemd has no room for the name.
    """
    safe = "".join(
        f"\\x{byte:02x}" if chr(byte) not in _PLAIN else chr(byte) for byte in job_id.encode(errors="surrogateescape")
    )
    if len(safe) > MOST_NAME:
        raise UsageError(
            f"the id of the job {job_id!r} is too long for a systemd unit", hint="give it an id of letters and digits"
        )
    return PREFIX + safe


def timer_unit(job_id: str, schedule: str, times: Sequence[str], *, persistent: bool) -> str:
    """The text of the timer.

    :param schedule: the calendar event, for people; :param times: values of ``OnCalendar=``, for systemd.
    :param persistent: make up for a run that was missed while the node was down.
    """
    return _TIMER.format(
        job=_literal(job_id),
        schedule=_literal(schedule),
        times="\n".join(f"OnCalendar={time}" for time in times),
        persistent="true" if persistent else "false",
    )


def service_unit(job_id: str, command: Sequence[str]) -> str:
    """The text of the service that runs ``command`` once; systemd starts it only when it does not run already."""
    return _SERVICE.format(job=_literal(job_id), command=" ".join(_word(part) for part in command))


def shown_lines(text: str) -> list[str]:
    """What of a unit people want to see in a review."""
    return [line for line in text.splitlines() if line.startswith(_SHOWN)]


def _literal(text: str) -> str:
    """Text without meaning for systemd."""
    return text.replace("%", "%%").replace("\\", "\\\\")


def _word(text: str) -> str:
    """One argument of a command line."""
    safe = text.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9_./:,=@%$+-]+", safe):
        return safe
    escaped = safe.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
