# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``vzdump.conf``: the node's defaults of backup options, one ``key: value`` per line."""

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

    A broken line never stops a backup, as in the original; ``exclude-path`` may repeat and holds shell words.
    """
    options: dict[str, Any] = {}
    warnings: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        plain = line.strip()
        if not plain or plain.startswith("#"):
            continue
        match = _LINE.fullmatch(plain)
        if match is None:
            warnings.append(f"vzdump.conf line {number}: ignored, it is not 'key: value': {plain}")
            continue
        name = match[1].replace("-", "_")
        if name not in OPTIONS:
            warnings.append(f"vzdump.conf line {number}: ignored, there is no option {match[1]!r}")
            continue
        try:
            if name == "exclude_path":
                options[name] = (*options.get(name, ()), *shlex.split(match[2]))
            else:
                options[name] = parse_option(name, match[2])
        except (UsageError, ValueError) as exc:
            message = exc.message if isinstance(exc, UsageError) else str(exc)
            warnings.append(f"vzdump.conf line {number}: ignored, {message}")
    if "storage" in options and options.pop("dumpdir", None):
        warnings.append("vzdump.conf: both 'storage' and 'dumpdir' are set, 'dumpdir' is ignored")
    return options, warnings


def option_text(name: str, value: Any) -> str:
    """One option's value as configs write it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Mapping):
        return format_property_string(value, "enabled" if name == "fleecing" else None)
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)


def write_vzdump_conf(options: Mapping[str, Any]) -> str:
    """The file's text, options in alphabetical order."""
    lines: list[str] = []
    for name in sorted(options):
        key = name.replace("_", "-")
        if name == "exclude_path":
            lines.extend(f"{key}: {shlex.quote(glob)}" for glob in options[name])
        else:
            lines.append(f"{key}: {option_text(name, options[name])}")
    return "".join(f"{line}\n" for line in lines)
