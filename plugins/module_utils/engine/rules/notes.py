# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notes templates: ``{{guestname}}`` as in Proxmox VE, or ``{guestname}``, which Jinja leaves alone."""

from __future__ import annotations

import re
from typing import Mapping

from ..errors import UsageError

VARIABLES = ("cluster", "guestname", "node", "vmid")
_TOKEN = re.compile(r"\\(.)|\{\{(.*?)\}\}|\{([A-Za-z_]+)\}", re.DOTALL)
_ESCAPES = {"n": "\n", "\\": "\\"}


def render_notes(template: str, values: Mapping[str, str]) -> str:
    r"""Fill a template.

    ``\n`` is a line break and ``\\`` a backslash. Values are put in as they are and not looked at again.

    :param values: one text for each of ``VARIABLES``.
    :raises UsageError: an unknown variable, or a backslash before another character.
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] is not None:
            if match[1] not in _ESCAPES:
                raise UsageError(f"notes template: unexpected escape \\{match[1]}", hint=r"only \n and \\ are known")
            return _ESCAPES[match[1]]
        name = (match[2] if match[2] is not None else match[3]).strip()
        if name not in values:
            raise UsageError(
                f"notes template: there is no variable {name!r}", hint="known are " + ", ".join(sorted(values))
            )
        return values[name]

    return _TOKEN.sub(replace, template)
