# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands as filters: one JSON object or plain text per line in, one JSON object per line out.

A line that makes no sense is answered with ``error``; the others are not affected.
"""

from __future__ import annotations

import io
import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Iterator

from .cli_output import put_json_line
from .errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from datetime import tzinfo


def read_lines(key: str) -> Iterator[dict[str, Any]]:
    """Objects of standard input; a line of plain text is the value of ``key``, a broken one has ``error``."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are no text make their own line wrong, not the whole stream.
        sys.stdin.reconfigure(errors="surrogateescape")
    for line in sys.stdin:
        text = line.strip()
        if not text:
            continue
        if not text.startswith("{"):
            yield {key: text}
            continue
        try:
            yield dict(json.loads(text))
        except (ValueError, RecursionError) as exc:
            yield {key: text, "error": f"this is not JSON: {exc}"}


def answer_lines(key: str, answer: Callable[[dict[str, Any]], dict[str, Any]], failed: dict[str, Any]) -> int:
    """Answer every line at once.

    :param answer: makes the answer of an object; :param failed: the other members of an answer with ``error``.
    """
    for item in read_lines(key):
        error = item.get("error")
        if error is None:
            try:
                put_json_line(answer(item))
                continue
            except HoldfastError as exc:
                error = exc.message
        put_json_line({key: item.get(key), **failed, "error": error})
    return 0


def text_of(item: dict[str, Any], key: str) -> str:
    """A member that has to be a text."""
    value = item.get(key)
    if not isinstance(value, str):
        raise UsageError(f"the object has no text {key!r}")
    return value


def zone(name: object) -> tzinfo | None:
    """A time zone by name; ``None`` for the node's own.

    :raises UsageError: there is no such zone.
    """
    if not name:
        return None
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise UsageError(f"there is no time zone {name!r}", hint="give a name such as Europe/Vienna") from exc


def start_of(value: Any) -> int:
    """Seconds since 1970 from a number, an ISO time, or nothing (now)."""
    if value is None:
        return int(time.time())
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return int(datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError) as exc:
        raise UsageError(f"{value!r} is no time", hint="give seconds since 1970 or 2026-03-09T21:00:00") from exc
