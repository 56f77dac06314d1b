# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The targets of notifications: reading and changing ``notifications.cfg``, and the secrets beside it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
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
from ..settings.section import Section, about, check_writable, replace_section, write_sections
from ..system.files import fsync_dir, read_text
from ..system.host import Host
from ..system.secrets import read_secret, write_secret
from .changes import apply_change, config_text, make_change
from .results import Change


@dataclass(frozen=True)
class SecretChange:
    """What becomes of a target's secret; the diff tells that it changes, and not what it is.

    :param text: to be written; ``None`` to remove it; the same as before when ``changed`` is false.
    """

    path: str
    changed: bool
    existed: bool
    text: str | None = None

    def shown(self) -> tuple[str, str]:
        """Before and after, for people."""
        if not self.changed:
            return "", ""
        return "\tsecret (set)\n" if self.existed else "", "" if self.text is None else "\tsecret (new)\n"


@dataclass(frozen=True)
class TargetChange:
    """A change of a target: of its section and of its secret."""

    section: Change
    secret: SecretChange

    @property
    def changed(self) -> bool:
        return self.section.changed or self.secret.changed


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
) -> TargetChange:
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
    old = next((section for section in file.sections if section.id == name), None)
    if old is not None and old.type not in KEYS:
        raise UsageError(f"{name!r} is the name of a section of the type {old.type}", hint="choose another name")
    after = None if wanted is None else _merged(name, before, wanted, purge)
    new = None if after is None else section_from_target(after)
    if after == before and not about(file.findings, name):
        # Written by hand in another order, but the same: it stays as it is.
        new = old
    if new != old:
        check_writable(file.findings, path)
    change = make_change(
        path=path,
        base=text,
        before=None if before is None else target_dict(before),
        after=None if after is None else target_dict(after),
        before_text=write_sections([old] if old is not None else []),
        after_text=write_sections([new] if new is not None else []),
        text=write_sections(replace_section(file.sections, name, new)),
    )
    return TargetChange(change, _plan_secret(host, name, after, secret))


def apply_target(host: Host, change: TargetChange) -> None:
    """Write a planned change; a target that needs a secret never stands there without it.

    :raises ConfigError: somebody else changed the file meanwhile.
    """
    secret = change.secret
    if secret.changed and secret.text is not None:
        write_secret(secret.path, secret.text)
    apply_change(host, change.section)
    if secret.changed and secret.text is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(secret.path)
            fsync_dir(os.path.dirname(secret.path))


def _plan_secret(host: Host, name: str, target: Target | None, secret: str | None) -> SecretChange:
    path = host.paths.notification_secret(name)
    existed = os.path.lexists(path)
    if target is None or not target.needs_secret:
        if target is not None and secret is not None:
            raise ConfigError(
                f"cannot declare target {name!r}: nothing in it uses the secret",
                hint=f"give a username, or put {SECRET} into a header or the url",
            )
        return SecretChange(path, changed=existed, existed=existed)
    if secret is None:
        if not existed:
            raise ConfigError(f"cannot declare target {name!r}: its secret is missing", hint="give it once")
        return SecretChange(path, changed=False, existed=True)
    if not secret or not secret.isprintable() or secret != secret.rstrip("\r\n"):
        raise ConfigError(f"cannot declare target {name!r}: a secret is one line of text")
    if target.type == "smtp" and not secret.isascii():
        raise ConfigError(f"cannot declare target {name!r}: a password for a mail server is ASCII")
    try:
        current = read_secret(path)
    except ConfigError:
        # Others can read it, or it is no secret at all: it is replaced.
        current = None
    return SecretChange(path, changed=current != secret, existed=existed, text=secret)


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
