# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The targets of notifications: reading and changing ``notifications.cfg``, and the secrets beside it."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any, Mapping

from ..errors import ConfigError, UsageError
from ..settings.notifications import (
    KEYS,
    SECRET,
    NotificationsFile,
    Target,
    check_target_name,
    parse_notifications_cfg,
    section_from_target,
    target_from_section,
)
from ..settings.section import Section
from ..system.files import read_text
from ..system.host import Host
from ..system.secrets import read_secret
from .changes import change_section, config_text, find_section
from .results import Change, SecretFile


def read_targets(host: Host) -> NotificationsFile:
    """The whole file, also what in it cannot be used."""
    return parse_notifications_cfg(read_text(host.paths.notifications_cfg) or "", host.paths.notifications_cfg)


def target_dict(target: Target) -> dict[str, Any]:
    """A target for callers outside the engine: what is set, by the file's keys with underscores."""
    shown = {key: value for key, value in asdict(target).items() if value not in ("", (), {}, None, False)}
    if target.type != "smtp":
        shown.pop("mode", None)
    extra = shown.pop("extra", {})
    shown = {key: list(value) if isinstance(value, tuple) else value for key, value in shown.items()}
    return {**shown, **{key.replace("-", "_"): value for key, value in extra.items()}}


def plan_target(
    host: Host, name: str, wanted: Mapping[str, Any] | None, *, secret: str | None = None, purge: bool = False
) -> Change:
    """The change that makes a target look as wanted; nothing is written.

    :param wanted: single keys of it (``None`` values are not given), ``headers`` as a mapping; ``None`` to remove it.
    :param secret: the password or token; ``None`` leaves the one that is there, as long as the target needs it.
    :param purge: keys that are not given are removed; otherwise they stay as they are.
    :raises ConfigError: it would not be a valid target, or the file holds lines that writing it would lose.
    """
    check_target_name(name)
    path = host.paths.notifications_cfg
    text = read_text(path)
    file = parse_notifications_cfg(text or "", path)
    before = file.targets.get(name)
    old = find_section(file.sections, name)
    if old is not None and old.type not in KEYS:
        raise UsageError(f"{name!r} is the name of a section of the type {old.type}", hint="choose another name")
    after = None if wanted is None else _merged(name, before, wanted, purge)
    change = change_section(
        path=path,
        base=text,
        sections=file.sections,
        findings=file.findings,
        name=name,
        new=None if after is None else section_from_target(after),
        same=after == before,
        before=None if before is None else target_dict(before),
        after=None if after is None else target_dict(after),
    )
    return replace(change, secret=_plan_secret(host, name, after, secret))


def shown_secret(change: Change) -> tuple[str, str]:
    """What a diff tells of a target's secret, before and after: that it changes, and not what it is."""
    secret = change.secret
    if secret is None:
        return "", ""
    return "\tsecret (set)\n" if secret.existed else "", "" if secret.text is None else "\tsecret (new)\n"


def _plan_secret(host: Host, name: str, target: Target | None, secret: str | None) -> SecretFile | None:
    """What becomes of the secret; ``None`` if nothing does."""
    path = host.paths.notification_secret(name)
    existed = os.path.lexists(path)
    if target is None or not target.needs_secret:
        if target is not None and secret is not None:
            raise ConfigError(
                f"cannot declare target {name!r}: nothing in it uses the secret",
                hint=f"give a username, or put {SECRET} into a header or the url",
            )
        return SecretFile(path, None, existed=True) if existed else None
    if secret is None:
        if not existed:
            raise ConfigError(f"cannot declare target {name!r}: its secret is missing", hint="give it once")
        return None
    if not secret or not secret.isprintable() or secret != secret.rstrip("\r\n"):
        raise ConfigError(f"cannot declare target {name!r}: a secret is one line of text")
    if target.type == "smtp" and not secret.isascii():
        raise ConfigError(f"cannot declare target {name!r}: a password for a mail server is ASCII")
    try:
        current = read_secret(path)
    except ConfigError:
        # Others can read it, or it is no secret at all: it is replaced.
        current = None
    return None if current == secret else SecretFile(path, secret, existed)


def _merged(name: str, before: Target | None, wanted: Mapping[str, Any], purge: bool) -> Target:
    given = {key.replace("_", "-"): value for key, value in wanted.items() if value is not None}
    kind = str(given.pop("type", None) or (before.type if before is not None else ""))
    if kind not in KEYS:
        raise ConfigError(f"cannot declare target {name!r}: it needs a type: {', '.join(KEYS)}")
    headers = given.pop("headers", None)
    possible = ("rule", "disable", *KEYS[kind][0], *KEYS[kind][1])
    unknown = [key for key in given if key not in possible] + ["headers"] * (bool(headers) and "header" not in possible)
    if unknown:
        raise ConfigError(f"cannot declare target {name!r}: the type {kind} has no key {', '.join(unknown)}")
    properties: list[tuple[str, str | None]] = []
    if before is not None and before.type == kind and not purge:
        properties = list(section_from_target(before).properties)
    replaced = {*given, *(("header",) if headers is not None else ())}
    properties = [(key, value) for key, value in properties if key not in replaced]
    properties += [(key, config_text(value)) for key, value in given.items() if value not in ("", [], ())]
    properties += [("header", f"{key}: {value}") for key, value in (headers or {}).items()]
    try:
        return target_from_section(Section(kind, name, properties))
    except ConfigError as exc:
        raise ConfigError(f"cannot declare target {name!r}: {exc.message}", hint=exc.hint) from exc
