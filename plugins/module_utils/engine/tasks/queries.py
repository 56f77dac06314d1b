# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Selecting guests by a JMESPath query over the list of guests."""

from __future__ import annotations

from typing import Any, Iterable

from ..errors import DependencyError, UsageError
from ..guests.model import GuestInfo

EXAMPLE = "for example: [?contains(tags, 'gold') && kind == 'lxc']"


def compile_query(text: str) -> Any:
    """The query, ready to search.

    :raises UsageError: it is no JMESPath; :raises DependencyError: the library is not installed.
    """
    try:
        import jmespath
    except ImportError as exc:
        raise DependencyError(
            f"cannot read the query {text!r}: the Python library jmespath is missing",
            hint="install the package python3-jmespath",
        ) from exc
    try:
        return jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as exc:
        raise UsageError(f"the query {text!r} is not JMESPath: {_one_line(exc)}", hint=EXAMPLE) from exc


def query_guests(text: str, guests: Iterable[GuestInfo], node: str) -> set[int]:
    """Ids of the guests that a query yields, as objects, ids or names.

    :raises UsageError: the query fails, or yields something else.
    """
    rows = [
        {
            "vmid": info.vmid,
            "name": info.name,
            "kind": info.kind,
            "tags": list(info.tags),
            "pool": info.pool,
            "node": node,
            "template": info.template,
        }
        for info in guests
    ]
    query = compile_query(text)
    import jmespath

    try:
        answer = query.search(rows)
    except jmespath.exceptions.JMESPathError as exc:
        raise UsageError(f"the query {text!r} cannot be answered: {_one_line(exc)}", hint=EXAMPLE) from exc
    if not isinstance(answer, list):
        raise UsageError(f"the query {text!r} yields {answer!r}, not a list of guests", hint=EXAMPLE)
    return {_vmid(text, item, rows) for item in answer}


def _vmid(text: str, item: Any, rows: list[dict[str, Any]]) -> int:
    wanted = item.get("vmid") if isinstance(item, dict) else item
    for row in rows:
        if wanted in (row["vmid"], row["name"]):
            return int(row["vmid"])
    raise UsageError(f"the query {text!r} yields {item!r}, which is no guest", hint=EXAMPLE)


def _one_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]
