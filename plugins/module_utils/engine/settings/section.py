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
from typing import Iterable, Mapping, Sequence
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


def edit_sections(text: str, changes: Mapping[str, Section | None]) -> str:
    """The text with sections replaced, appended or (``None``) removed; others stay as they are, and so do comments.

    :param changes: by id; all sections of that id give way to the new one, which takes the place of the last.
    """
    blocks = _blocks(text)
    last = {name: number for number, (name, _lines) in enumerate(blocks)}
    result: list[str] = []
    for number, (name, lines) in enumerate(blocks):
        if name not in changes:
            result += lines
            continue
        result += [line for line in lines if line.lstrip().startswith("#")]
        new = changes[name]
        if new is not None and number == last[name]:
            result += write_sections([new]).split("\n")[:-1]
    for name, new in changes.items():
        if new is not None and name not in last:
            if result and result[-1].strip():
                result.append("")
            result += write_sections([new]).split("\n")[:-1]
    return "".join(f"{line}\n" for line in result)


def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """The lines of each section with the blank ones behind it, and its id, which is empty for what is in no section."""
    blocks: list[tuple[str, list[str]]] = []
    inside = False
    for line in text.split("\n")[: -1 if text.endswith("\n") or not text else None]:
        blank, header = not line.strip(), _HEADER.fullmatch(line)
        comment = line.lstrip().startswith("#")
        if blank or (comment and inside):
            blocks = blocks or [("", [])]
        elif header is not None and not comment:
            blocks.append((header[2], []))
        elif not inside and (not blocks or blocks[-1][0]):
            blocks.append(("", []))
        blocks[-1][1].append(line)
        inside = not blank and (inside or (header is not None and not comment))
    return blocks


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
