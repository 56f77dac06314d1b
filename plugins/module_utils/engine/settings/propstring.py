# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Property strings: ``value,key=value,...`` where the first part may leave out its (default) key."""

from __future__ import annotations

from typing import Mapping

from ..errors import ConfigError

TRUE = ("1", "on", "yes", "true")
FALSE = ("0", "off", "no", "false")


def parse_property_string(text: str, default_key: str | None = None) -> dict[str, str]:
    """Keys and values in their order.

    :raises ConfigError: a repeated key, an empty key, or a bare value where none may stand.
    """
    result: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals:
            if default_key is None:
                raise ConfigError(f"{part!r} in {text!r} has no key", hint="write key=value")
            key, value = default_key, part
        if not key:
            raise ConfigError(f"{part!r} in {text!r} has an empty key")
        if key in result:
            raise ConfigError(f"{key!r} stands twice in {text!r}")
        result[key] = value
    return result


def format_property_string(values: Mapping[str, object], default_key: str | None = None) -> str:
    """The text of a mapping: the default key first and bare, the others in alphabetical order; booleans as 0/1."""
    parts = [_text(values[default_key])] if default_key is not None and default_key in values else []
    parts.extend(f"{key}={_text(values[key])}" for key in sorted(values) if key != default_key)
    return ",".join(parts)


def parse_flag(text: str, what: str) -> bool:
    """A boolean as configs write it.

    :raises ConfigError: it is neither; ``what`` names the setting.
    """
    lowered = text.strip().lower()
    if lowered not in TRUE + FALSE:
        raise ConfigError(f"{what}: {text!r} is neither yes nor no", hint="write 1 or 0")
    return lowered in TRUE


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
