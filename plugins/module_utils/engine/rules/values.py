# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The small values that options and definition files are made of; ``ValueError`` says what is wrong with one."""

from __future__ import annotations

import re
from typing import Callable

TRUE = ("1", "on", "yes", "true")
FALSE = ("0", "off", "no", "false")
_BETWEEN = re.compile(r"[,;\s]+")


def parse_flag(value: object) -> bool:
    """A boolean, or one of its words in any case."""
    text = str(int(value) if isinstance(value, bool) else value).lower()
    if text not in TRUE + FALSE:
        raise ValueError("is neither yes nor no")
    return text in TRUE


def split_words(text: str) -> tuple[str, ...]:
    """A list as vzdump writes it: words between commas, semicolons and blanks; with NUL bytes, only these separate."""
    parts = text.split("\0") if "\0" in text else _BETWEEN.split(text)
    return tuple(part for part in parts if part)


def parse_pairs(text: str, default_key: str | None = None) -> dict[str, str]:
    """A property string: ``value,key=value,...`` in its order; only the default key may be left out."""
    result: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals:
            if default_key is None:
                raise ValueError(f"has a part without a key: {part!r}")
            key, value = default_key, part
        if not key or not value:
            raise ValueError(f"has a part without a key or a value: {part!r}")
        if key in result:
            raise ValueError(f"has the key {key!r} twice")
        result[key] = value
    return result


def whole_number(least: int | None = None, most: int | None = None) -> Callable[[object], int]:
    """A check for whole numbers within bounds."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]+", str(value)):
            raise ValueError("is not a whole number")
        number = int(str(value))
        if (least is not None and number < least) or (most is not None and number > most):
            raise ValueError(f"is less than {least}" if most is None else f"is not between {least} and {most}")
        return number

    return check
