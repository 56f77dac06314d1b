# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Telling people and programs about a run, after it is over. What goes wrong here never fails a backup."""

from __future__ import annotations

import time
from typing import Any, Mapping

from ..errors import ConfigError, HoldfastError, NotificationError, UsageError
from ..rules.notifications import concerns, uses_mailto
from ..settings.notifications import Target
from ..system.deadline import within
from ..system.host import Host
from ..system.report import Reporter
from ..system.secrets import read_secret
from .results import RunResult
from .run_message import MOST_LOG, Message, make_message
from .targets import read_targets

DEADLINE_SECONDS = 60.0
"""For one target, with the second try."""
PAUSE_SECONDS = 3.0
"""Between the two tries."""


def notify(host: Host, result: RunResult, options: Mapping[str, Any], *, changed: bool, report: Reporter) -> list[str]:
    """Tell everybody whom this run concerns.

    :param options: the run's options, as far as they are known.
    :param changed: whether it went otherwise than the run of that job before.
    :returns: why somebody could not be told.
    """
    failed = not result.ok
    if uses_mailto(options):
        to = tuple(options.get("mailto") or ())
        wanted = bool(to) and concerns(options.get("mailnotification", "always"), failed=failed, changed=changed)
        targets, problems = [Target("mailto", "sendmail", mailto=to)] if wanted else [], []
    else:
        file = read_targets(host)
        chosen = [one for one in file.targets.values() if not one.disable]
        targets = [one for one in chosen if concerns(one.rule, failed=failed, changed=changed)]
        problems = [f"cannot tell {name!r}, it cannot be used: {reason}" for name, reason in file.broken.items()]
    if not targets:
        return problems
    message = make_message(result, read_log(result))
    for target in targets:
        try:
            tell(host, target, message, webhook_content(result, message, options))
            report.info(f"told {target.name!r} about the run")
        except HoldfastError as exc:
            problems.append(f"cannot tell {target.name!r} about the run: {exc}")
    return problems


def send_test(host: Host, name: str) -> None:
    """Tell one target something, to see whether it works.

    :raises UsageError: there is no such target; :raises HoldfastError: it could not be told.
    """
    file = read_targets(host)
    if name in file.broken:
        raise ConfigError(f"target {name!r} cannot be used: {file.broken[name]}")
    if name not in file.targets:
        known = ", ".join(file.targets) or "none"
        raise UsageError(f"there is no target {name!r} in {host.paths.notifications_cfg}", hint=f"known are: {known}")
    result = RunResult("", host.node, None, None, time.time(), state="finished", warnings=["this is only a test"])
    message = make_message(result, "")
    tell(host, file.targets[name], message, {**webhook_content(result, message, {}), "type": "test"})


def tell(host: Host, target: Target, message: Message, content: Mapping[str, Any]) -> None:
    """Tell one target, with a second try when the first fails by something that may pass.

    :raises HoldfastError: it could not be told within :data:`DEADLINE_SECONDS`.
    """
    if target.type == "sendmail":
        from .notify_mail import LOCAL_SENDER, send_locally

        # It has a deadline of its own.
        send_locally(message, target.from_address or LOCAL_SENDER, target.mailto, host.node)
        return
    secret = _secret(host, target)

    def send() -> None:
        if target.type == "smtp":
            from .notify_mail import send_to_server

            send_to_server(target, secret, message, host.node)
        else:
            from .notify_webhook import post

            post(target, secret, content)

    def twice() -> None:
        try:
            send()
        except NotificationError as exc:
            if not exc.temporary:
                raise
            time.sleep(PAUSE_SECONDS)
            send()

    within(DEADLINE_SECONDS, twice, NotificationError(f"it took longer than {DEADLINE_SECONDS:g} s"))


def webhook_content(result: RunResult, message: Message, options: Mapping[str, Any]) -> dict[str, Any]:
    """What webhooks get: the fields of Proxmox VE's notifications, and the run as modules return it."""
    return {
        "type": "vzdump",
        "severity": "info" if result.ok else "error",
        "title": message.subject,
        "message": message.summary,
        "hostname": result.node,
        "job_id": result.job or options.get("job_id"),
        "timestamp": int(result.finished or result.started),
        "run": result.to_dict(),
    }


def read_log(result: RunResult) -> str:
    """What the run said; a run that did not begin said nothing."""
    if result.log is None:
        return ""
    try:
        with open(result.log, encoding="utf-8", errors="backslashreplace") as stream:
            return stream.read(MOST_LOG + 1)
    except OSError as exc:
        return f"The log cannot be read: {exc}\n"


def _secret(host: Host, target: Target) -> str | None:
    if not target.needs_secret:
        return None
    path = host.paths.notification_secret(target.name)
    secret = read_secret(path)
    if secret is None:
        raise ConfigError(f"its secret is missing: {path} does not exist", hint="declare the target with its secret")
    return secret
