# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ages as people write them: ``90m``, ``20h``, ``7d``."""

from __future__ import annotations

import re

from ..errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_age(text: str) -> int:
    """Seconds of an age: a number with a unit (s, m, h, d, w), several of them (``1d12h``), or plain seconds.

    :raises UsageError: it is something else.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"[0-9]+", plain):
        return int(plain)
    if not re.fullmatch(r"(?:[0-9]+[smhdw])+", plain):
        raise UsageError(f"{text!r} is not an age", hint="write 90m, 20h, 7d, or seconds")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", plain))
