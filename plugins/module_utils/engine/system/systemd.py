# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's systemd, as far as units are installed in it."""

from __future__ import annotations

import os
from typing import Sequence

from .process import run

UNITS = "/etc/systemd/system"
STAMPS = "/var/lib/systemd/timers"
"""Files whose time is the last run of a timer that makes up for missed runs."""


def runs() -> bool:
    """Whether systemd manages this node."""
    return os.path.isdir("/run/systemd/system")


def reload_units() -> None:
    """Make it read its units anew."""
    run(["systemctl", "daemon-reload"])


def switch_on(units: Sequence[str]) -> None:
    """Have units started now, anew when they run already, and at every boot."""
    if units:
        run(["systemctl", "--quiet", "enable", "--no-reload", *units])
        run(["systemctl", "restart", *units])


def stop(units: Sequence[str]) -> None:
    """Stop units until the next boot; those that do not exist are left alone."""
    if units:
        run(["systemctl", "stop", *units], check=False)


def switch_off(units: Sequence[str]) -> None:
    """Stop units and have them started no more; those that do not exist are left alone."""
    if units:
        run(["systemctl", "--quiet", "disable", "--no-reload", "--now", *units], check=False)


def forget_failures(units: Sequence[str]) -> None:
    """Have units that are gone no longer listed as failed."""
    if units:
        run(["systemctl", "reset-failed", *units], check=False)


def not_ready(units: Sequence[str]) -> list[str]:
    """Those of the units that are not active, not enabled for the next boot, or run with an older definition."""
    if not units:
        return []
    ready = {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
    answer = run(["systemctl", "show", f"--property=Id,{','.join(ready)}", *units]).stdout
    states = [dict(line.split("=", 1) for line in block.splitlines()) for block in answer.strip().split("\n\n")]
    good = {state.get("Id") for state in states if ready.items() <= state.items()}
    return [unit for unit in units if unit not in good]
