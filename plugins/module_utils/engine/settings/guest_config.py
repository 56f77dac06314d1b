# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guest configs in Proxmox VE syntax: ``key: value`` lines, ``#`` description lines, ``[snapshot]`` sections.

Comments, order and snapshot sections survive a round trip. In container configs raw ``lxc.*`` lines may repeat.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Mapping
from urllib.parse import quote, unquote

from ..errors import ConfigError

_LINE = re.compile(r"([a-zA-Z][\w.-]*)\s*[:=]\s*(.*?)\s*")
_SECTION = re.compile(r"\[([^\]\s]+)\]\s*")


@dataclass(frozen=True)
class GuestConfig:
    """The current configuration of a guest.

    :param comments: description lines without ``#``, still percent-encoded as in the file.
    :param values: keys in file order, without raw lines.
    :param raw: ``lxc.*`` lines in file order; keys may repeat.
    :param rest: text of the snapshot sections, as it is.
    """

    comments: tuple[str, ...] = ()
    values: tuple[tuple[str, str], ...] = ()
    raw: tuple[tuple[str, str], ...] = ()
    rest: str = ""

    @classmethod
    def parse(cls, text: str, source: str = "guest config") -> GuestConfig:
        """Parse a config.

        :param source: file name, for messages.
        :raises ConfigError: a line that is neither key, comment, nor section, or a key that stands twice.
        """
        comments: list[str] = []
        values: dict[str, str] = {}
        raw: list[tuple[str, str]] = []
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            plain = line.rstrip("\r\n")
            if _SECTION.fullmatch(plain):
                return cls(tuple(comments), tuple(values.items()), tuple(raw), "".join(lines[number:]))
            if not plain.strip():
                continue
            if plain.startswith("#"):
                comments.append(plain[1:])
                continue
            match = _LINE.fullmatch(plain)
            if match is None:
                raise ConfigError(f"{source} line {number + 1}: {plain!r} is not 'key: value'")
            key, value = match[1], match[2]
            if key.startswith("lxc."):
                raw.append((key, value))
            elif key in values:
                raise ConfigError(f"{source} line {number + 1}: {key!r} is given twice", hint="leave one of the lines")
            else:
                values[key] = value
        return cls(tuple(comments), tuple(values.items()), tuple(raw))

    @property
    def description(self) -> str:
        """The description as people wrote it."""
        return "\n".join(unquote(line) for line in self.comments)

    def with_description(self, text: str) -> GuestConfig:
        """The same config with another description."""
        encoded = (quote(line, safe=" !\"#$&'()*+,-./;<=>?@[\\]^_`{|}~") for line in text.splitlines())
        return replace(self, comments=tuple(encoded))

    def get(self, key: str, default: str | None = None) -> str | None:
        """Value of one key."""
        return dict(self.values).get(key, default)

    def items(self) -> tuple[tuple[str, str], ...]:
        return self.values

    def with_changes(self, changes: Mapping[str, str | None]) -> GuestConfig:
        """A config with some keys set, or removed where the value is ``None``.

        :raises ConfigError: a value holds a line break or a key is not one.
        """
        result = dict(self.values)
        for key, value in changes.items():
            if value is None:
                result.pop(key, None)
                continue
            if "\n" in value or "\r" in value or _LINE.fullmatch(f"{key}: x") is None:
                raise ConfigError(f"{key!r}: {value!r} cannot stand in a guest config")
            result[key] = value
        return replace(self, values=tuple(result.items()))

    def to_text(self) -> str:
        """The file's text."""
        lines = [f"#{line}\n" for line in self.comments]
        lines.extend(f"{key}: {value}\n" for key, value in self.values)
        lines.extend(f"{key}: {value}\n" for key, value in self.raw)
        return "".join(lines) + ("\n" if self.rest and lines else "") + self.rest
