# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripts of the operator: which are refused, what they get, and how they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from engine.errors import HookError
from engine.system import script
from engine.system.script import check_script, run_script


def make(folder: Path, text: str, mode: int = 0o755) -> str:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(mode)
    return str(path)


def gone(pid: int) -> bool:
    """Whether a process ended, also one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


def test_a_script_gets_its_arguments_an_environment_of_its_own_and_no_input(tmp_path: Path) -> None:
    path = make(tmp_path, 'echo "$@"; echo "$STOREID"; env | cut -d= -f1 | sort | tr "\\n" " "; pwd >&2; cat')
    heard: list[str] = []
    run_script(path, ["backup-start", "stop", "100"], env={"STOREID": "nas"}, tell=heard.append)
    assert heard[:2] == ["backup-start stop 100", "nas"]
    # The shell adds what it always has.
    assert set(heard[2].split()) - {"PWD", "SHLVL", "_", "OLDPWD"} == {"STOREID", "/"}


def test_failures_name_the_call_and_its_last_words(tmp_path: Path) -> None:
    path = make(tmp_path, "seq 5; exit 7")
    with pytest.raises(HookError, match=r"hook job-end` failed with exit status 7: 3 / 4 / 5"):
        run_script(path, ["job-end"], env={}, tell=lambda line: None)
    path = make(tmp_path, "kill -9 $$")
    with pytest.raises(HookError, match="failed with signal 9 "):
        run_script(path, [], env={}, tell=lambda line: None)
    path = make(tmp_path, "")
    Path(path).write_text("#!/no/such/shell\n", encoding="utf-8")
    with pytest.raises(HookError, match=r"failed with exit status 127: .*hook"):
        run_script(path, [], env={}, tell=lambda line: None)


def test_output_comes_line_by_line_whatever_it_is(tmp_path: Path) -> None:
    path = make(tmp_path, "printf 'a\\n\\377b\\r\\nlast'; head -c 200000 /dev/zero | tr '\\0' x")
    heard: list[str] = []
    run_script(path, [], env={}, tell=heard.append)
    assert heard[:2] == ["a", "\\xffb"]
    assert "".join(heard[2:]) == "last" + 200000 * "x"


def test_a_daemon_that_keeps_the_output_open_holds_nobody_up(tmp_path: Path) -> None:
    path = make(tmp_path, "sleep 60 & echo $!")
    heard: list[str] = []
    began = time.monotonic()
    run_script(path, [], env={}, tell=heard.append)
    assert time.monotonic() - began < 10
    daemon = int(heard[0])
    assert not gone(daemon)
    os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_script_that_takes_too_long_is_ended_with_what_it_started(
    tmp_path: Path, trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "GRACE_SECONDS", 1)
    path = make(tmp_path, f"{trap}sleep 60 & echo $!; wait; wait")
    heard: list[str] = []
    with pytest.raises(HookError, match=r"did not end within 1 s and was ended: [0-9]+"):
        run_script(path, [], env={}, tell=heard.append, limit=1)
    wait_until_gone(int(heard[0]))


def test_an_exception_ends_the_script_with_what_it_started(tmp_path: Path) -> None:
    path = make(tmp_path, "sleep 60 & echo $!; wait")
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_script(path, [], env={}, tell=hear)
    wait_until_gone(int(heard[0]))


def test_a_script_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
    path = make(tmp_path, f"sleep 60 & echo $! >{tmp_path}/pid; wait")
    child = os.fork()
    if child == 0:
        run_script(path, [], env={}, tell=lambda line: None)
        os._exit(0)
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_scripts_can_be_called_beside_threads(tmp_path: Path) -> None:
    path = make(tmp_path, "echo done")
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    heard: list[str] = []
    for _n in range(5):
        run_script(path, [], env={}, tell=heard.append)
    stop.set()
    thread.join()
    assert heard == ["done"] * 5


def test_scripts_that_cannot_be_run_are_refused(tmp_path: Path) -> None:
    for path, why in (
        ("hook", "no absolute path"),
        (str(tmp_path / "none"), "does not exist"),
        (str(tmp_path), "it is no file"),
        (make(tmp_path, "true", 0o644), "it is not executable"),
    ):
        with pytest.raises(HookError, match=why) as info:
            check_script(path)
        assert info.value.hint
    check_script(make(tmp_path, "true"))


def test_scripts_that_others_can_change_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path, "true")
    for mode in (0o775, 0o757):
        os.chmod(path, mode)
        with pytest.raises(HookError, match=f"others can write to {path} ") as info:
            check_script(path)
        assert f"chmod go-w {path}" in info.value.hint
    os.chmod(path, 0o755)
    tmp_path.chmod(0o777)
    with pytest.raises(HookError, match=f"others can write to {tmp_path} ") as info:
        check_script(path)
    assert f"chmod o-w {tmp_path}" in info.value.hint
    # As in /tmp: others cannot replace the file.
    tmp_path.chmod(0o1777)
    check_script(path)
    tmp_path.chmod(0o755)
    below = tmp_path / "open"
    below.mkdir()
    link = tmp_path / "link"
    link.symlink_to(make(below, "true"))
    check_script(str(link))
    below.chmod(0o777)
    with pytest.raises(HookError, match=f"others can write to {below} "):
        check_script(str(link))


def test_scripts_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path, "true")
    if os.geteuid() == 0:
        os.chown(path, 1000, 0)
    owner = os.stat(path).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(HookError, match=f"{path} belongs to user {owner}") as info:
        check_script(path)
    assert f"chown root {path}" in info.value.hint
