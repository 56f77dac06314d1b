# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``jobs.cfg``: what is understood, what is told, what survives."""

from __future__ import annotations

import pytest
from engine.errors import UsageError
from engine.settings.jobs import JobDef, JobsFile, check_job_id, parse_jobs_cfg, section_from_job
from engine.settings.section import about, write_sections
from hypothesis import given, settings
from hypothesis import strategies as st

EXAMPLE = """vzdump: backup-1a2b3c4d-5e6f
\tcomment nightly%3A all guests
\tschedule mon..fri 21:00
\tall 1
\tcompress zstd
\tenabled 1
\texclude 102,103
\texclude-path /var/cache
\texclude-path *.iso
\tmode snapshot
\tnotes-template {{guestname}}
\tprune-backups keep-daily=7,keep-last=3
\trepeat-missed 1
\tstorage nas

"""


def parse(*lines: str, header: str = "vzdump: night") -> JobsFile:
    return parse_jobs_cfg("\n".join([header, *(f"\t{line}" for line in lines), ""]))


def night(*lines: str) -> tuple[JobDef, list[str]]:
    file = parse("schedule daily", "all 1", *lines)
    return file.jobs["night"], [text.split(": ", 3)[3] for text in about(file.findings, "night")]


def test_the_example_and_its_way_back() -> None:
    file = parse_jobs_cfg(EXAMPLE)
    assert (file.findings, file.broken) == ((), {})
    (job,) = file.jobs.values()
    assert job == JobDef(
        id="backup-1a2b3c4d-5e6f",
        schedule="mon..fri 21:00",
        comment="nightly: all guests",
        repeat_missed=True,
        selection={"all": True, "exclude": ("102", "103")},
        options={
            "compress": "zstd",
            "exclude_path": ("/var/cache", "*.iso"),
            "mode": "snapshot",
            "notes_template": "{{guestname}}",
            "prune_backups": {"keep-daily": 7, "keep-last": 3},
            "storage": "nas",
        },
    )
    assert write_sections([section_from_job(job)]) == EXAMPLE


def test_structures_are_written_with_the_default_key_first() -> None:
    job, problems = night("fleecing storage=fast,enabled=1", "performance pbs-entries-max=5,max-workers=4")
    assert problems == []
    written = write_sections([section_from_job(job)])
    assert "\tfleecing 1,storage=fast\n" in written
    assert "\tperformance max-workers=4,pbs-entries-max=5\n" in written


def test_sections_of_other_types_and_unknown_keys_survive() -> None:
    text = f"realm-sync: x\n\tschedule daily\n\trealm y\n\n{EXAMPLE}VZDUMP: y\n\tschedule daily\n\n"
    file = parse_jobs_cfg(text)
    assert list(file.jobs) == ["backup-1a2b3c4d-5e6f"]
    assert write_sections(file.sections) == text
    job, problems = night("foo bar", "flag", "stdout 1")
    assert job.extra == {"foo": "bar", "flag": None, "stdout": "1"}
    assert problems[0] == "'foo' has no effect, it is not an option of a backup job"
    assert "\tflag\n\tfoo bar\n\tstdout 1\n" in write_sections([section_from_job(job)])


@pytest.mark.parametrize(
    ("line", "enabled", "told"),
    [
        ("enabled 0", False, False),
        ("enabled 1", True, False),
        ("enabled", True, False),
        ("enabled yes", True, True),
        ("enabled no", False, True),
        ("enabled maybe", True, True),
        ("comment none", True, False),
    ],
)
def test_booleans(line: str, enabled: bool, told: bool) -> None:
    job, problems = night(line)
    assert (job.enabled, bool(problems)) == (enabled, told)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("mode warp", "option mode: 'warp' is not one of snapshot, suspend, stop; the line has no effect"),
        ("storage", "storage: None has no value; the line has no effect"),
        ("vmid", "vmid: None has no value; the line has no effect"),
        ("bwlimit -1", "option bwlimit: '-1' is less than 0; the line has no effect"),
        ("fleecing 1", "names no storage"),
        ("notes-template {{foo}}", "unknown parts: variable 'foo'"),
        ("job-id x", "'job-id' has no effect"),
        ("schedule hourly", "'schedule' is given again, only its first line counts"),
        ("mode stop\n\tmode suspend", "'mode' is given again"),
        ("all yes", "'all' is given again"),
        ("remove yes", "'remove' should be 1: Proxmox VE does not understand 'yes' in this file"),
    ],
)
def test_a_wrong_line_is_left_out_and_told(line: str, problem: str) -> None:
    job, problems = night(line)
    assert len(problems) == 1
    assert problem in problems[0]
    assert job.schedule == "daily"


def test_lists() -> None:
    job = parse("schedule daily", "vmid 100, web;102").jobs["night"]
    assert job.selection == {"vmid": ("100", "web", "102")}
    job, _problems = night("mailto root,a@b c@d", "exclude-path", "exclude-path  /a b ")
    assert job.options == {"mailto": ("root", "a@b", "c@d"), "exclude_path": ("/a b",)}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["all 1"], "'schedule' is missing"),
        (["schedule", "all 1"], "'schedule' is missing"),
        (["schedule every now and then"], "unable to parse calendar event"),
        (["schedule daily", "prune-backups keep-foo=1"], "unknown key 'keep-foo'"),
        (["schedule daily", "prune-backups"], "has no value"),
    ],
)
def test_a_job_that_cannot_be_used_does_not_hide_the_others(lines: list[str], reason: str) -> None:
    file = parse(*lines, "", header=f"{EXAMPLE}vzdump: night")
    assert list(file.jobs) == ["backup-1a2b3c4d-5e6f"]
    assert reason in file.broken["night"]
    assert [finding.section for finding in file.findings] == ["night"]
    assert "night" in write_sections(file.sections)


def test_ids() -> None:
    long = "x" * 51
    assert long in parse("schedule daily", header=f"vzdump: {long}").broken
    assert "3f-uuid" in parse("schedule daily", header="vzdump: 3f-uuid").jobs
    for text in ("nightly", "a1", "A_b-c"):
        check_job_id(text)
    for text in ("a", "1ab", "a b", "a.b", "", long):
        with pytest.raises(UsageError, match="cannot be the id"):
            check_job_id(text)


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=10).map(str.strip)
NAMES = st.lists(st.text("abc123", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["stop", "suspend", "snapshot"]),
        "remove": st.booleans(),
        "bwlimit": st.integers(0, 1000),
        "performance": st.just({"max-workers": 4}),
        "fleecing": st.just({"enabled": True, "storage": "f"}),
        "prune_backups": st.sampled_from([{"keep-last": 3}, {"keep-all": 1}]),
        "exclude_path": st.just(("b", "/a x", "c")),
        "mailto": NAMES,
    },
)
JOBS = st.builds(
    JobDef,
    id=st.text("abcdef", min_size=2, max_size=5),
    schedule=st.sampled_from(["daily", "mon..fri 21:00", "*/15"]),
    enabled=st.booleans(),
    comment=TEXTS,
    repeat_missed=st.booleans(),
    selection=st.sampled_from(
        [{"all": True}, {"vmid": ("100", "web")}, {"pool": "p", "node": "n"}, {"tags": ("a", "b"), "query": "[?x]"}]
    ),
    options=OPTIONS,
    extra=st.sampled_from([{}, {"foo": "bar baz", "flag": None}]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(JOBS, max_size=3, unique_by=lambda job: job.id))
def test_round_trip(jobs: list[JobDef]) -> None:
    text = write_sections(map(section_from_job, jobs))
    file = parse_jobs_cfg(text)
    assert list(file.jobs.values()) == jobs
    assert write_sections(map(section_from_job, file.jobs.values())) == text
