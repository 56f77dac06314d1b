# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Property strings of config files: ``value,key=value,...`` where the first part may leave out its (default) key."""

from __future__ import annotations

from typing import Mapping

from ..errors import ConfigError
from ..rules.values import parse_flag as flag
from ..rules.values import parse_pairs


def parse_property_string(text: str, default_key: str | None = None) -> dict[str, str]:
    """Keys and values in their order.

    :raises ConfigError: a repeated key, an empty key or value, or a bare value where none may stand.
    """
    try:
        return parse_pairs(text, default_key)
    except ValueError as exc:
        raise ConfigError(f"{text!r} {exc}", hint="write key=value, with commas between") from exc


def format_property_string(values: Mapping[str, object], default_key: str | None = None) -> str:
    """The text of a mapping: the default key first and bare, the others in alphabetical order; booleans as 0/1."""
    parts = [_text(values[default_key])] if default_key is not None and default_key in values else []
    parts.extend(f"{key}={_text(values[key])}" for key in sorted(values) if key != default_key)
    return ",".join(parts)


def parse_flag(text: str, what: str) -> bool:
    """A boolean as configs write it.

    :raises ConfigError: it is neither; ``what`` names the setting.
    """
    try:
        return flag(text)
    except ValueError as exc:
        raise ConfigError(f"{what}: {text!r} {exc}", hint="write 1 or 0") from exc


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
