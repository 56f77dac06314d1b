# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last runs, of whatever is found where records should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine.cli import main
from engine.system.host import Host, Paths
from engine.tasks.info import runs_info

GOOD = {
    "kind": "backup",
    "state": "finished",
    "started": 1,
    "finished": 2,
    "result": {"counts": {"ok": 2, "failed": 0}},
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host("n1", Paths.under(str(tmp_path)))


def put(host: Host, name: str, data: Any) -> Path:
    path = Path(host.paths.runs, name, "run.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "wrong",
    [
        {"result": [1]},
        {"result": {"counts": [1]}},
        {"result": {"counts": {"ok": "two"}}},
        {"result": {"archives": [{"kind": "qemu"}]}, "kind": "verify"},
        {"result": {"archives": 7}, "kind": "verify"},
        {"result": "text", "kind": "restore"},
        {"started": "yesterday"},
        {"started": 1e300},
        {"finished": []},
        {"kind": ["backup"], "result": 1},
    ],
)
def test_a_record_of_wrong_types_is_passed_over(
    host: Host, wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    put(host, "20260101T000000Z-1", GOOD)
    path = put(host, "20260101T000000Z-2", {**GOOD, **wrong})
    told: list[str] = []
    (row,) = runs_info(host, told.append, limit=1)
    assert (row["id"], row["guests"], row["summary"]) == ("20260101T000000Z-1", 2, "2 ok")
    (warning,) = told
    assert warning.startswith(f"{path} is passed over")
    assert f"remove {path.parent}" in warning
    assert main(["--root", str(Path(host.paths.etc).parent), "status", "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["runs"]) == 1
    assert f"warning: {path}" in err
