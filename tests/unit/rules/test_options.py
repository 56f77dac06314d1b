# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of a backup: their types, and which layer wins."""

from __future__ import annotations

from typing import Any

import pytest
from engine.errors import UsageError
from engine.rules.options import OPTIONS, parse_option, parse_options
from engine.rules.precedence import LAYERS, EffectiveOptions, merge
from engine.rules.values import parse_flag, parse_pairs, split_words


@pytest.mark.parametrize(
    ("name", "value", "typed"),
    [
        ("mode", "stop", "stop"),
        ("compress", "1", "lzo"),
        ("compress", True, "lzo"),
        ("compress", 0, "0"),
        ("compress", "zstd", "zstd"),
        ("zstd", "0", 0),
        ("pigz", "-1", -1),
        ("bwlimit", 1024, 1024),
        ("ionice", "8", 8),
        ("remove", "off", False),
        ("protected", "YES", True),
        ("stdexcludes", True, True),
        ("mailto", " ,,; a@b, ; c@d ", ("a@b", "c@d")),
        ("mailto", "", ()),
        ("mailto", "a b\0c", ("a b", "c")),
        ("exclude-path", "/a b", ("/a b",)),
        ("exclude_path", ["/a", "*.iso"], ("/a", "*.iso")),
        ("tmpdir", "/var/tmp/", "/var/tmp"),
        ("dumpdir", "/", "/"),
        ("fleecing", "1,storage=fast", {"enabled": True, "storage": "fast"}),
        ("fleecing", "enabled=1,storage=fast", {"enabled": True, "storage": "fast"}),
        ("fleecing", "0", {"enabled": False}),
        ("fleecing", False, {"enabled": False}),
        ("fleecing", {"enabled": True, "storage": "fast"}, {"enabled": True, "storage": "fast"}),
        ("performance", "max-workers=4,", {"max-workers": 4}),
        ("performance", {"pbs_entries_max": 5, "max_workers": None}, {"pbs-entries-max": 5}),
        ("prune-backups", "keep-daily=3", {"keep-daily": 3}),
        ("notes-template", "{{guestname}}", "{{guestname}}"),
        ("job-id", "night-1", "night-1"),
        ("pbs-change-detection-mode", "metadata", "metadata"),
    ],
)
def test_values(name: str, value: Any, typed: Any) -> None:
    assert parse_option(name, value) == typed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bogus", "1"),
        ("stdout", "1"),
        ("mode", "warp"),
        ("mode", "Stop"),
        ("compress", "2"),
        ("compress", "xz"),
        ("zstd", "-1"),
        ("zstd", "many"),
        ("zstd", True),
        ("bwlimit", "-1"),
        ("ionice", "9"),
        ("ionice", "-1"),
        ("lockwait", "1.5"),
        ("stopwait", ""),
        ("remove", "maybe"),
        ("remove", "2"),
        ("storage", ""),
        ("tmpdir", "relative"),
        ("script", ""),
        ("fleecing", "1"),
        ("fleecing", "1,storage="),
        ("fleecing", "1,0,storage=a"),
        ("fleecing", "1,foo=bar"),
        ("performance", "max-workers=0"),
        ("performance", "max-workers=257"),
        ("performance", "4"),
        ("performance", "max-workers=1,max-workers=2"),
        ("performance", {"foo": 1}),
        ("prune-backups", "keep-foo=1"),
        ("notes-template", "{{foo}}"),
        ("notes-template", "x" * 1025),
        ("mailnotification", "never"),
        ("notification-mode", "mail"),
        ("job-id", ""),
        ("job-id", "a b"),
        ("job-id", "x" * 51),
    ],
)
def test_what_is_refused_names_the_option(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name.replace("-", "_") if name in OPTIONS else "option"):
        parse_option(name, value)


def test_keys_that_are_known_are_told_with_one_that_is_not() -> None:
    with pytest.raises(UsageError, match=r"unknown keys: max_workers \(known are max-workers, pbs-entries-max"):
        parse_option("performance", "max_workers=4")


def test_options_that_are_not_given() -> None:
    assert parse_options({"mode": None, "exclude-path": ["/a"]}) == {"exclude_path": ("/a",)}


def effective(
    call: dict[str, Any] | None = None,
    conf: dict[str, Any] | None = None,
    job: dict[str, Any] | None = None,
    storage: dict[str, int] | None = None,
) -> EffectiveOptions:
    return merge(
        parse_options(call or {}), parse_options(conf or {}), job=parse_options(job or {}), storage_prune=storage
    )


# Built-in defaults as the option table has them.
DEFAULTS = {
    "mode": "snapshot",
    "compress": "0",
    "pigz": 0,
    "zstd": 1,
    "stdexcludes": True,
    "quiet": False,
    "lockwait": 180,
    "stopwait": 10,
    "bwlimit": 0,
    "ionice": 7,
    "performance": {"max-workers": 16, "pbs-entries-max": 1048576},
    "fleecing": {"enabled": False},
    "prune_backups": {"keep-all": 1},
    "mailnotification": "always",
    "notification_mode": "auto",
    "storage": "local",
}


def test_defaults() -> None:
    options = effective()
    assert {name: options[name] for name in DEFAULTS} == DEFAULTS
    assert set(options.sources.values()) == {"built-in"}
    assert set(options.values) == set(options.sources) == set(OPTIONS)


@pytest.mark.parametrize(
    ("layers", "name", "value", "source"),
    [
        # The call, then the node's file, then the built-in default.
        ({"call": {"mode": "stop"}, "conf": {"mode": "suspend"}}, "mode", "stop", "call"),
        ({"call": {"mode": "stop"}, "job": {"mode": "suspend"}}, "mode", "stop", "call"),
        ({"job": {"mode": "stop"}, "conf": {"mode": "suspend"}}, "mode", "stop", "job"),
        ({"conf": {"mode": "suspend"}}, "mode", "suspend", "vzdump.conf"),
        ({"call": {"remove": 0}, "conf": {"remove": 1, "prune-backups": "keep-last=1"}}, "remove", False, "call"),
        # Retention: the storage beats the node's file; nothing is merged.
        (
            {"conf": {"prune-backups": "keep-all=1"}, "storage": {"keep-last": 10}},
            "prune_backups",
            {"keep-last": 10},
            "storage",
        ),
        ({"conf": {"prune-backups": "keep-last=7"}}, "prune_backups", {"keep-last": 7}, "vzdump.conf"),
        (
            {"call": {"prune-backups": "keep-daily=3"}, "storage": {"keep-last": 7}},
            "prune_backups",
            {"keep-daily": 3},
            "call",
        ),
        (
            {"job": {"prune-backups": "keep-daily=3"}, "storage": {"keep-last": 7}},
            "prune_backups",
            {"keep-daily": 3},
            "job",
        ),
        # The pair of targets.
        ({"conf": {"storage": "a"}}, "storage", "a", "vzdump.conf"),
        ({"conf": {"storage": "a"}, "call": {"dumpdir": "/x"}}, "storage", None, "built-in"),
        ({"conf": {"dumpdir": "/x"}, "call": {"storage": "a"}}, "dumpdir", None, "built-in"),
        ({"conf": {"dumpdir": "/x"}}, "storage", None, "built-in"),
        ({"job": {"storage": "a"}, "call": {"dumpdir": "/x"}}, "storage", None, "built-in"),
        ({"job": {"dumpdir": "/x"}, "conf": {"storage": "a"}}, "dumpdir", "/x", "job"),
        # Key by key.
        (
            {"conf": {"performance": "max-workers=4"}, "call": {"performance": "pbs-entries-max=5"}},
            "performance",
            {"max-workers": 4, "pbs-entries-max": 5},
            "call, vzdump.conf",
        ),
        (
            {"job": {"performance": "max-workers=4"}},
            "performance",
            {"max-workers": 4, "pbs-entries-max": 1048576},
            "job, built-in",
        ),
        # The strongest layer as a whole.
        (
            {"conf": {"fleecing": "enabled=1,storage=f"}, "call": {"fleecing": "0"}},
            "fleecing",
            {"enabled": False},
            "call",
        ),
        # Both together, the node's first.
        (
            {"conf": {"exclude-path": ["/a b", "/c"]}, "call": {"exclude-path": "/d"}},
            "exclude_path",
            ("/a b", "/c", "/d"),
            "vzdump.conf, call",
        ),
        (
            {"conf": {"exclude-path": "/c"}, "job": {"exclude-path": "/j"}, "call": {"exclude-path": "/d"}},
            "exclude_path",
            ("/c", "/d"),
            "vzdump.conf, call",
        ),
        ({"job": {"exclude-path": "/j"}}, "exclude_path", ("/j",), "job"),
        # An empty list is a value.
        ({"call": {"mailto": ""}, "conf": {"mailto": "a@b"}}, "mailto", (), "call"),
    ],
)
def test_precedence(layers: dict[str, Any], name: str, value: Any, source: str) -> None:
    options = effective(**layers)
    assert (options[name], options.sources[name]) == (value, source)
    assert all(part in LAYERS for part in source.split(", "))


@pytest.mark.parametrize(
    ("layers", "keep", "source"),
    [
        ({}, {"keep-all": 1}, "built-in"),
        ({"call": {"prune-backups": "keep-last=0,keep-daily=0"}, "storage": {"keep-last": 2}}, {"keep-all": 1}, "call"),
        ({"call": {"remove": 1}, "storage": {"keep-all": 1}}, {"keep-all": 1}, "storage"),
    ],
)
def test_keeping_everything_switches_pruning_off(layers: dict[str, Any], keep: dict[str, int], source: str) -> None:
    options = effective(**layers)
    assert options.keep.to_dict() == keep
    assert (options["remove"], options.sources["remove"]) == (False, source)


def test_two_targets_in_one_layer_are_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        effective({"storage": "a", "dumpdir": "/x"})


def test_suffix() -> None:
    assert [effective({"compress": text}).suffix for text in ("0", "1", "gzip", "zstd")] == ["", "lzo", "gz", "zst"]


def test_small_values() -> None:
    assert [parse_flag(text) for text in ("1", "On", "true", "0", "NO", False)] == [True] * 3 + [False] * 3
    assert split_words(" 100,,101; 102\t103 ") == ("100", "101", "102", "103")
    assert parse_pairs("local:x,size=1G,,a=b=c", "file") == {"file": "local:x", "size": "1G", "a": "b=c"}
    for text in ("a", "=1", "a=", "a=1,a=2"):
        with pytest.raises(ValueError, match="key"):
            parse_pairs(text)
    with pytest.raises(ValueError, match="twice"):
        parse_pairs("x,y", "file")
