# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records beside archives: written and read again, and whatever else stands there is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine.errors import ConfigError
from engine.settings.archive_record import ArchiveRecord, Verified, parse_record, write_record

DIGEST = "0123456789abcdef" * 4
GOOD: dict[str, Any] = {
    "version": 1,
    "size": 5,
    "digests": {"scsi0": DIGEST},
    "verified": [{"level": "data", "state": "ok", "time": 7, "node": "n1", "causes": []}],
}


def test_round_trip() -> None:
    record = ArchiveRecord(5, {"scsi0": DIGEST}, (Verified("index", "damaged", 7, "n1", ("why",)),))
    assert parse_record(write_record(record)) == record
    assert parse_record(json.dumps(GOOD)).digests == {"scsi0": DIGEST}
    assert parse_record('{"version": 1}') == ArchiveRecord()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"size": "5"},
        {"size": True},
        {"size": -1},
        {"digests": []},
        {"digests": {"scsi0": DIGEST[1:]}},
        {"digests": {"scsi0": DIGEST.upper()}},
        {"digests": {"scsi0": 7}},
        {"verified": 1},
        {"verified": [{}]},
        {"verified": ["x"]},
        {"verified": [{"level": "boot", "state": "ok", "time": 7}]},
        {"verified": [{"level": [], "state": "ok", "time": 7}]},
        {"verified": [{"level": "data", "state": "fine", "time": 7}]},
        {"verified": [{"level": "data", "state": "ok", "time": 7.5}]},
        {"verified": [{"level": "data", "state": "ok", "time": 1 << 70}]},
        {"verified": [{"level": "data", "state": "ok", "time": 7, "causes": [1]}]},
        {"verified": [{"level": "data", "state": "ok", "time": 7, "causes": 1}]},
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the archive's record cannot be read"):
        parse_record(json.dumps({**GOOD, **change}))


@pytest.mark.parametrize("text", ["", "null", "[" * 100_000, "\udc80", '{"version": 1, "size": 1' + "0" * 5000 + "}"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the archive's record cannot be read"):
        parse_record(text)


def test_which_result_counts() -> None:
    record = ArchiveRecord().with_result(Verified("index", "ok", 1)).with_result(Verified("data", "ok", 2))
    assert [one.level for one in record.verified] == ["data"]
    record = record.with_result(Verified("index", "ok", 3))
    assert record.last == Verified("data", "ok", 2)
    assert record.at_least("data") == Verified("data", "ok", 2)
    assert record.at_least("index") == Verified("index", "ok", 3)
    record = record.with_result(Verified("index", "damaged", 4, causes=tuple("x" * 50)))
    assert record.damaged and record.last is not None
    assert (record.last.state, len(record.last.causes)) == ("damaged", 20)
    assert record.at_least("index") is None
    record = record.with_result(Verified("data", "unknown", 5))
    assert not record.damaged
    assert record.at_least("index") == record.last == Verified("data", "unknown", 5)
    assert ArchiveRecord().last is ArchiveRecord().at_least("index") is None
