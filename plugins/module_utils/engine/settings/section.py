# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's section-config files (``storage.cfg``, ``jobs.cfg``): text to sections and back.

A section is a header ``type: id``, indented ``key value`` lines and an empty line. Differences from the original, on
purpose: unknown types and keys survive a rewrite, a line of blanks ends a section, and a header without an empty line
before it begins a new section instead of being swallowed by the one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterable

from ..errors import ConfigError

_HEADER = re.compile(r"(\S+):\s*(\S+)\s*")
_PROPERTY = re.compile(r"\s+(\S+)(?:\s+(.*\S))?\s*")


@dataclass
class Section:
    """One section.

    :param properties: keys and values in file order; a key may repeat; the value is ``None`` for a bare flag.
    :param line: number of the header's line, for messages.
    """

    type: str
    id: str
    properties: list[tuple[str, str | None]] = field(default_factory=list)
    line: int = 0

    def single(self, arrays: Iterable[str] = ()) -> dict[str, str | None]:
        """The properties that may stand only once.

        :raises ConfigError: one of them stands twice.
        """
        result: dict[str, str | None] = {}
        repeatable = set(arrays)
        for key, value in self.properties:
            if key in repeatable:
                continue
            if key in result:
                raise ConfigError(f"{self.where}: {key!r} is given twice", hint="leave one of the two lines")
            result[key] = value
        return result

    def many(self, key: str) -> list[str]:
        """All values of a key that may repeat."""
        return [value or "" for name, value in self.properties if name == key]

    @property
    def where(self) -> str:
        return f"section '{self.type}: {self.id}'" + (f" (line {self.line})" if self.line else "")


def parse_sections(text: str, source: str) -> list[Section]:
    """Parse a file.

    :param source: name of the file, for messages.
    :raises ConfigError: a line is neither header, property, comment nor empty, or a section stands twice.
    """
    sections: list[Section] = []
    current: Section | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            current = None
        elif line.lstrip().startswith("#"):
            continue
        elif line[0] in " \t":
            match = _PROPERTY.fullmatch(line)
            if current is None or match is None:
                raise ConfigError(f"{source} line {number}: {line.strip()!r} belongs to no section")
            current.properties.append((match[1], match[2]))
        else:
            match = _HEADER.fullmatch(line)
            if match is None:
                raise ConfigError(f"{source} line {number}: {line!r} is no section header", hint="write 'type: id'")
            current = Section(match[1], match[2], line=number)
            if any(other.id == current.id for other in sections):
                raise ConfigError(f"{source} line {number}: a section {current.id!r} exists already")
            sections.append(current)
    return sections


def write_sections(sections: Iterable[Section]) -> str:
    """The text of sections; an empty line after each.

    :raises ConfigError: a value contains a line break.
    """
    lines: list[str] = []
    for section in sections:
        lines.append(f"{section.type}: {section.id}")
        for key, value in section.properties:
            if value is not None and ("\n" in value or "\r" in value):
                raise ConfigError(f"{section.where}: the value of {key!r} contains a line break")
            lines.append(f"\t{key}" if value is None else f"\t{key} {value}")
        lines.append("")
    return "".join(f"{line}\n" for line in lines)
