# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``vzdump.conf``: the node's defaults of backup options, one ``key: value`` per line.

The file is written by people; a change keeps their comments, their order, and the lines that mean nothing here.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Mapping

from ..errors import UsageError
from ..rules.options import OPTIONS, parse_option
from .propstring import format_property_string

_LINE = re.compile(r"(\S+?):\s*(.*)")


def parse_vzdump_conf(text: str) -> tuple[dict[str, Any], list[str]]:
    """Typed options, and warnings about lines that have no effect.

    A broken line never stops a backup, as in the original. Of several lines with one key the last counts; the lines of
    ``exclude-path`` add up, and each holds shell words.
    """
    values: dict[str, tuple[int, str]] = {}
    globs: list[str] = []
    warnings: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        key = _key(line)
        where = f"vzdump.conf line {number}: ignored"
        if key is None:
            if line.strip() and not line.strip().startswith("#"):
                warnings.append(f"{where}, it is not 'key: value': {line.strip()}")
        elif key not in OPTIONS:
            warnings.append(f"{where}, there is no option {key.replace('_', '-')!r}")
        elif key == "exclude_path":
            try:
                globs += shlex.split(_value(line))
            except ValueError as exc:
                warnings.append(f"{where}, exclude-path: {exc}")
        else:
            values[key] = number, _value(line)
    options: dict[str, Any] = {}
    for key, (number, value) in values.items():
        try:
            options[key] = parse_option(key, value)
        except UsageError as exc:
            warnings.append(f"vzdump.conf line {number}: ignored, {exc.message}")
    if globs:
        options["exclude_path"] = tuple(globs)
    if "storage" in options and options.pop("dumpdir", None):
        warnings.append("vzdump.conf: both 'storage' and 'dumpdir' are set, 'dumpdir' is ignored")
    return options, warnings


def edit_vzdump_conf(text: str, changes: Mapping[str, Any]) -> str:
    """The file's text with some options set, or removed where the value is ``None``; other lines stay as they are."""
    left = dict(changes)
    lines: list[str] = []
    for line in text.split("\n"):
        key = _key(line)
        if key not in changes:
            lines.append(line)
        elif key in left:
            # A changed option stands where it stood first; its further lines go away.
            lines += _lines(key, left.pop(key))
    while lines and not lines[-1].strip():
        lines.pop()
    lines += [line for key in sorted(left) for line in _lines(key, left[key])]
    return "".join(f"{line}\n" for line in lines)


def option_text(name: str, value: Any) -> str:
    """One option's value as configs write it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Mapping):
        return format_property_string(value, "enabled" if name == "fleecing" else None)
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)


def _lines(name: str, value: Any) -> list[str]:
    key = name.replace("_", "-")
    if value is None:
        return []
    if name == "exclude_path":
        return [f"{key}: {shlex.quote(glob)}" for glob in value]
    return [f"{key}: {option_text(name, value)}".rstrip()]


def _key(line: str) -> str | None:
    """The option that a line is about."""
    match = _LINE.fullmatch(line.strip())
    return None if match is None or match[1].startswith("#") else match[1].replace("-", "_")


def _value(line: str) -> str:
    match = _LINE.fullmatch(line.strip())
    return match[2] if match is not None else ""
