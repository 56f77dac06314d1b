# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``notifications.cfg``: whom to tell about backup runs. The types and their keys are named as in Proxmox VE.

Who is told follows from the target's own ``rule``; sections of other types (matchers among them) are kept as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Mapping
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..rules.notifications import RULES
from ..rules.values import parse_flag, split_words, whole_number
from .section import Finding, Section, parse_sections

MODES = {"insecure": 25, "starttls": 587, "tls": 465}
"""How a connection to a mail server is protected, and the port that goes with it."""

SECRET = "{secret}"
"""What stands in a webhook's url and headers for the secret."""

_MAIL = ("mailto", "from-address")
KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sendmail": (("mailto",), ("from-address",)),
    "smtp": ((*_MAIL, "server"), ("port", "mode", "username", "ca-file")),
    "webhook": (("url",), ("header", "ca-file")),
}
"""The types, with the keys that each needs, and those that it may have besides ``rule`` and ``disable``."""

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]*[a-zA-Z0-9]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*(.*)")


@dataclass(frozen=True)
class Target:
    """Somebody to be told.

    :param rule: one of ``RULES``.
    :param port: ``None`` stands for the one of the ``mode``, which is one of ``MODES``.
    :param ca_file: certificates to believe instead of the system's.
    :param headers: of the HTTP request; they and the ``url`` may hold ``SECRET``.
    :param extra: keys that this version does not act on, kept as they are.
    """

    name: str
    type: str
    rule: str = "always"
    disable: bool = False
    mailto: tuple[str, ...] = ()
    from_address: str = ""
    server: str = ""
    port: int | None = None
    mode: str = "tls"
    username: str = ""
    ca_file: str = ""
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def needs_secret(self) -> bool:
        """Whether it cannot be told without its secret: the user's password, or what stands for ``SECRET``."""
        return bool(self.username) or any(SECRET in text for text in (self.url, *self.headers.values()))


@dataclass(frozen=True)
class NotificationsFile:
    """A whole file.

    :param targets: what can be used, by name; :param broken: why the others cannot, by name.
    :param sections: all sections, also those of other types; :param findings: what has no effect.
    """

    targets: Mapping[str, Target]
    broken: Mapping[str, str]
    sections: tuple[Section, ...]
    findings: tuple[Finding, ...]


def parse_notifications_cfg(text: str, source: str = "notifications.cfg") -> NotificationsFile:
    """Understand the file as far as possible; nothing in it is an error for the targets that are all right."""
    sections, findings = parse_sections(text, source)
    targets: dict[str, Target] = {}
    broken: dict[str, str] = {}
    for section in (one for one in sections if one.type in KEYS):
        try:
            target = targets[section.id] = target_from_section(section)
            problems = [f"{key!r} has no effect, it is not a key of the type {target.type}" for key in target.extra]
        except ConfigError as exc:
            broken[section.id] = exc.message
            problems = [f"the target cannot be used: {exc.message}"]
        findings += [Finding(section.id, f"{source}: {section.where}: {problem}") for problem in problems]
    return NotificationsFile(targets, broken, tuple(sections), tuple(findings))


def check_target_name(name: str) -> None:
    """:raises ConfigError: no target can have this name, which is also that of a file."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not the name of a target",
            hint="at least two characters: a letter, then letters, digits, '_', '.', '-'",
        )


def target_from_section(section: Section) -> Target:
    """Understand one section.

    :raises ConfigError: it is no target; a wrong value is not replaced by a default, which might tell somebody else.
    """
    check_target_name(section.id)
    values, repeated = section.single(arrays=["header", "mailto"])
    if repeated:
        raise ConfigError(f"{repeated[0]!r} is given twice")
    mailto = tuple(word for line in section.many("mailto") for word in split_words(line))
    headers = _headers(section.many("header"))
    required, optional = KEYS[section.type]
    given = {*(key for key, value in values.items() if value), *(("mailto",) if mailto else ())}
    for key in required:
        if key not in given:
            raise ConfigError(f"{key!r} is missing")
    known = {key: values.pop(key) for key in ("rule", "disable", *required, *optional) if key in values}
    for key, foreign in (("mailto", mailto), ("header", headers)):
        if foreign and key not in (*required, *optional):
            raise ConfigError(f"the type {section.type} has no key {key!r}")
    target = Target(
        name=section.id,
        type=section.type,
        rule=_choice("rule", known.get("rule") or "always", RULES),
        disable="disable" in known and _checked("disable", known["disable"] or "1", parse_flag),
        mailto=mailto,
        from_address=known.get("from-address") or "",
        server=known.get("server") or "",
        port=_checked("port", known["port"], whole_number(1, 65535)) if "port" in known else None,
        mode=_choice("mode", known.get("mode") or "tls", tuple(MODES)),
        username=known.get("username") or "",
        ca_file=known.get("ca-file") or "",
        url=known.get("url") or "",
        headers=headers,
        extra=values,
    )
    _check(target)
    return target


def section_from_target(target: Target) -> Section:
    """The section of a target; defaults are not written."""
    values: dict[str, str | None] = {
        "mailto": ",".join(target.mailto),
        "from-address": target.from_address,
        "server": target.server,
        "port": "" if target.port is None else str(target.port),
        "mode": target.mode if target.mode != "tls" else "",
        "username": target.username,
        "url": target.url,
        "ca-file": target.ca_file,
        "rule": target.rule if target.rule != "always" else "",
    }
    flag: list[tuple[str, str | None]] = [("disable", None)] if target.disable else []
    headers = [("header", f"{name}: {value}") for name, value in target.headers.items()]
    plain = [(key, value) for key, value in values.items() if value]
    return Section(target.type, target.name, [*flag, *plain, *headers, *target.extra.items()])


def _check(target: Target) -> None:
    for address in (*target.mailto, *filter(None, [target.from_address])):
        if not re.fullmatch(r"[^\s<>,;:\"()\[\]\\-][^\s<>,;:\"()\[\]\\]*", address):
            raise ConfigError(f"{address!r} is not a mail address")
    if target.type == "smtp" and target.username and target.mode == "insecure":
        raise ConfigError(
            "a password is not sent over a connection that anybody can read", hint="set mode to starttls or tls"
        )
    if target.ca_file and not target.ca_file.startswith("/"):
        raise ConfigError(f"ca-file: {target.ca_file!r} is not an absolute path")
    if target.type == "webhook":
        _check_url(target.url)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as exc:
        raise ConfigError(f"url: {url!r} is no URL: {exc}") from exc
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ConfigError(f"url: {url!r} is no URL of the schemes http or https")
    if parts.username is not None or SECRET in parts.netloc:
        raise ConfigError("url: no secret may stand before the path", hint=f"send it in a header, as {SECRET}")


def _headers(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None or re.search(r"[\x00-\x1f\x7f]", line):
            raise ConfigError(f"header: {line!r} is not 'Name: value'")
        found[match[1]] = match[2]
    return found


def _choice(key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(allowed)}")
    return value


def _checked(key: str, value: str | None, check: Any) -> Any:
    try:
        return check(value)
    except ValueError as exc:
        raise ConfigError(f"{key}: {value!r} {exc}") from exc
