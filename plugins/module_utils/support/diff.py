# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Differences in the terms of guests, archives and jobs, for people who run with ``--diff``."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.results import Change
from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.timers import TimerPlan


def size_text(size: int | None) -> str:
    """A size for people: ``1.5 GiB``."""
    if size is None:
        return "size unknown"
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _disk_line(disk: Mapping[str, Any]) -> str:
    name = disk.get("key") or disk.get("name") or "disk"
    place = disk.get("volid") or disk.get("volume") or ""
    if disk.get("included", True) is False:
        return f"  {name} {place}: left out, {disk.get('reason') or 'not included'}"
    return f"  {name} {place}: {size_text(disk.get('size'))}"


def backup_difference(plan: Mapping[str, Any]) -> dict[str, str]:
    """Guests without a fresh backup before, the archives they get afterwards."""
    before: list[str] = []
    after: list[str] = []
    for guest in plan["guests"]:
        who = f"{guest['kind']} {guest['vmid']} {guest['name']}"
        if guest["action"] != "backup":
            for side in (before, after):
                side.append(f"{who}: {guest['reason'] or 'left alone'}")
            continue
        before.append(f"{who}: no fresh backup")
        after.append(f"{who}: new backup on {plan['storage']}, mode {guest['mode']}")
        after.extend(_disk_line(disk) for disk in guest["disks"])
    return {"before": _text(before), "after": _text(after)}


def prune_difference(result: Mapping[str, Any]) -> dict[str, str]:
    """Every archive with its mark before, those that stay afterwards."""
    before: list[str] = []
    after: list[str] = []
    for archive in result["archives"]:
        line = f"{archive['archive']} ({size_text(archive['size'])}): {archive['mark']}"
        if archive["rule"] not in ("", archive["mark"]):
            line = f"{line}, {archive['rule']}"
        before.append(line)
        if archive["mark"] != "remove":
            after.append(line)
    return {"before": _text(before), "after": _text(after)}


def verify_difference(result: Mapping[str, Any]) -> dict[str, str]:
    """What was known of each archive that is verified, before and after."""
    before: list[str] = []
    after: list[str] = []
    for archive in result["archives"]:
        if archive["state"] in ("fresh", "gone"):
            continue
        known = archive["before"]
        said = "never verified" if known is None else f"{known['state']}, level {known['level']}, {known['time']}"
        before.append(f"{archive['archive']}: {said}")
        state = "to be verified" if archive["state"] == "planned" else archive["state"]
        after.append(f"{archive['archive']}: {state}, level {archive['level']}")
        after.extend(f"  {finding['cause']}" for finding in archive["findings"])
    return {"before": _text(before), "after": _text(after)}


def restore_difference(result: Mapping[str, Any]) -> dict[str, str]:
    """No guest, or the one that is replaced, before; the restored one afterwards."""
    if result["state"] == "exists":
        return {"before": "", "after": ""}
    who = f"{result['kind']} {result['vmid']}"
    before = [f"{who}: is replaced" if result["replaces"] else f"{who}: does not exist"]
    before.extend(f"  {volume}" for volume in result["freed"])
    after = [f"{who} {result['name']}: from {result['archive']}"]
    for volume in result["volumes"]:
        place = volume["volid"] or f"{volume['storage']} ({volume['format']})"
        after.append(f"  {volume['key']}: {place}, {size_text(volume['size'])}")
    after.extend(f"  left out: {line}" for line in result["dropped"])
    return {"before": _text(before), "after": _text(after)}


def _sections(change: Change, before: str = "", after: str = "") -> dict[str, str]:
    """Sections of a file before and after, and what goes with them on each side."""
    return {
        "before": change.before_text + before,
        "after": change.after_text + after,
        "before_header": change.path,
        "after_header": change.path,
    }


def definition_difference(change: Change) -> dict[str, str]:
    """The section of the file before and after; of a secret only that it changes."""
    before, after = "", ""
    if change.secret is not None:
        before = f"# {change.secret.path}: {'a password' if change.secret.existed else 'does not exist'}\n"
        after = f"# {change.secret.path}: {'does not exist' if change.secret.text is None else 'the new password'}\n"
    return _sections(change, before, after)


def target_difference(change: Change) -> dict[str, str]:
    """The target's section before and after, and whether its secret changes."""
    from ansible_collections.holdfast.virt.plugins.module_utils.engine.tasks.targets import shown_secret

    return _sections(change, *shown_secret(change))


def jobs_difference(change: Change, timers: TimerPlan) -> dict[str, str]:
    """The sections of jobs that change, and what their timers say, before and after."""
    return _sections(change, *timers.texts())


def archive_difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> dict[str, Any]:
    """What can be changed about an archive, before and after; an archive that does not exist is an empty side."""
    return {
        side: {} if archive is None else {key: archive[key] for key in ("volid", "notes", "protected")}
        for side, archive in (("before", before), ("after", after))
    }
