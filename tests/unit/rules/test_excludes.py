# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Exclude patterns: their meaning by examples, and that tar and rsync agree with it on random patterns."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from engine.errors import UsageError
from engine.rules.excludes import STANDARD, is_excluded, literal, parse_pattern, rsync_options, tar_options
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = ("a", "b", "ab", "a.b", "*", "[x]", "\\", "a b", "ä")
ENV = {**os.environ, "LC_ALL": "C"}


@pytest.mark.parametrize(
    ("pattern", "gone", "kept"),
    [
        ("bar", ["bar", "var/bar", "var/foo/bar", "bar/below"], ["bar2", "foobar"]),
        ("/bar", ["bar", "bar/below"], ["var/bar"]),
        ("*.log", ["x.log", "var/x.log"], ["x.log2", "log"]),
        ("/var/*.log", ["var/x.log"], ["var/sub/x.log", "x.log"]),
        ("/var/**.log", ["var/x.log", "var/sub/x.log"], ["x.log"]),
        ("/a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/bz"]),
        ("/a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("**/z", ["z", "a/z"], ["az"]),
        ("foo/bar", ["foo/bar", "x/foo/bar/y"], ["foo/x/bar"]),
        ("/x[0-9]", ["x1"], ["xa", "x10", "x/"]),
        ("/x[!0-9]", ["xa"], ["x1"]),
        ("/a\\*", ["a*"], ["ab"]),
        ("?", ["a", "b/c"], ["ab"]),
    ],
)
def test_meaning(pattern: str, gone: list[str], kept: list[str]) -> None:
    patterns = [parse_pattern(pattern)]
    for path in gone:
        assert is_excluded(patterns, path.encode(), folder=False), path
    for path in kept:
        assert not is_excluded(patterns, path.encode(), folder=False), path


def test_a_slash_at_the_end_means_folders() -> None:
    patterns = [parse_pattern("tmp/")]
    assert is_excluded(patterns, b"var/tmp", folder=True)
    assert is_excluded(patterns, b"var/tmp/x", folder=False)
    assert not is_excluded(patterns, b"var/tmp", folder=False)


def test_standard_excludes_keep_the_folders() -> None:
    patterns = [parse_pattern(text) for text in STANDARD]
    for path in (b"tmp/x", b"tmp/x/y", b"var/tmp/x", b"var/run/x.pid"):
        assert is_excluded(patterns, path, folder=False)
    for path in (b"tmp", b"var/tmp", b"var/run/xpid", b"home/tmp/x"):
        assert not is_excluded(patterns, path, folder=True)


@pytest.mark.parametrize("text", ["", "/", "//", "./", "[[:alpha:]]x", "[\\*[ab]"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a pattern"):
        parse_pattern(text)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bool]]:
    """A tree of three levels with awkward names, and each path with whether it is a folder."""
    root = tmp_path_factory.mktemp("tree")
    paths: dict[str, bool] = {}
    _grow(root, "", 2, paths)
    return str(root), paths


def _grow(root: Path, base: str, depth: int, paths: dict[str, bool]) -> None:
    for number, name in enumerate(NAMES):
        path = f"{base}/{name}" if base else name
        folder = depth > 0 and (number % 2 == 0 or (depth == 2 and number < 4))
        paths[path] = folder
        if folder:
            (root / path).mkdir()
            _grow(root, path, depth - 1, paths)
        else:
            (root / path).touch()


def _by_tar(root: str, options: list[str]) -> set[str]:
    made = subprocess.run(
        ["tar", "cf", "-", "-C", root, *options, "./"], capture_output=True, env=ENV, check=True
    ).stdout
    argv = ["tar", "tf", "-", "--quoting-style=literal"]
    listed = subprocess.run(argv, input=made, capture_output=True, env=ENV, check=True).stdout
    return {os.fsdecode(line[2:].rstrip(b"/")) for line in listed.split(b"\n") if line[2:]}


def _by_rsync(root: str, options: list[str]) -> set[str]:
    argv = ["rsync", "-aRn8", "--out-format=%n", *options, f"{root}/./", "/nonexistent-target/"]
    listed = subprocess.run(argv, capture_output=True, env=ENV, check=True).stdout
    names = re.sub(rb"\\#(\d{3})", lambda match: bytes([int(match[1], 8)]), listed).split(b"\n")
    found = {os.fsdecode(name.rstrip(b"/")) for name in names}
    return {name for name in found if name not in ("", ".") and not name.startswith("created directory")}


_WORDS = ["a", "b", "*", "?", "**", "[ab]", "[!a]", "\\*", "\\\\", "\\[", ".", "ä", "[", "]", " "]
_NAME = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=3).map("".join)
_PATTERN = st.builds(
    lambda anchored, names, folder: ("/" if anchored else "") + "/".join(names) + ("/" if folder else ""),
    st.booleans(), st.lists(_NAME, min_size=1, max_size=3), st.booleans(),
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=_PATTERN)
def test_tar_and_rsync_agree_with_the_meaning(tree: tuple[str, dict[str, bool]], text: str) -> None:
    root, paths = tree
    try:
        pattern = parse_pattern(text)
    except UsageError:
        return
    left = {path for path, folder in paths.items() if not is_excluded([pattern], os.fsencode(path), folder=folder)}
    assert _by_rsync(root, rsync_options([pattern])) == left
    if pattern.is_simple:
        assert _by_tar(root, tar_options([pattern])) == left
    else:
        # What tar does not know it is told by name.
        gone = [literal(path) for path in paths if path not in left]
        assert _by_tar(root, tar_options(gone)) == left
