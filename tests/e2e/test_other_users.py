# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What other users of the host, and of a storage's file system, can do to backups, and cannot."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest
from helpers.archives import CT_CONFIG, config, member, outside, tar_archive, untouched
from helpers.guests import CT
from helpers.node import Node

RUN = ("run", str(CT), "--storage", "backup")
NEW = 301


def as_nobody(*argv: str) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_they_cannot_hold_locks(box: Node) -> None:
    box.root.chmod(0o755)
    box.call(*RUN)
    for lock in Path(box.host.paths.locks).iterdir():
        taken = as_nobody("flock", "--nonblock", str(lock), "true")
        assert (taken.returncode, "Permission denied" in taken.stderr) == (66, True), lock


def test_a_lock_of_an_older_version_is_closed(box: Node) -> None:
    box.call(*RUN)
    lock = Path(box.host.paths.locks) / "run.lock"
    lock.chmod(0o644)
    box.call(*RUN)
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@pytest.mark.parametrize("form", ["subvol", "raw"])
def test_they_cannot_run_the_programs_of_a_container(form: str, box: Node) -> None:
    box.root.chmod(0o755)
    box.call(*RUN)
    box.call("restore", "backup:latest/box", str(NEW), "--volume", f"rootfs=local,format={form},size=32M")
    box.call("guest", "start", str(NEW))
    held = [path for path in box.root.rglob("busybox") if str(NEW) in path.parts]
    assert held
    for program in held:
        program.chmod(0o4755)
        # Not by setpriv itself, which still has root's capabilities when it runs a program.
        assert as_nobody("sh", "-c", 'exec "$0" true', str(program)).returncode == 126, program
    box.call("guest", "stop", str(NEW), "--force")


def test_logs_and_unpacked_configs_are_closed(box: Node) -> None:
    box.call(*RUN)
    box.call("restore", "backup:latest/box", str(NEW))
    found = [*box.dump.glob("*.log"), *Path(box.host.paths.log).iterdir()]
    assert len(found) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o640}


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_lies_in_wait_on_the_storage(kind: str, box: Node) -> None:
    """Links and pipes with the names that the next archives and their companions would get."""
    out = outside(box)
    box.dump.mkdir(parents=True)
    now = time.time()
    for second in range(30):
        stem = time.strftime(f"vzdump-lxc-{CT}-%Y_%m_%d-%H_%M_%S", time.localtime(now + second))
        for name in (f"{stem}.log", f"{stem}.tar.notes", f"{stem}.tar.protected", f"{stem}.dat"):
            if kind == "link":
                (box.dump / name).symlink_to(out / "witness")
            else:
                os.mkfifo(box.dump / name)
    (guest,) = box.json(*RUN, "--notes-template", "hello", "--protected", "1")["guests"]
    assert Path(guest["log"]).read_text(encoding="utf-8").count("INFO") > 3
    (archive,) = box.json("archives")
    assert (archive["notes"], archive["protected"]) == ("hello", True)
    untouched(out)


def test_notes_that_are_no_file(box: Node) -> None:
    archive = tar_archive(box, [config(CT_CONFIG), member("./x")])
    (path,) = map(Path, box.archives())
    notes = path.with_name(path.name + ".notes")
    os.mkfifo(notes)
    assert [row["notes"] for row in box.json("archives")] == [""]
    notes.unlink()
    notes.symlink_to("/etc/passwd")
    assert [row["notes"] for row in box.json("archives")] == [""]
    box.call("archive", archive, "--notes", "mine")
    assert [row["notes"] for row in box.json("archives")] == ["mine"]
    assert "root:" in Path("/etc/passwd").read_text(encoding="utf-8")


def test_names_and_notes_do_not_command_the_terminal(box: Node) -> None:
    tar_archive(box, [config(CT_CONFIG.replace("hostname: guest", "hostname: g\x1b[2Jx")), member("./x")])
    (path,) = map(Path, box.archives())
    path.with_name(path.name + ".notes").write_bytes(b"\x1b]0;title\x07\rred\xc2\x9b31m\xff\n")
    (box.dump / "a\x1b[2J-101-b.tar").write_bytes(b"x")
    box.call("restore", str(path), str(NEW))
    for argv in (("archives",), ("guests",), ("status",), ("restore", f"backup:latest/{CT}", "302")):
        ended = box.start(*argv).wait()
        assert not [char for char in ended.out + ended.err if char != "\n" and not char.isprintable()], argv
    assert "\\x1b]0;title\\x07\\rred\\x9b31m" in box.call("archives")
