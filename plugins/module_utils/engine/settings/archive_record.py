# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record beside an archive: what a look at its bytes must find, and what earlier looks found. JSON, version 1.

``size`` is that of the archive's file; ``digests`` are SHA-256s: by drive key for VMs (see
:mod:`..formats.disk_digest`), under ``tar`` that of a container's uncompressed tar; ``verified`` has the last result of
each level.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any, Mapping

from ..errors import ConfigError

MAX_BYTES = 1024 * 1024
LEVELS = ("index", "data")
"""Each includes the ones before it."""
STATES = ("ok", "unknown", "damaged")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CAUSES = 20


@dataclass(frozen=True)
class Verified:
    """The result of one verification.

    :param state: ``ok``, ``damaged``, or ``unknown``: nothing is wrong, but there was no digest to compare with.
    :param time: seconds since 1970; :param causes: what is wrong, for people.
    """

    level: str
    state: str
    time: int
    node: str = ""
    causes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArchiveRecord:
    """What is known of an archive besides its bytes; an empty one stands for an archive that was made elsewhere.

    :param problem: why the record cannot be read; then it says nothing else.
    """

    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    verified: tuple[Verified, ...] = ()
    problem: str = ""

    @property
    def last(self) -> Verified | None:
        """The result that counts: damage, else the last one of the deepest level."""
        worst = [one for one in self.verified if one.state == "damaged"]
        return max(worst or self.verified, key=lambda one: LEVELS.index(one.level), default=None)

    @property
    def damaged(self) -> bool:
        return any(one.state == "damaged" for one in self.verified)

    def at_least(self, level: str) -> Verified | None:
        """The newest result of this level or a deeper one, unless a look found damage."""
        deep = [one for one in self.verified if LEVELS.index(one.level) >= LEVELS.index(level)]
        return None if self.damaged else max(deep, key=lambda one: one.time, default=None)

    def with_result(self, result: Verified) -> ArchiveRecord:
        """The record after one more look; it replaces the results of its level and of those that it includes."""
        rank = LEVELS.index(result.level)
        kept = [one for one in self.verified if LEVELS.index(one.level) > rank]
        short = replace(result, causes=result.causes[:_CAUSES])
        return replace(self, verified=(*kept, short))


def write_record(record: ArchiveRecord) -> str:
    """The text of the file."""
    verified = [
        {"level": one.level, "state": one.state, "time": one.time, "node": one.node, "causes": list(one.causes)}
        for one in record.verified
    ]
    known = {"version": 1, "size": record.size, "digests": dict(record.digests), "verified": verified}
    return json.dumps(known, indent=1) + "\n"


def parse_record(text: str) -> ArchiveRecord:
    """A record from its file.

    :raises ConfigError: it is none that this version understands.
    """
    try:
        known = json.loads(text)
        if not isinstance(known, dict) or known.get("version") != 1:
            raise ValueError("it is no record of version 1")
        size = known.get("size")
        if size is not None and not _is_number(size):
            raise ValueError("its size is no number")
        digests = known.get("digests", {})
        for name, digest in digests.items():
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise ValueError(f"the digest of {name} is none")
        return ArchiveRecord(size, digests, tuple(map(_parse_verified, known.get("verified", []))))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as exc:
        raise ConfigError(f"the archive's record cannot be read: {exc}") from exc


def _parse_verified(entry: Any) -> Verified:
    one = Verified(entry["level"], entry["state"], entry["time"], entry.get("node", ""), tuple(entry.get("causes", [])))
    texts = all(isinstance(text, str) for text in (one.node, *one.causes))
    if one.level not in LEVELS or one.state not in STATES or not _is_number(one.time) or not texts:
        raise ValueError("a result in it makes no sense")
    return one


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
