# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Argument specifications by option family; each agrees with the documentation fragment of the same name."""

from __future__ import annotations

from typing import Any

CONTENTS = ["backup", "images", "rootdir", "iso", "vztmpl", "snippets", "import", "none"]
KEEP_COUNTS = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def location_spec() -> dict[str, Any]:
    """Fragment ``location``: which state directories, which node name."""
    return {"root": {"type": "path"}, "node_name": {"type": "str"}}


def selection_spec() -> dict[str, Any]:
    """Fragment ``selection``: which guests."""
    return {
        "vmid": {"type": "list", "elements": "str"},
        "all": {"type": "bool"},
        "exclude": {"type": "list", "elements": "str"},
        "pool": {"type": "str"},
        "tags": {"type": "list", "elements": "str"},
        "query": {"type": "str"},
        "node": {"type": "str"},
    }


def selection_conflicts() -> list[tuple[str, ...]]:
    """The selections that are refused together."""
    wide = ("all", "pool")
    by_id = [("vmid", other) for other in (*wide, "exclude", "tags", "query")]
    return [*by_id, *((one, other) for one in wide for other in ("tags", "query"))]


def job_spec() -> dict[str, Any]:
    """What a job of M(holdfast.virt.backup_job) says besides its id and state."""
    return {
        "schedule": {"type": "str"},
        "enabled": {"type": "bool"},
        "comment": {"type": "str"},
        "repeat_missed": {"type": "bool"},
        **selection_spec(),
        **backup_spec(),
        **retention_spec(),
    }


def timer_spec() -> dict[str, Any]:
    """Fragment ``timer``: what the timers of jobs run."""
    return {"command": {"type": "path", "default": "/usr/local/bin/holdfast"}}


def retention_spec() -> dict[str, Any]:
    """Fragment ``retention``: how many archives are kept."""
    options: dict[str, Any] = {name: {"type": "int"} for name in KEEP_COUNTS}
    return {"prune_backups": {"type": "dict", "options": {"keep_all": {"type": "bool"}, **options}}}


def backup_spec() -> dict[str, Any]:
    """Fragment ``backup_options``: how a backup is made."""
    return {
        "storage": {"type": "str"},
        "mode": {"type": "str", "choices": ["snapshot", "suspend", "stop"]},
        "compress": {"type": "str", "choices": ["0", "gzip", "lzo", "zstd"]},
        "zstd": {"type": "int"},
        "pigz": {"type": "int"},
        "bwlimit": {"type": "int"},
        "ionice": {"type": "int"},
        "lockwait": {"type": "int"},
        "stopwait": {"type": "int"},
        "tmpdir": {"type": "path"},
        "exclude_path": {"type": "list", "elements": "str"},
        "stdexcludes": {"type": "bool"},
        "fleecing": {
            "type": "dict",
            "options": {"enabled": {"type": "bool", "default": True}, "storage": {"type": "str"}},
        },
        "performance": {
            "type": "dict",
            "options": {"max_workers": {"type": "int"}, "pbs_entries_max": {"type": "int"}},
        },
        "remove": {"type": "bool"},
        "protected": {"type": "bool"},
        "notes_template": {"type": "str"},
        "script": {"type": "path"},
        "mailto": {"type": "list", "elements": "str"},
        "mailnotification": {"type": "str", "choices": ["always", "failure"]},
        "notification_mode": {"type": "str", "choices": ["auto", "legacy-sendmail", "notification-system"]},
    }
