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

from ..errors import ConfigError
from .section import decode_text, encode_text

_LINE = re.compile(r"([a-zA-Z][\w-]*):\s*(.*?)\s*")
_RAW = re.compile(r"(lxc\.[\w.-]+)\s*[:=]\s*(.*?)\s*")
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
    def parse(cls, text: str, source: str = "guest config", *, strict: bool = True) -> GuestConfig:
        """Parse a config.

        :param source: file name, for messages.
        :param strict: refuse what is wrong; otherwise it is left out, and the last line of a key counts.
        :raises ConfigError: a line that is neither key, comment, nor section, or a key that stands twice.
        """
        comments: list[str] = []
        values: dict[str, str] = {}
        raw: list[tuple[str, str]] = []
        # Not splitlines(): that takes characters for line ends which may stand in a description.
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            plain = line.rstrip("\r")
            if _SECTION.fullmatch(plain):
                return cls(tuple(comments), tuple(values.items()), tuple(raw), "\n".join(lines[number - 1 :]))
            if not plain.strip():
                continue
            if plain.startswith("#"):
                comments.append(plain[1:])
                continue
            native, match = _RAW.fullmatch(plain), _LINE.fullmatch(plain)
            if native is not None:
                raw.append((native[1], native[2]))
            elif match is None or match[1] in values:
                what = f"{plain!r} is not 'key: value'" if match is None else f"{match[1]!r} is given twice"
                if strict:
                    raise ConfigError(f"{source} line {number}: {what}", hint="correct or remove the line")
                values.update({match[1]: match[2]} if match is not None else {})
            else:
                values[match[1]] = match[2]
        return cls(tuple(comments), tuple(values.items()), tuple(raw))

    @property
    def description(self) -> str:
        """The description as people wrote it."""
        return "\n".join(decode_text(line) for line in self.comments)

    def with_description(self, text: str) -> GuestConfig:
        """The same config with another description."""
        lines = text.split("\n") if text else []
        return replace(self, comments=tuple(encode_text(line) for line in lines))

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
            if "\n" in value or "\r" in value or _LINE.fullmatch(f"{key}: {value}") is None:
                raise ConfigError(f"{key!r}: {value!r} cannot stand in a guest config")
            result[key] = value
        return replace(self, values=tuple(result.items()))

    def to_text(self) -> str:
        """The file's text."""
        lines = [f"#{line}\n" for line in self.comments]
        lines.extend(f"{key}: {value}\n" for key, value in self.values)
        lines.extend(f"{key}: {value}\n" for key, value in self.raw)
        return "".join(lines) + ("\n" if self.rest and lines else "") + self.rest
