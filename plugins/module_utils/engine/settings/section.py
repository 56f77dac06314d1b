# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's section-config files (``storage.cfg``, ``jobs.cfg``): text to sections and back.

A section is a header ``type: id``, indented ``key value`` lines and an empty line. What makes no sense is left out and
reported, so that one wrong line does not take the whole file away. Differences from the original, on purpose: unknown
types and keys survive a rewrite, a line of blanks ends a section, and a header without an empty line before it begins
a new section instead of being swallowed by the one before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Iterable, Sequence
from urllib.parse import quote, unquote

from ..errors import ConfigError

_HEADER = re.compile(r"(\S+):\s*(\S+)\s*")
_PROPERTY = re.compile(r"\s+(\S+)(?:\s+(.*\S))?\s*")
_PLAIN = " !\"#$&'()*+,-./;<=>?@[\\]^_`{|}~"


@dataclass(frozen=True)
class Finding:
    """Something in a file that has no effect, or not the effect that was meant.

    :param section: id of the section, empty outside of all; :param message: names file, line and key.
    """

    section: str
    message: str


@dataclass(frozen=True)
class Section:
    """One section.

    :param properties: keys and values in file order; a key may repeat; the value is ``None`` for a bare flag.
    :param line: number of the header's line, for messages.
    """

    type: str
    id: str
    properties: Sequence[tuple[str, str | None]] = ()
    line: int = field(default=0, compare=False)

    def single(self, arrays: Iterable[str] = ()) -> tuple[dict[str, str | None], list[str]]:
        """The properties that may stand only once, and the keys that stand again: the first one counts."""
        result: dict[str, str | None] = {}
        repeated: list[str] = []
        for key, value in self.properties:
            if key in result:
                repeated.append(key)
            elif key not in arrays:
                result[key] = value
        return result, repeated

    def many(self, key: str) -> list[str]:
        """All values of a key that may repeat."""
        return [value for name, value in self.properties if name == key and value is not None]

    @property
    def where(self) -> str:
        return f"section '{self.type}: {self.id}'" + (f" (line {self.line})" if self.line else "")


def parse_sections(text: str, source: str) -> tuple[list[Section], list[Finding]]:
    """The sections of a file, and what is left out: lines that belong to none (findings without a section).

    Of two sections with one id the later counts.

    :param source: name of the file, for messages.
    """
    sections: dict[str, Section] = {}
    findings: list[Finding] = []
    properties: list[tuple[str, str | None]] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{source} line {number}"
        if not line.strip():
            properties = None
        elif line.lstrip().startswith("#"):
            continue
        elif line[0].isspace():
            match = _PROPERTY.fullmatch(line)
            if properties is None or match is None:
                findings.append(Finding("", f"{where}: ignored, it belongs to no section: {line.strip()}"))
            else:
                properties.append((match[1], match[2]))
        else:
            match = _HEADER.fullmatch(line)
            properties = []
            if match is None:
                findings.append(Finding("", f"{where}: ignored with what follows, it is no header 'type: id': {line}"))
                continue
            if sections.pop(match[2], None) is not None:
                findings.append(Finding(match[2], f"{where}: a second section {match[2]!r} replaces the one before"))
            sections[match[2]] = Section(match[1], match[2], properties, number)
    return list(sections.values()), findings


def write_sections(sections: Iterable[Section]) -> str:
    """The text of sections; an empty line after each.

    :raises ConfigError: a value that the file cannot hold.
    """
    lines: list[str] = []
    for section in sections:
        lines.append(f"{section.type}: {section.id}")
        for key, value in section.properties:
            if value is not None and (not value or value != value.strip() or "\n" in value or "\r" in value):
                raise ConfigError(
                    f"{section.where}: {key!r} cannot be written with the value {value!r}",
                    hint="it must not be empty, have blanks at its ends, or contain a line feed",
                )
            lines.append(f"\t{key}" if value is None else f"\t{key} {value}")
        lines.append("")
    return "".join(f"{line}\n" for line in lines)


def replace_section(sections: Iterable[Section], name: str, new: Section | None) -> list[Section]:
    """The sections with one of them replaced, appended or (``None``) left out; the others stay as they are."""
    result = []
    found = False
    for section in sections:
        if section.id != name:
            result.append(section)
        elif new is not None:
            result.append(new)
            found = True
    return result if found or new is None else [*result, new]


def about(findings: Iterable[Finding], section: str) -> list[str]:
    """The messages about one section."""
    return [finding.message for finding in findings if finding.section == section]


def check_writable(findings: Iterable[Finding], source: str) -> None:
    """Refuse to rewrite a file in which lines were not understood at all: they would be lost.

    :raises ConfigError: there are such lines.
    """
    strays = [finding.message for finding in findings if not finding.section]
    if strays:
        raise ConfigError(
            f"{source} is not changed, because lines in it would be lost: {'; '.join(strays)}",
            hint="correct or remove these lines",
        )


def encode_text(text: str) -> str:
    """Free text on one line: what is not printable ASCII, ``:`` and ``%`` become ``%XX``."""
    return quote(text, safe=_PLAIN, errors="surrogateescape")


def decode_text(text: str) -> str:
    """The text as people wrote it."""
    return unquote(text, errors="surrogateescape")
