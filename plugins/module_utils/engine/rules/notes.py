# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notes templates: ``{{guestname}}`` as in Proxmox VE, or ``{guestname}``, which Jinja leaves alone."""

from __future__ import annotations

import re
from typing import Mapping

from ..errors import UsageError

VARIABLES = ("cluster", "guestname", "node", "vmid")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "\\": "\\"}
_VARIABLE = re.compile(r"\{\{([^\s{}]+)\}\}|\{([A-Za-z_]+)\}")


def check_notes(template: str) -> None:
    """Refuse a template that cannot be filled.

    :raises UsageError: unknown variables or escapes, all of them named, or a line break that is not written as ``\\n``.
    """
    if "\n" in template:
        raise UsageError("the notes template contains a line feed", hint=r"write \n for a line break")
    unknown = [f"escape sequence {match[0]!r}" for match in _ESCAPE.finditer(template) if match[1] not in _ESCAPES]
    names = [match[1] or match[2] for match in _VARIABLE.finditer(_unescape(template))]
    unknown += [f"variable {name!r}" for name in names if name not in VARIABLES]
    if unknown:
        raise UsageError(
            f"the notes template has unknown parts: {', '.join(unknown)}",
            hint=r"known are \n, \\ and the variables " + ", ".join(f"{{{name}}}" for name in VARIABLES),
        )


def render_notes(template: str, values: Mapping[str, str]) -> str:
    """Fill a template.

    ``\\n`` is a line break and ``\\\\`` a backslash. Values are put in as they are and not looked at again.

    :param values: one text for each of ``VARIABLES``.
    :raises UsageError: as :func:`check_notes`.
    """
    check_notes(template)
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], _unescape(template))


def _unescape(template: str) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), template)
