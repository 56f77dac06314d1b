# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Section-config files and property strings: text to values and back."""

from __future__ import annotations

import pytest
from engine.errors import ConfigError
from engine.settings.propstring import format_property_string, parse_flag, parse_property_string
from engine.settings.section import (
    Section,
    about,
    check_writable,
    decode_text,
    edit_sections,
    encode_text,
    parse_sections,
    write_sections,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st


def sections(text: str) -> list[Section]:
    found, findings = parse_sections(text, "x.cfg")
    assert findings == []
    return found


def test_a_file() -> None:
    text = "# on top\ndir:  one  \n\tpath /a b  \n  # inside\n\tflag\n\n\nvzdump: sha:1\n a b\n"
    assert sections(text) == [
        Section("dir", "one", [("path", "/a b"), ("flag", None)]),
        Section("vzdump", "sha:1", [("a", "b")]),
    ]
    assert write_sections(sections(text)) == "dir: one\n\tpath /a b\n\tflag\n\nvzdump: sha:1\n\ta b\n\n"


@pytest.mark.parametrize(
    "text",
    [
        "dir: a\r\n\tpath /a\r\n\r\ndir: b\r\n\tpath /b\r\n",
        "dir: a\n\tpath /a\n \t \ndir: b\n\tpath /b\n",
        "dir: a\n\tpath /a\ndir: b\n\tpath /b",
    ],
)
def test_what_ends_a_section(text: str) -> None:
    assert sections(text) == [Section("dir", "a", [("path", "/a")]), Section("dir", "b", [("path", "/b")])]


def test_characters_that_look_like_line_ends_are_part_of_a_value() -> None:
    assert sections("dir: a\n\tnote b\u2028c\x0cd\x85e\n")[0].properties == [("note", "b\u2028c\x0cd\x85e")]


def test_lines_that_belong_to_no_section_are_told_and_protect_the_file() -> None:
    found, findings = parse_sections("\tpath /x\n\ndir nas\n\tpath /y\n\ndir: a\n\tpath /a\n0\n", "x.cfg")
    assert found == [Section("dir", "a", [("path", "/a")])]
    assert [finding.message.partition(",")[0] for finding in findings] == [
        "x.cfg line 1: ignored",
        "x.cfg line 3: ignored with what follows",
        "x.cfg line 8: ignored with what follows",
    ]
    with pytest.raises(ConfigError, match="line 3"):
        check_writable(findings, "x.cfg")


def test_of_two_sections_with_one_id_the_later_counts() -> None:
    found, findings = parse_sections("dir: a\n\tpath /1\n\ndir: b\n\tpath /b\n\nnfs: a\n\tpath /2\n", "x.cfg")
    assert [section.where for section in found] == ["section 'dir: b' (line 4)", "section 'nfs: a' (line 7)"]
    assert about(findings, "a") == ["x.cfg line 7: a second section 'a' replaces the one before"]
    check_writable(findings, "x.cfg")


def test_repeated_keys() -> None:
    section = Section("t", "i", [("a", "1"), ("glob", "x"), ("a", "2"), ("glob", "y"), ("glob", None)])
    assert section.single(arrays=["glob"]) == ({"a": "1"}, ["a"])
    assert section.many("glob") == ["x", "y"]


@pytest.mark.parametrize("value", ["", " a", "a ", "a\nb", "a\rb", "a\n"])
def test_what_a_file_cannot_hold(value: str) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_sections([Section("dir", "a", [("path", value)])])


FILE = "# on top\n\ndir:  one\n  path /1\n\t# inside\n\n\n# of two\nnfs: two\n\tserver s\ndir: one\n\tpath /2\n\n#end\n"
NEW = Section("dir", "one", [("path", "/3")])


@pytest.mark.parametrize(
    ("text", "changes", "after"),
    [
        (FILE, {}, FILE),
        (
            FILE,
            {"one": NEW},
            "# on top\n\n\t# inside\n# of two\nnfs: two\n\tserver s\ndir: one\n\tpath /3\n\n#end\n",
        ),
        (FILE, {"one": None}, "# on top\n\n\t# inside\n# of two\nnfs: two\n\tserver s\n#end\n"),
        (FILE, {"new": Section("dir", "new", [("flag", None)])}, f"{FILE}\ndir: new\n\tflag\n\n"),
        ("", {"one": NEW}, "dir: one\n\tpath /3\n\n"),
        ("# only\n", {"one": NEW}, "# only\n\ndir: one\n\tpath /3\n\n"),
        ("\n\ndir: a\n\tpath /a", {"one": NEW}, "\n\ndir: a\n\tpath /a\n\ndir: one\n\tpath /3\n\n"),
    ],
)
def test_a_change_leaves_everything_else_as_it_is(text: str, changes: dict[str, Section | None], after: str) -> None:
    assert edit_sections(text, changes) == after


TEXTS = st.lists(st.sampled_from(["dir: a", "nfs: b", "\tkey x", "# note", "", " ", "junk", "t: a"])).map("\n".join)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(["a", "b", "c"]), st.booleans())
def test_a_change_changes_one_section(text: str, name: str, removed: bool) -> None:
    new = None if removed else Section("dir", name, [("path", "/new")])
    before, findings = parse_sections(text, "x.cfg")
    # With lines that belong to nothing a file is not changed.
    assume(all(finding.section for finding in findings))
    written = edit_sections(text, {name: new})
    after, _findings = parse_sections(written, "x.cfg")
    assert [one for one in after if one.id == name] == ([] if new is None else [new])
    assert [one for one in after if one.id != name] == [one for one in before if one.id != name]
    assert written.count("# note") == text.count("# note")


WORDS = st.text(st.characters(blacklist_categories=["Z", "C"], blacklist_characters="#"), min_size=1, max_size=8)
VALUES = st.one_of(st.none(), st.lists(WORDS, min_size=1, max_size=3).map(" ".join))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(WORDS, WORDS, st.lists(st.tuples(WORDS, VALUES), max_size=4)), max_size=4,
             unique_by=lambda section: section[1])
)  # fmt: skip
def test_section_round_trip(made: list[tuple[str, str, list[tuple[str, str | None]]]]) -> None:
    written = [Section(*parts) for parts in made]
    assert sections(write_sections(written)) == written


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20))
def test_free_text_round_trip(text: str) -> None:
    encoded = encode_text(text)
    assert encoded.isascii() and encoded.isprintable() and ":" not in encoded
    assert decode_text(encoded) == text


def test_free_text_as_the_original_writes_it() -> None:
    assert encode_text("50% a:b \u00fc") == "50%25 a%3Ab %C3%BC"
    assert decode_text("50%25 a%3Ab %C3%BC") == "50% a:b \u00fc"
    assert encode_text("a\udcffb") == "a%FFb"
    assert decode_text("a%FFb") == "a\udcffb"


KEYS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=6)
PROPERTIES = st.dictionaries(KEYS, st.text("abc/:=._ -0123456789", min_size=1, max_size=10), max_size=5)


@settings(max_examples=60, deadline=None)
@given(PROPERTIES)
def test_property_string_round_trip(values: dict[str, str]) -> None:
    assert parse_property_string(format_property_string(values)) == values


@settings(max_examples=60, deadline=None)
@given(PROPERTIES, st.text("abc:/.", min_size=1, max_size=10))
def test_property_string_with_a_default_key(values: dict[str, str], bare: str) -> None:
    everything = {**values, "file": bare}
    text = format_property_string(everything, "file")
    assert text.startswith(bare)
    assert parse_property_string(text, "file") == everything


def test_property_string_order_and_booleans() -> None:
    assert format_property_string({"b": True, "a": 1, "enabled": False}, "enabled") == "0,a=1,b=1"
    assert list(parse_property_string("x=1,a=2,,file", "f")) == ["x", "a", "f"]


@pytest.mark.parametrize("text", ["value", "=1", "a=", "a=1,a=2", "a=1,b"])
def test_what_is_no_property_string(text: str) -> None:
    with pytest.raises(ConfigError, match="key"):
        parse_property_string(text)


def test_flags() -> None:
    assert [parse_flag(text, "x") for text in ("1", "Yes", "off")] == [True, True, False]
    with pytest.raises(ConfigError, match="x: 'maybe' is neither yes nor no"):
        parse_flag("maybe", "x")
