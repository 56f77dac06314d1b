# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The node's defaults: planned, written, explained."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine.errors import UsageError
from engine.system.host import Host, Paths
from engine.tasks.changes import apply_change
from engine.tasks.defaults import explain_layers, plan_defaults
from engine.tasks.stores import plan_storage

TEXT = "# slow disks\nmode: suspend\nbogus: 1\nexclude-path: /var/cache '/a b'\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host("n1", Paths.under(str(tmp_path)))
    Path(host.paths.etc).mkdir()
    Path(host.paths.vzdump_conf).write_text(TEXT, encoding="utf-8")
    return host


def test_what_is_not_given_stays(host: Host) -> None:
    wanted = {"zstd": 2, "mode": None, "prune-backups": {"keep_last": 3}}
    change = plan_defaults(host, wanted)
    assert change.after_text == f"{TEXT}prune-backups: keep-last=3\nzstd: 2\n"
    assert change.before == {"mode": "suspend", "exclude_path": ["/var/cache", "/a b"]}
    assert change.after == {**change.before, "zstd": 2, "prune_backups": {"keep-last": 3}}
    assert any("bogus" in warning for warning in change.warnings)
    apply_change(host, change)
    assert not plan_defaults(host, wanted).changed


def test_purge_leaves_what_is_given_and_what_is_no_option(host: Host) -> None:
    change = plan_defaults(host, {"mode": "suspend", "compress": "zstd"}, purge=True)
    assert change.after_text == "# slow disks\nmode: suspend\nbogus: 1\ncompress: zstd\n"


def test_a_file_that_does_not_exist(tmp_path: Path) -> None:
    host = Host("n1", Paths.under(str(tmp_path)))
    assert not plan_defaults(host, {}, purge=True).changed
    apply_change(host, plan_defaults(host, {"stdexcludes": False}))
    assert Path(host.paths.vzdump_conf).read_text(encoding="utf-8") == "stdexcludes: 0\n"


@pytest.mark.parametrize(
    "wanted", [{"mode": "warp"}, {"job_id": "x"}, {"nonsense": 1}, {"storage": "nas", "dumpdir": "/mnt"}]
)
def test_refusals(host: Host, wanted: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        plan_defaults(host, wanted)


def test_where_options_come_from(host: Host) -> None:
    defaults = {"storage": "nas", "prune_backups": {"keep-daily": 7}}
    options, problems = explain_layers(host, {}, defaults)
    assert problems == ["there is no usable storage 'nas', so its retention cannot be told"]
    assert (options["prune_backups"], options.sources["prune_backups"]) == ({"keep-daily": 7}, "vzdump.conf")
    path = str(Path(host.paths.lib) / "nas")
    wanted = {"path": path, "content": ["backup"], "prune_backups": {"keep_last": 3}}
    apply_change(host, plan_storage(host, "nas", wanted))
    options, problems = explain_layers(host, {}, defaults)
    assert problems == []
    assert (options["prune_backups"], options.sources["prune_backups"]) == ({"keep-last": 3}, "storage")
    assert options.sources["mode"] == "built-in"
